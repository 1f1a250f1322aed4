"""OneTrans: one causal transformer over the history's events and the features' tokens (Zhang et al.
2025, arXiv 2510.26104v3).

The sequence is [S-tokens ; NS-tokens] (section 3.2). S-tokens are the events that the request sees,
by time; NS-tokens are the features of one candidate. Auto-Split makes the NS-tokens, as in HeMix.
Blocks are pre-norm with RMSNorm (section 3.3). S-tokens share Q, K, V and the feed-forward network;
every NS-token has its own (eq. 12, 13).

A token attends to itself and to those before it. So the S-side is computed once per request, and
its keys and values serve all candidates (section 3.5.1). In the pyramid (section 3.4, eq. 14) only
the newest S-tokens of a layer issue queries and remain, fewer from layer to layer.

The paper leaves four choices open. The null event opens every sequence. An S-token holds its action
and whether it is real time (the paper's sequence-type indicator). The output projection is shared.
The heads read the NS-tokens, so S-tokens of the top layer give only keys and values.

Letters: E events, Q requests, N candidates, S NS-tokens, D token width, H heads, d = D / H. In a
group: B requests, K candidates a request, L S-tokens, the newest last, w <= L of them that go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from hemix.config import Count
from hemix.data.devices import to_device
from hemix.data.spec import InputSpec
from hemix.models.base import Ranker, SizedConfig, check_divisor, named_sizes
from hemix.models.registry import register_model
from hemix.nn.events import EventEncoder
from hemix.nn.grouping import Group, group_requests
from hemix.nn.heads import Heads
from hemix.nn.history_ranges import HistoryRanges
from hemix.nn.init import WeightInit
from hemix.nn.inputs import Inputs, level_widths
from hemix.nn.layers import GroupedLinear, NormKind
from hemix.nn.slots import HostIndex, from_slots, slots, to_slots
from hemix.nn.states import PER_EVENT
from hemix.nn.tokenizer import Tokenizer

__all__ = ["OneTrans", "OneTransBlock", "OneTransConfig", "RequestState", "UserState", "pyramid"]

_SCORES_AT_ONCE = 2**21
"""Attention scores of NS-tokens are made for so many at a time."""


class OneTransConfig(SizedConfig):
    """Settings of OneTrans."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024),
        attention_heads=(2, 4, 6, 8),
        layers=(2, 3, 3, 7),
        tokenizer_hidden=(128, 512, 2048, 4096),
    )

    name: Literal["onetrans"] = "onetrans"
    ns_tokens: Count = 8
    """S, the NS-tokens."""
    attention_heads: Count = 2
    tokenizer_hidden: Count = 128
    """Units of the tokeniser's inner layer."""
    norm: NormKind = "layer"
    """What normalises the NS-tokens; the blocks have RMSNorm."""
    ffn_expansion: Count = 4
    pooling: Literal["mean", "flatten"] = "mean"
    history_events: Count = 50
    """S-tokens that issue queries in the first layer."""

    @model_validator(mode="after")
    def _heads_divide(self) -> OneTransConfig:
        check_divisor(self.token_width, attention_heads=self.attention_heads)
        return self


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone."""

    projected_RU: Tensor
    """The user's columns of the tokeniser's first layer"""
    events_ED: Tensor = field(metadata=PER_EVENT)
    """[1 + E, D]: the null event, then the events"""


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    """One layer's S-tokens of a group, as keys and values."""

    keys_values_BL2D: Tensor
    valid_BL: Tensor
    """bool: False where a shorter history is padded, in front"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    projected_QU: Tensor
    groups: list[Group]
    sequences: list[list[_Sequence]]
    """By layer, then by group"""


def pyramid(layers: int, first: int, last: int) -> list[int]:
    """Return how many S-tokens issue queries in each layer, on a line (section 4.1.4).

    Args:
        layers: How many layers there are.
        first: S-tokens of the lowest layer.
        last: S-tokens of the top layer.
    """
    steps = max(layers - 1, 1)
    return [round(first + (last - first) * layer / steps) for layer in range(layers)]


class OneTransBlock(nn.Module):
    """One layer: causal attention and a feed-forward network, both with mixed parameters (sections
    3.3.1 and 3.3.2)."""

    def __init__(self, config: OneTransConfig, top: bool) -> None:
        super().__init__()
        width, inner, tokens = (
            config.token_width,
            config.ffn_expansion * config.token_width,
            config.ns_tokens,
        )
        self.heads = config.attention_heads
        self.norm_attention = nn.RMSNorm(width, eps=1e-6)
        self.norm_ffn = nn.RMSNorm(width, eps=1e-6)
        self.key_value_s = nn.Linear(width, 2 * width, bias=False)
        self.query_s = None if top else nn.Linear(width, width, bias=False)
        self.ffn_s = (
            None
            if top
            else nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        )
        self.query_key_value_ns = GroupedLinear(tokens, width, 3 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.first_ns = GroupedLinear(tokens, width, inner)
        self.second_ns = GroupedLinear(tokens, inner, width)
        self.dropout = nn.Dropout(config.dropout)

    def sequence(self, x_BLD: Tensor, valid_BL: Tensor) -> _Sequence:
        """Return keys and values of the S-tokens.

        Args:
            x_BLD: S-tokens.
            valid_BL: bool, False for padding.
        """
        return _Sequence(
            keys_values_BL2D=self.key_value_s(self.norm_attention(x_BLD)), valid_BL=valid_BL
        )

    def forward_s(self, x_BLD: Tensor, sequence: _Sequence, queries: int) -> Tensor:
        """Return the newest w = min(queries, L) S-tokens after this layer, [B, w, D].

        Args:
            x_BLD: S-tokens before this layer.
            sequence: Their keys and values.
            queries: How many of the newest issue queries.
        """
        assert self.query_s is not None and self.ffn_s is not None, (
            "nothing reads the S-tokens of the top layer"
        )
        x_BwD = x_BLD[:, -queries:]
        seen_BwL = _causal(sequence.valid_BL, x_BwD.shape[1])
        q_BHwd = self._by_head(self.query_s(self.norm_attention(x_BwD)))
        keys_BHLd, values_BHLd = (self._by_head(x) for x in sequence.keys_values_BL2D.chunk(2, 2))
        read_BHwd = F.scaled_dot_product_attention(
            q_BHwd, keys_BHLd, values_BHLd, attn_mask=seen_BwL.unsqueeze(1)
        )
        x_BwD = x_BwD + self.dropout(self.output(read_BHwd.transpose(1, 2).flatten(2)))
        out: Tensor = x_BwD + self.dropout(self.ffn_s(self.norm_ffn(x_BwD)))
        return out

    def forward_ns(
        self, x_SND: Tensor, sequences: list[_Sequence], rows: list[Tensor], slot_N: Tensor
    ) -> Tensor:
        """Return the NS-tokens after this layer, [S, N, D].

        Each reads its request's S-tokens, itself and the NS-tokens before it.

        Args:
            x_SND: NS-tokens before this layer.
            sequences: Keys and values of the S-tokens, by group.
            rows: The candidates of every group, from :func:`hemix.nn.slots.slots`.
            slot_N: int64, the slot of every candidate, from the same.
        """
        S, N, D = x_SND.shape
        qkv_NSx = self.query_key_value_ns(self.norm_attention(x_SND)).transpose(0, 1).reshape(N, -1)
        laid_out = to_slots(qkv_NSx, rows, slot_N)
        by_group = [
            torch.cat(
                [
                    self._attend_ns(q, keys_values, valid)
                    for q, keys_values, valid in _tiles(qkv, sequence, self.heads, S)
                ]
            )
            for sequence, qkv in zip(sequences, laid_out, strict=True)
        ]
        read_SND = from_slots(by_group, slot_N).view(N, S, D).transpose(0, 1)
        x_SND = x_SND + self.dropout(self.output(read_SND))
        out: Tensor = x_SND + self.dropout(
            self.second_ns(F.gelu(self.first_ns(self.norm_ffn(x_SND))))
        )
        return out

    def _attend_ns(self, qkv_BKSx: Tensor, keys_values_BL2D: Tensor, valid_BL: Tensor) -> Tensor:
        """[B, 1, K, S * D]: one softmax over the request's S-tokens and the candidate's own
        NS-tokens."""
        B, K, S, x = qkv_BKSx.shape
        D = x // 3
        q, k, v = (
            part.view(B, K, S, self.heads, -1).permute(0, 3, 1, 2, 4)
            for part in torch.split(qkv_BKSx, D, 3)
        )
        keys_BHLd, values_BHLd = (self._by_head(part) for part in keys_values_BL2D.chunk(2, 2))
        q = q * (D // self.heads) ** -0.5
        to_s_BHKSL = (q.flatten(2, 3) @ keys_BHLd.transpose(2, 3)).view(B, self.heads, K, S, -1)
        to_s_BHKSL = to_s_BHKSL.masked_fill(~valid_BL[:, None, None, None], -torch.inf)
        later_SS = torch.ones(S, S, dtype=torch.bool, device=q.device).triu(1)
        to_ns_BHKSS = (q @ k.transpose(3, 4)).masked_fill(later_SS, -torch.inf)
        weights = torch.cat([to_s_BHKSL, to_ns_BHKSS], 4).softmax(4)
        of_s, of_ns = torch.split(weights, [to_s_BHKSL.shape[4], S], 4)
        read_BHKSd = (of_s.flatten(2, 3) @ values_BHLd).view(B, self.heads, K, S, -1) + of_ns @ v
        out: Tensor = read_BHKSd.permute(0, 2, 3, 1, 4).reshape(B, 1, K, S * D)
        return out

    def _by_head(self, x_BwD: Tensor) -> Tensor:
        """[B, w, D] -> [B, H, w, d]"""
        return x_BwD.view(*x_BwD.shape[:2], self.heads, -1).transpose(1, 2)


@register_model("onetrans")
class OneTrans(Ranker):
    """Sequence modelling and feature interaction in one transformer."""

    Config = OneTransConfig
    config: OneTransConfig

    def __init__(self, spec: InputSpec, config: OneTransConfig) -> None:
        super().__init__(spec, config)
        width, tokens = config.token_width, config.ns_tokens
        self.tokenizer = Tokenizer(
            level_widths(spec, config.embedding_size),
            tokens=tokens,
            width=width,
            hidden=config.tokenizer_hidden,
            norm=config.norm,
            dropout=config.dropout,
        )
        self.events = EventEncoder(spec, config.embedding_size, width)
        self.part = nn.Parameter(torch.empty(2, width))
        self.queries = pyramid(config.layers, config.history_events, tokens)
        self.blocks = nn.ModuleList(
            OneTransBlock(config, top=layer == config.layers - 1) for layer in range(config.layers)
        )
        self.norm_out = nn.RMSNorm(width, eps=1e-6)
        pooled = width * (tokens if config.pooling == "flatten" else 1)
        self.heads = Heads(spec, pooled, config.tower_hidden, config.dropout)

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw the vectors of the two parts of a history like embeddings."""
        init.normal(self.part, init.embedding_std)

    def encode_user(self, inputs: Inputs) -> UserState:
        """Event vectors, the user's share of the tokeniser."""
        assert inputs.user_RW is not None, "encode_user needs the stage user"
        return UserState(
            projected_RU=self.tokenizer.project_user(inputs.user_RW), events_ED=self.events(inputs)
        )

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Pass every request's S-tokens through all layers; return their keys and values.

        Args:
            state: The user state.
            inputs: Inputs with the stage ``request``.
        """
        assert inputs.context_QW is not None, "encode_request needs the stage request"
        batch, device = inputs.batch, state.events_ED.device
        ranges = HistoryRanges.of(batch, "both").one_user_per_request()
        groups = group_requests(ranges, batch.candidates_per_request, device)
        sequences: list[list[_Sequence]] = [[] for _ in self.blocks]
        for group in groups:
            requests = group.requests_BC[:, 0]
            x_BLD, valid_BL = self._tokens(
                state.events_ED,
                to_device(batch.cpu_batch.history_ranges[requests], device),
                group.rows_BL.shape[1],
            )
            for layer, (block, queries) in enumerate(zip(self.blocks, self.queries, strict=True)):
                assert isinstance(block, OneTransBlock)
                sequence = block.sequence(x_BLD, valid_BL)
                sequences[layer].append(sequence)
                if layer + 1 < len(self.blocks):
                    x_BLD, valid_BL = (
                        block.forward_s(x_BLD, sequence, queries),
                        valid_BL[:, -queries:],
                    )
        projected_QU = self.tokenizer.project_request(
            state.projected_RU, batch.user_index, inputs.context_QW
        )
        return RequestState(projected_QU=projected_QU, groups=groups, sequences=sequences)

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Pass the NS-tokens through all layers; return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        assert inputs.item_IW is not None and inputs.cross_NW is not None, (
            "score needs the stage candidate"
        )
        batch = inputs.batch
        ns_NSD = self.tokenizer(
            state.projected_QU,
            batch.request_index,
            inputs.item_IW,
            batch.item_index,
            inputs.cross_NW,
        )
        x_SND = ns_NSD.transpose(0, 1)
        if batch.candidates_count:
            layout = slots(
                state.groups,
                HostIndex.of_candidates(batch),
                state.projected_QU.shape[0],
                x_SND.device,
            )
            for block, sequences in zip(self.blocks, state.sequences, strict=True):
                assert isinstance(block, OneTransBlock)
                x_SND = block.forward_ns(x_SND, sequences, layout.rows, layout.slot_N)
        x_SND = self.norm_out(x_SND)
        pooled_NP = (
            x_SND.mean(0) if self.config.pooling == "mean" else x_SND.transpose(0, 1).flatten(1)
        )
        logits_NT: Tensor = self.heads(pooled_NP, batch.bias)
        return logits_NT

    def _tokens(self, events_ED: Tensor, visible_B3: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """(S-tokens [B, width, D], bool [B, width]): the null event and the visible events of every
        request, the newest last, padded
        in front."""
        begin_B1, middle_B1, end_B1 = visible_B3.unsqueeze(2).unbind(1)
        position_BL = end_B1 + torch.arange(
            -width, 0, device=end_B1.device
        )  # the null event's is begin - 1
        rows_BL = (position_BL + 1).masked_fill(position_BL < begin_B1, 0)
        realtime_BL = (position_BL >= middle_B1) & (position_BL >= begin_B1)
        part_BLD = torch.where(realtime_BL.unsqueeze(2), self.part[1], self.part[0])
        tokens_BLD = events_ED.index_select(0, rows_BL.flatten()).view(*rows_BL.shape, -1)
        return tokens_BLD + part_BLD, position_BL >= begin_B1 - 1


def _causal(valid_BL: Tensor, queries: int) -> Tensor:
    """bool [B, queries, L]: which of the L tokens each of the last ``queries`` reads: itself
    (padding reads nothing else), and the valid
    ones before it."""
    position = torch.arange(valid_BL.shape[1], device=valid_BL.device)
    query = position[-queries:].unsqueeze(1)
    return ((position < query) & valid_BL.unsqueeze(1)) | (position == query)


def _tiles(
    qkv_B1Kx: Tensor, sequence: _Sequence, heads: int, tokens: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A group's requests in pieces: (projected NS-tokens [b, K, S, 3 D], keys and values,
    valid)."""
    B, _, K, _ = qkv_B1Kx.shape
    each = heads * K * tokens * (sequence.valid_BL.shape[1] + tokens)
    step = max(1, _SCORES_AT_ONCE // max(each, 1))
    whole = (qkv_B1Kx.view(B, K, tokens, -1), sequence.keys_values_BL2D, sequence.valid_BL)
    return zip(*(torch.split(part, step) for part in whole), strict=True)
