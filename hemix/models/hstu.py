"""HSTU as a ranker: a stack of gated attention without softmax over the user's sequence, in which
the candidate stands last (Zhai et al. 2024, arXiv 2402.17152, sections 2.2 and 3).

One layer, with X the tokens and SiLU as both activations:

    U, V, Q, K = split(SiLU(f1(X)))                                  pointwise projection, eq. 1
    A V        = SiLU(Q K' + rab) V / n                              spatial aggregation, eq. 2
    Y          = X + f2(Norm(A V) * U)                               pointwise transformation, eq. 3

Attention is causal and pointwise: without a softmax, the strength of a preference stays, not only
its share. ``rab`` is a learned bias by relative position and by bucket of the time between two
tokens, one for all heads and of each layer.

The sequence (section 2.2): tokens of user and context, the null event, the newest
``history_events`` events by time, the candidate. A candidate reads the sequence and itself, never
another candidate, so the sequence is encoded once per request and serves all (M-FALCON, 3.4).

What the paper leaves open, and what is done here:

  - An event is one token of item and action, not two in turn. That halves the sequence.
  - n is a constant, ``history_events``, so that a score does not depend on padding. Scores are
    divided by the square root of a head's width. X is normalised before f1.
  - Time between tokens has the buckets of `hemix.nn.time_encoding`. Tokens of user and context, and
    the null event, have no time; the former have no position either.
  - The paper drops numbers and crosses. Here every model reads equal features, so the candidate's
    token is that of HeMix's tokeniser, of all features, plus the candidate in the events' space.
  - Stochastic length, a sampling of long histories for speed, is left out.

A layer has 5 D^2 weights, so at equal parameters this model is wider or deeper than others.

Letters: E events, Q requests, N candidates, D token width, H heads, d = D / H, c tokens of user and
context. In a group: B requests, K candidates a request, L tokens of a sequence, c ones included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from hemix.config import Count
from hemix.data.spec import TIMELESS_MS, InputSpec
from hemix.models.base import Ranker, SizedConfig, check_divisor, named_sizes
from hemix.models.registry import register_model
from hemix.nn.events import EventEncoder
from hemix.nn.grouping import Group
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.init import WeightInit
from hemix.nn.inputs import Inputs, level_widths
from hemix.nn.level_tokens import LevelTokens
from hemix.nn.sequences import SequenceGroup, candidate_slots, event_sequences, read_sequences
from hemix.nn.slots import Slots
from hemix.nn.states import PER_EVENT
from hemix.nn.time_encoding import AGE_BUCKETS, TIMELESS_BUCKET, age_bucket
from hemix.nn.tokenizer import Tokenizer

__all__ = ["HSTU", "HSTUConfig", "HSTULayer", "Relations", "RequestState", "UserState"]

_NO_TIME = AGE_BUCKETS
"""Bucket of pairs with a token that has no time by nature: the null event, user and context."""


class HSTUConfig(SizedConfig):
    """Settings of HSTU."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(64, 128, 1024, 3072),
        attention_heads=(2, 4, 8, 24),
        layers=(3, 6, 16, 28),
        tokenizer_hidden=(512, 2048, 8192, 16384),
    )

    name: Literal["hstu"] = "hstu"
    token_width: Count = 64
    layers: Count = 3
    attention_heads: Count = 2
    tokenizer_hidden: Count = 512
    """Units of the inner layer that makes the candidate's token."""
    level_tokens: Count = 2
    """Tokens of the user, and of the context."""
    history_events: Count = 100
    """The newest events that are read."""

    @model_validator(mode="after")
    def _heads_divide(self) -> HSTUConfig:
        check_divisor(self.token_width, attention_heads=self.attention_heads)
        return self


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone."""

    projected_RU: Tensor
    """The user's columns of the tokeniser's first layer"""
    tokens_RcD: Tensor
    """The user's tokens"""
    events_ED: Tensor = field(metadata=PER_EVENT)
    """[1 + E, D]: the null event, then the events"""
    time_ms: Tensor = field(metadata=PER_EVENT)
    """int64 [1 + E]"""


