"""LONGER: a transformer over a long history, made short by merging neighbours and by few queries
(Chai et al. 2025, arXiv 2505.04421, section 3).

- Input: an event's vector with the time that has passed since, plus a learned vector of its
  position, through an MLP.
- Token merge: ``merge`` neighbouring events become one token. A small transformer over each group
  (InnerTrans) lets them meet before they are concatenated.
- Global tokens: learned ones (CLS), tokens of the user and the context, and the candidate's. They
  stand before the sequence, and see all of it.
- Hybrid attention: in the first layer the queries are the global tokens and the newest
  ``query_tokens`` merged ones, and keys and values are all (cross-causal attention). Later layers
  are causal self-attention of what queried the first.
- Serving (KV cache): the candidate's tokens only read. The rest is encoded once per request, and
  its keys and values serve all candidates.
- The candidate's tokens, which have read all, go with the other features to the deep network that
  DIN and SIM have here.

What the paper leaves open, and what is done here:

  - Which queries: the newest, which is the paper's best choice too.
  - Merged tokens are mapped from ``merge`` times D to D, so that the width does not grow with
    ``merge``. Groups are counted from the newest event back, so padding changes none.
  - Time passed has the buckets of `hemix.nn.time_encoding`. A vector says whether an event is of
    the real-time part. The null event opens every sequence.
  - The candidate's tokens: the candidate in the events' space, its item's columns, its crosses.
    Sequence tokens see the request's global tokens, not the candidate's.
  - Blocks are pre-norm with RMSNorm and GELU; InnerTrans has an expansion of 1.

Letters: E events, Q requests, N candidates, S tokens of a candidate, g global tokens of a request,
D token width, H heads, d = D / H. In a group: B requests, K candidates a request, L events, the
newest last, n merged tokens, w <= n of them that issue queries; k events in one.
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
from hemix.data.spec import InputSpec
from hemix.models.base import Ranker, SizedConfig, check_divisor, named_sizes
from hemix.models.registry import register_model
from hemix.nn.deep import DeepNetwork, hidden_width
from hemix.nn.events import EventEncoder
from hemix.nn.grouping import Group
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.init import WeightInit
from hemix.nn.inputs import Inputs, level_widths
from hemix.nn.level_tokens import LevelTokens
from hemix.nn.sequence_block import KeysValues, SequenceBlock
from hemix.nn.sequences import SequenceGroup, candidate_slots, event_sequences
from hemix.nn.states import PER_EVENT
from hemix.nn.time_encoding import AGE_BUCKETS, age_bucket

__all__ = [
    "LONGER",
    "EventTokens",
    "LONGERConfig",
    "RequestState",
    "UserState",
    "hybrid_mask",
]

_NO_AGE = AGE_BUCKETS
"""Bucket of the null event."""


class LONGERConfig(SizedConfig):
    """Settings of LONGER: hidden layers of the deep network are 16 ``token_width`` wide."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024), attention_heads=(2, 4, 6, 8), layers=(2, 3, 3, 7)
    )

    name: Literal["longer"] = "longer"
    attention_heads: Count = 2
    merge: Count = 4
    """k, the events of one token."""
    query_tokens: Count = 25
    """Merged tokens, the newest, that issue queries in the first layer and stay."""
    global_tokens: Count = 2
    """Learned global tokens."""
    level_tokens: Count = 2
    """Tokens of each of user, context, item and crosses, at most."""
    history_events: Count = 1000
    """The newest events that are read."""
    ffn_expansion: Count = 4

    @model_validator(mode="after")
    def _heads_divide(self) -> LONGERConfig:
        check_divisor(self.token_width, attention_heads=self.attention_heads)
        return self


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone."""

    projected_RU: Tensor
    """The user's summand of the deep network's first layer"""
    tokens_RgD: Tensor
    """The user's tokens"""
    events_ED: Tensor = field(metadata=PER_EVENT)
    """[1 + E, D]: the null event, then the events"""
    time_ms: Tensor = field(metadata=PER_EVENT)
    """int64 [1 + E]"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    projected_QU: Tensor
    groups: list[Group]
    layers: list[list[KeysValues]]
    """By layer, then by group"""


class EventTokens(nn.Module):
    """Events to merged tokens: input MLP, InnerTrans, token merge."""

    def __init__(self, config: LONGERConfig) -> None:
        super().__init__()
        width, self.merge = config.token_width, config.merge
        self.part = nn.Parameter(torch.empty(2, width))
        self.age = nn.Parameter(torch.empty(AGE_BUCKETS + 1, width))
        self.position = nn.Parameter(torch.empty(config.history_events + 1, width))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.inner = SequenceBlock(width, config.attention_heads, 1, config.dropout)
        self.join = nn.Linear(self.merge * width, width)

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw the vectors of parts, ages and positions like embeddings."""
        for vectors in (self.part, self.age, self.position):
            init.normal(vectors, init.embedding_std)

    def forward(
        self, sequence: SequenceGroup, events_BLD: Tensor, age_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return merged tokens [B, n, D], the newest last, and which are valid, bool [B, n].

        Args:
            sequence: Where the events lie.
            events_BLD: Their vectors.
            age_BL: int64, their age buckets.
        """
        L = events_BLD.shape[1]
        from_newest_L = torch.arange(L - 1, -1, -1, device=events_BLD.device)
        x_BLD = self.mlp(
            events_BLD
            + F.embedding(sequence.realtime_BL.long(), self.part)
            + F.embedding(age_BL, self.age)
            + F.embedding(from_newest_L, self.position)
        )
        return self.merged(x_BLD.to(events_BLD.dtype), sequence.valid_BL)

    def merged(self, x_BLD: Tensor, valid_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return merged tokens [B, n, D] and which are valid, bool [B, n].

        Args:
            x_BLD: Tokens of the events, the newest last.
            valid_BL: bool, False for padding in front.
        """
        B, L, D = x_BLD.shape
        k, n = self.merge, -(-L // self.merge)
        valid_Bnk = F.pad(valid_BL, (n * k - L, 0)).view(B, n, k)
        x_bkD = F.pad(x_BLD, (0, 0, n * k - L, 0)).reshape(B * n, k, D)
        valid_bk = valid_Bnk.reshape(B * n, k)
        itself = torch.eye(k, dtype=torch.bool, device=x_BLD.device)  # padding reads nothing else
        x_bkD = self.inner(x_bkD, self.inner.keys_values(x_bkD), valid_bk.unsqueeze(1) | itself)
        x_bkD = x_bkD.masked_fill(~valid_bk.unsqueeze(2), 0)
        tokens_BnD: Tensor = self.join(x_bkD.reshape(B, n, k * D)).to(x_BLD.dtype)
        return tokens_BnD, valid_Bnk.any(2)


def hybrid_mask(valid_Bn: Tensor, queries: int, global_tokens: int) -> Tensor:
    """Return which tokens each query may read: bool [B, g + w, g + n], w the queries.

    Global tokens read all. A merged token reads the global ones, itself (padding reads no other
    merged one) and the merged ones before it.

    Args:
        valid_Bn: bool, False for padding.
        queries: w, the newest merged tokens that issue queries.
        global_tokens: g.
    """
    position = torch.arange(valid_Bn.shape[1], device=valid_Bn.device)
    query = position[-queries:].unsqueeze(1)
    merged_Bwn = ((position < query) & valid_Bn.unsqueeze(1)) | (position == query)
    of_global_Bgn = valid_Bn.unsqueeze(1).expand(-1, global_tokens, -1)
    return F.pad(torch.cat([of_global_Bgn, merged_Bwn], 1), (global_tokens, 0), value=True)


@register_model("longer")
class LONGER(Ranker):
    """Long-sequence transformer with token merge, global tokens and hybrid attention."""

    Config = LONGERConfig
    config: LONGERConfig

    def __init__(self, spec: InputSpec, config: LONGERConfig) -> None:
        super().__init__(spec, config)
        width, widths = config.token_width, level_widths(spec, config.embedding_size)
        self.levels = LevelTokens(widths, per_level=config.level_tokens, width=width)
        self.cls = nn.Parameter(torch.empty(config.global_tokens, width))
        self.events = EventEncoder(spec, config.embedding_size, width)
        self.event_tokens = EventTokens(config)
        self.blocks = nn.ModuleList(
            SequenceBlock(width, config.attention_heads, config.ffn_expansion, config.dropout)
            for _ in range(config.layers)
        )
        self.norm_out = nn.RMSNorm(width, eps=1e-6)
        candidate_tokens = 1 + self.levels.count("item", "cross")
        self.deep = DeepNetwork(
            spec,
            embedding_size=config.embedding_size,
            interests={"history": candidate_tokens * width},
            hidden=hidden_width(width),
            layers=config.layers,
            tower_hidden=config.tower_hidden,
            dropout=config.dropout,
        )

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw the learned global tokens like embeddings."""
        init.normal(self.cls, init.embedding_std)

    def output_heads(self) -> Heads:
        """The deep network's."""
        return self.deep.heads

    def encode_user(self, inputs: Inputs) -> UserState:
        """Event vectors, the user's tokens and share of the deep network."""
        return UserState(
            projected_RU=self.deep.project_user(inputs),
            tokens_RgD=self.levels("user", inputs.user_RW),
            events_ED=self.events(inputs),
            time_ms=event_times(inputs.batch),
        )

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Pass every request's sequence through all layers; return keys and values.

        Args:
            state: The user state.
            inputs: Inputs with the stage ``request``.
        """
        batch, device = inputs.batch, state.events_ED.device
        laid_out = event_sequences(batch, device, self.config.history_events)
        global_QgD = torch.cat(
            [
                self.cls.expand(batch.requests_count, -1, -1),
                state.tokens_RgD.index_select(0, batch.user_index),
                self.levels("context", inputs.context_QW),
            ],
            1,
        )
        layers: list[list[KeysValues]] = [[] for _ in self.blocks]
        for sequence in laid_out.sequences:
            now_B1 = batch.request_time_ms[sequence.requests_B].unsqueeze(1)
            age_BL = age_bucket(now_B1, sequence.gather(state.time_ms))
            age_BL = age_BL.masked_fill(sequence.rows_BL == 0, _NO_AGE)
            merged_BnD, valid_Bn = self.event_tokens(
                sequence, sequence.gather(state.events_ED), age_BL
            )
            global_BgD = global_QgD.index_select(0, sequence.requests_B)
            for layer, group in zip(
                layers, self._sequence(global_BgD, merged_BnD, valid_Bn), strict=True
            ):
                layer.append(group)
        return RequestState(
            projected_QU=self.deep.project_request(state.projected_RU, inputs),
            groups=laid_out.groups,
            layers=layers,
        )

    def _sequence(
        self, global_BgD: Tensor, merged_BnD: Tensor, valid_Bn: Tensor
    ) -> list[KeysValues]:
        """What a group's tokens give to its candidates, by layer."""
        g, given = global_BgD.shape[1], list[KeysValues]()
        x_BLD = torch.cat([global_BgD, merged_BnD], 1)
        for layer, block in enumerate(self.blocks, 1):
            assert isinstance(block, SequenceBlock)
            keys_values = block.keys_values(x_BLD)
            valid_BL = F.pad(valid_Bn, (g, 0), value=True)
            given.append(KeysValues(keys_values_BL2D=keys_values, valid_BL=valid_BL))
            if layer < len(self.blocks):
                w = min(self.config.query_tokens, valid_Bn.shape[1])
                queries_BqD = torch.cat([x_BLD[:, :g], x_BLD[:, g:][:, -w:]], 1)
                x_BLD = block(queries_BqD, keys_values, hybrid_mask(valid_Bn, w, g))
                valid_Bn = valid_Bn[:, -w:]
        return given

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Pass the candidates' tokens through all layers; return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        assert inputs.item_IW is not None, "score needs the stage candidate"
        batch = inputs.batch
        x_NSD = torch.cat(
            [
                self.events.candidates(inputs).unsqueeze(1),
                self.levels("item", inputs.item_IW.index_select(0, batch.item_index)),
                self.levels("cross", inputs.cross_NW),
            ],
            1,
        )
        if batch.candidates_count:
            requests = state.projected_QU.shape[0]
            layout = candidate_slots(batch, state.groups, requests, x_NSD.device)
            for block, groups in zip(self.blocks, state.layers, strict=True):
                assert isinstance(block, SequenceBlock)
                x_NSD = block.candidates(x_NSD, groups, layout)
        interests = {"history": self.norm_out(x_NSD).flatten(1)}
        logits_NT: Tensor = self.deep(state.projected_QU, inputs, interests)
        return logits_NT