@dataclass(frozen=True, kw_only=True)
class Relations:
    """How some tokens stand to the tokens that they may read; from it a layer makes ``rab``."""

    seen: Tensor
    """bool [B, q, L]"""
    time_bucket: Tensor
    """int64 [B, q, L]"""
    distance: Tensor
    """int64 [q, L]: positions between them; the last row of the table for user and context"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    projected_QU: Tensor
    groups: list[Group]
    relations: list[Relations]
    """By group: of a candidate to its sequence, q = 1"""
    keys_values: list[list[Tensor]]
    """By layer, then by group: [B, L, 2 D]"""


class HSTULayer(nn.Module):
    """One layer (eq. 1 to 3)."""

    def __init__(self, config: HSTUConfig) -> None:
        super().__init__()
        width = config.token_width
        self.width, self.heads, self.tokens = width, config.attention_heads, config.history_events
        self.norm_in = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Linear(width, 4 * width)
        """f1: to K, V, Q, U"""
        self.time_bias = nn.Parameter(torch.empty(AGE_BUCKETS + 1))
        self.position_bias = nn.Parameter(torch.empty(config.history_events + 3))
        self.norm_out = nn.LayerNorm(width, eps=1e-6)
        self.output = nn.Linear(width, width)
        """f2"""
        self.dropout = nn.Dropout(config.dropout)

    def init_own_weights(self, init: WeightInit) -> None:  # noqa: ARG002
        """Begin without a preference for a time or a position."""
        self.time_bias.zero_()
        self.position_bias.zero_()

    def keys_values(self, x_BLD: Tensor) -> Tensor:
        """[B, L, 2 D], of tokens that issue no queries."""
        both = 2 * self.width
        weight, bias = self.project.weight[:both], self.project.bias[:both]
        return F.silu(F.linear(self.norm_in(x_BLD), weight, bias))

    def forward(self, x_BLD: Tensor, relations: Relations) -> tuple[Tensor, Tensor]:
        """Pass the tokens of sequences through the layer.

        Args:
            x_BLD: The tokens.
            relations: Of every token to every other.

        Returns:
            Their keys and values [B, L, 2 D], and the tokens after the layer.
        """
        D = self.width
        projected = F.silu(self.project(self.norm_in(x_BLD)))
        keys_values, queries, gates = torch.split(projected, [2 * D, D, D], 2)
        read_BLD = self._read(queries, keys_values, self.bias(relations), relations.seen)
        return keys_values, self._transform(x_BLD, read_BLD, gates)

    def candidates(
        self, x_ND: Tensor, sequences: list[Tensor], relations: list[Relations], layout: Slots
    ) -> Tensor:
        """Pass candidates through the layer; each reads its sequence and itself, [N, D].

        Args:
            x_ND: The candidates' tokens.
            sequences: Keys and values [B, L, 2 D] by group.
            relations: Of a candidate to its sequence, by group.
            layout: Where the candidates lie.
        """
        D = self.width
        projected = F.silu(self.project(self.norm_in(x_ND)))
        keys_values, queries, gates = torch.split(projected, [2 * D, D, D], 1)
        groups = [
            (keys_values_BLx, self.bias(each), each.seen)
            for keys_values_BLx, each in zip(sequences, relations, strict=True)
        ]
        of_sequence = read_sequences(queries, layout, groups, self.heads, self._read)
        keys, values = (
            part.view(-1, self.heads, D // self.heads) for part in keys_values.chunk(2, 1)
        )
        own = (queries.view(keys.shape) * keys).sum(2, keepdim=True) * (D // self.heads) ** -0.5
        own = own + self.time_bias[0] + self.position_bias[0]  # no time and no position between
        of_itself = (F.silu(own) * values).flatten(1) / self.tokens
        return self._transform(x_ND, of_sequence + of_itself, gates)

    def bias(self, relations: Relations) -> Tensor:
        """rab [B, q, L], one for all heads."""
        by_time = self.time_bias.index_select(0, relations.time_bucket.flatten())
        by_position = self.position_bias.index_select(0, relations.distance.flatten())
        return by_time.view(relations.time_bucket.shape) + by_position.view(
            relations.distance.shape
        )

    def _read(self, queries: Tensor, keys_values: Tensor, bias: Tensor, seen: Tensor) -> Tensor:
        """A V [B, q, D] of queries [B, q, D] (eq. 2)."""
        B, q, D = queries.shape
        H, L = self.heads, keys_values.shape[1]
        q_BHqd = queries.view(B, q, H, D // H).transpose(1, 2)
        k_BHLd, v_BHLd = (
            part.view(B, L, H, D // H).transpose(1, 2) for part in keys_values.chunk(2, 2)
        )
        scores = q_BHqd @ k_BHLd.transpose(2, 3) * (D // H) ** -0.5 + bias.unsqueeze(1)
        weights = F.silu(scores).masked_fill(~seen.unsqueeze(1), 0) / self.tokens
        read: Tensor = (weights.to(v_BHLd.dtype) @ v_BHLd).transpose(1, 2).reshape(B, q, D)
        return read

    def _transform(self, x: Tensor, read: Tensor, gates: Tensor) -> Tensor:
        """Y (eq. 3), with the residual."""
        out: Tensor = x + self.dropout(self.output(self.norm_out(read) * gates))
        return out


@register_model("hstu")
class HSTU(Ranker):
    """Hierarchical sequential transduction units."""

    Config = HSTUConfig
    config: HSTUConfig

    def __init__(self, spec: InputSpec, config: HSTUConfig) -> None:
        super().__init__(spec, config)
        widths = level_widths(spec, config.embedding_size)
        self.tokenizer = Tokenizer(
            widths,
            tokens=1,
            width=config.token_width,
            hidden=config.tokenizer_hidden,
            dropout=config.dropout,
        )
        self.contextual = LevelTokens(
            {name: widths[name] for name in ("user", "context")},
            per_level=config.level_tokens,
            width=config.token_width,
        )
        self.events = EventEncoder(spec, config.embedding_size, config.token_width)
        self.layers = nn.ModuleList(HSTULayer(config) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(config.token_width)
        self.heads = Heads(spec, config.token_width, config.tower_hidden, config.dropout)

    def encode_user(self, inputs: Inputs) -> UserState:
        """Event vectors, the user's tokens and share of the tokeniser."""
        assert inputs.user_RW is not None, "encode_user needs the stage user"
        return UserState(
            projected_RU=self.tokenizer.project_user(inputs.user_RW),
            tokens_RcD=self.contextual("user", inputs.user_RW),
            events_ED=self.events(inputs),
            time_ms=event_times(inputs.batch),
        )

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Pass every request's sequence through all layers; return keys and values.

        Args:
            state: The user state.
            inputs: Inputs with the stage ``request``.
        """
        assert inputs.context_QW is not None, "encode_request needs the stage request"
        batch, device = inputs.batch, state.events_ED.device
        laid_out = event_sequences(batch, device, self.config.history_events)
        of_user = state.tokens_RcD.index_select(0, batch.user_index)
        tokens_QcD = torch.cat([of_user, self.contextual("context", inputs.context_QW)], 1)
        relations = list[Relations]()
        keys_values: list[list[Tensor]] = [[] for _ in self.layers]
        for sequence in laid_out.sequences:
            first_BcD = tokens_QcD.index_select(0, sequence.requests_B)
            x_BLD = torch.cat([first_BcD, sequence.gather(state.events_ED)], 1)
            time_BL = sequence.gather(state.time_ms)
            within = _within(sequence, time_BL, first_BcD.shape[1], self.config.history_events)
            now_B1 = batch.request_time_ms[sequence.requests_B].unsqueeze(1)
            relations.append(
                _to_sequence(
                    sequence, time_BL, now_B1, first_BcD.shape[1], self.config.history_events
                )
            )
            for at, layer in enumerate(self.layers):
                assert isinstance(layer, HSTULayer)
                if at + 1 == len(self.layers):
                    keys_values[at].append(layer.keys_values(x_BLD))
                else:
                    of_layer, x_BLD = layer(x_BLD, within)
                    keys_values[at].append(of_layer)
        projected_QU = self.tokenizer.project_request(
            state.projected_RU, batch.user_index, inputs.context_QW
        )
        return RequestState(
            projected_QU=projected_QU,
            groups=laid_out.groups,
            relations=relations,
            keys_values=keys_values,
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Pass the candidates through all layers; return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        assert inputs.item_IW is not None and inputs.cross_NW is not None, (
            "score needs the stage candidate"
        )
        batch = inputs.batch
        x_ND = self.tokenizer(
            state.projected_QU,
            batch.request_index,
            inputs.item_IW,
            batch.item_index,
            inputs.cross_NW,
        ).squeeze(1) + self.events.candidates(inputs)
        if batch.candidates_count:
            requests = state.projected_QU.shape[0]
            layout = candidate_slots(batch, state.groups, requests, x_ND.device)
            for layer, keys_values in zip(self.layers, state.keys_values, strict=True):
                assert isinstance(layer, HSTULayer)
                x_ND = layer.candidates(x_ND, keys_values, state.relations, layout)
        logits_NT: Tensor = self.heads(self.norm_out(x_ND), batch.bias)
        return logits_NT


def _within(sequence: SequenceGroup, time_BL: Tensor, first: int, events: int) -> Relations:
    """The relations of the tokens of sequences; ``first`` tokens of user and context come before
    them, and ``events`` is the most events of a sequence."""
    L = time_BL.shape[1]
    position = torch.arange(first + L, device=time_BL.device)
    causal = position.unsqueeze(1) >= position
    valid = F.pad(sequence.valid_BL, (first, 0), value=True)
    bucket = age_bucket(time_BL.unsqueeze(2), time_BL.unsqueeze(1))
    bucket = bucket.masked_fill(time_BL.unsqueeze(2) == TIMELESS_MS, TIMELESS_BUCKET)
    null = sequence.rows_BL == 0
    bucket = bucket.masked_fill(null.unsqueeze(1) | null.unsqueeze(2), _NO_TIME)
    apart = position.unsqueeze(1) - position
    without = (position < first).unsqueeze(1) | (position < first)
    return Relations(
        seen=causal & valid.unsqueeze(1),
        time_bucket=F.pad(bucket, (first, 0, first, 0), value=_NO_TIME),
        distance=apart.clamp(min=0).masked_fill(without, events + 2),
    )


def _to_sequence(
    sequence: SequenceGroup, time_BL: Tensor, now_B1: Tensor, first: int, events: int
) -> Relations:
    """The relations of a candidate, at the time of its request, to its sequence."""
    bucket_BL = age_bucket(now_B1, time_BL).masked_fill(sequence.rows_BL == 0, _NO_TIME)
    distance_L = torch.arange(time_BL.shape[1], 0, -1, device=time_BL.device)
    return Relations(
        seen=F.pad(sequence.valid_BL, (first, 0), value=True).unsqueeze(1),
        time_bucket=F.pad(bucket_BL, (first, 0), value=_NO_TIME).unsqueeze(1),
        distance=F.pad(distance_L, (first, 0), value=events + 2).unsqueeze(0),
    )
