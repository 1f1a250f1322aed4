"""HyFormer: queries read the histories and mix with the features, layer after layer (Huang et al.
2026, arXiv 2601.12681v2, sections 3.3 to 3.6).

- Query generation (3.3): features are grouped by meaning to tokens F_1 .. F_M. From
  ``Global Info = [F_1 .. F_M ; mean of the sequence]``, N networks make the N queries of a
  sequence, ``Q = [FFN_1(Global Info) .. FFN_N(Global Info)]``.
- Sequence encoding (3.4.1, iii, the light one of the paper's three): every layer transforms the
  events with a SwiGLU, without attention, ``K_l = H_l W_K``, ``V_l = H_l W_V``. So keys and values
  of all layers depend on the user alone: a server keeps them.
- Query decoding (3.4.2): ``Q = CrossAttn(Q, K_l, V_l)``, multi-head, queries of a sequence on that
  sequence.
- Query boosting (3.5): ``Q = Q + PerTokenFFN(Mix([Q ; F_1 .. F_M]))``, where Mix is RankMixer's
  permutation over all T = N + M tokens (`hemix.nn.mixing`).
- Layers (3.6): the boosted tokens go on; queries are made anew in no layer.

The sequences are the global and the real-time part; each has its own queries, as the paper has it
for several sequences. What the paper leaves open, and what is done here:

  - Groups: a level's columns (user, context, item, crosses) are cut into ``level_tokens`` sections.
  - H_l = H_(l-1) + SwiGLU_l(norm(H_(l-1))), shared by both sequences, which are one history. The
    other two encodings, with attention between events, would have to run once per request.
  - Decoding has a residual; norms (RMS) are before each branch, and one before the towers.
  - The feature tokens go on boosted as the queries do; the paper writes them without an index.
  - An event's age enters as in HeMix and RankMixer (``time_encoding``), and a null event is in both
    sequences.
  - The towers read the mean of all tokens, as with the other models; ``pooling: flatten`` is the
    paper's "downstream MLPs" on all of them.

Letters: R users, Q requests, N candidates, E events, n queries a sequence, M feature tokens, S = 2n
+ M tokens, D token width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from hemix.config import Count
from hemix.data.spec import InputSpec
from hemix.models.base import Ranker, SizedConfig, check_divisor, check_rotary, named_sizes
from hemix.models.registry import register_model
from hemix.nn.events import EventEncoder
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.history_state import CandidateIndex, DynamicQueries, HistoryState
from hemix.nn.inputs import Inputs, level_widths
from hemix.nn.interests import HistoryInterest
from hemix.nn.layers import BlockLinear, GroupedLinear, make_norm
from hemix.nn.level_tokens import LevelTokens
from hemix.nn.mixer import FFNActivation, HeteroFFN
from hemix.nn.mixing import TokenMixing
from hemix.nn.states import PER_EVENT
from hemix.nn.time_encoding import TimeEncoding

__all__ = ["HyFormer", "HyFormerConfig", "HyFormerLayer", "RequestState", "UserState"]


class HyFormerConfig(SizedConfig):
    """Settings of HyFormer."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024), attention_heads=(2, 4, 6, 8), layers=(2, 3, 3, 7)
    )

    name: Literal["hyformer"] = "hyformer"
    queries: Count = 4
    """n, the queries of each of the two sequences."""
    level_tokens: Count = 2
    """Feature tokens of each of user, context, item and crosses, at most."""
    attention_heads: Count = 2
    time_encoding: TimeEncoding = "bias"
    """How an event's age enters query decoding."""
    ffn_activation: FFNActivation = "gelu"
    ffn_expansion: Count = 4
    pooling: Literal["mean", "flatten"] = "mean"

    @model_validator(mode="after")
    def _heads_divide(self) -> HyFormerConfig:
        check_divisor(self.token_width, attention_heads=self.attention_heads)
        check_rotary(self.time_encoding, self.token_width, self.attention_heads)
        return self


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone."""

    tokens_RMD: Tensor
    """The user's feature tokens"""
    projected_RU: Tensor
    """Their summand of the queries' first layer"""
    event_time_ms: Tensor = field(metadata=PER_EVENT)
    """int64 [1 + E]"""
    events_ED: Tensor = field(metadata=PER_EVENT)
    """[1 + E, D], of which the mean is taken"""
    encoded_Ex: Tensor = field(metadata=PER_EVENT)
    """[1 + E, layers * D]: H_l of every layer"""
    global_keys_values: Tensor | None = field(default=None, metadata=PER_EVENT)
    """[1 + E, layers * 2 D], in a kept state"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    tokens_QMD: Tensor
    """Feature tokens of user and context"""
    projected_QU: Tensor
    """The queries' first layer without the candidate"""
    realtime: list[HistoryState]
    """By layer"""
    global_: list[HistoryState]
    """By layer"""


class SequenceEncoder(nn.Module):
    """A layer's events, each for itself: H + SwiGLU(norm(H))."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm = make_norm("rms", width)
        self.ffn = HeteroFFN((1,), width=width, expansion=expansion, activation="swiglu")

    def forward(self, events_ED: Tensor) -> Tensor:
        """[1 + E, D] -> [1 + E, D], in the parameters' precision: rows are gathered afterwards."""
        with torch.autocast(events_ED.device.type, enabled=False):
            encoded: Tensor = self.ffn(self.norm(events_ED).unsqueeze(0)).squeeze(0)
            return events_ED + encoded


class HyFormerLayer(nn.Module):
    """Query decoding, then query boosting."""

    def __init__(self, config: HyFormerConfig, tokens: int) -> None:
        super().__init__()
        width = config.token_width
        self.queries = config.queries
        self.encoder = SequenceEncoder(width, config.ffn_expansion)
        self.global_, self.realtime = (
            HistoryInterest(
                width=width,
                heads=config.attention_heads,
                dynamic=config.queries,
                fixed=0,
                time_encoding=config.time_encoding,
                shared_projection=True,
            )
            for _ in range(2)
        )
        self.norm_decode = make_norm("rms", width)
        self.norm_boost = make_norm("rms", width)
        self.mixing = TokenMixing()
        self.ffn = HeteroFFN(
            (1,) * tokens,
            width=width,
            expansion=config.ffn_expansion,
            activation=config.ffn_activation,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_SND: Tensor, global_: HistoryState, realtime: HistoryState, index: CandidateIndex
    ) -> Tensor:
        """[S, N, D] -> [S, N, D]: queries of the global and of the real-time part, feature tokens.

        Args:
            x_SND: The tokens.
            global_: The global part.
            realtime: The real-time part.
            index: The request of every candidate.
        """
        n = self.queries
        queries_2nND = x_SND[: 2 * n]
        of_global, of_realtime = self.norm_decode(queries_2nND).transpose(0, 1).split(n, 1)
        read_N2nD = torch.cat(
            [
                self.global_.dynamic(global_, DynamicQueries(of_global), index),
                self.realtime.dynamic(realtime, DynamicQueries(of_realtime), index),
            ],
            1,
        )
        decoded_2nND = queries_2nND + self.dropout(read_N2nD.transpose(0, 1))
        return self.boost(torch.cat([decoded_2nND, x_SND[2 * n :]]))

    def boost(self, x_SND: Tensor) -> Tensor:
        """Query boosting: [S, N, D] -> [S, N, D].

        Args:
            x_SND: The decoded queries and the feature tokens.
        """
        boosted: Tensor = x_SND + self.dropout(self.ffn(self.mixing(self.norm_boost(x_SND))))
        return boosted


@register_model("hyformer")
class HyFormer(Ranker):
    """Query decoding and query boosting in turn."""

    Config = HyFormerConfig
    config: HyFormerConfig

    def __init__(self, spec: InputSpec, config: HyFormerConfig) -> None:
        super().__init__(spec, config)
        D, n = config.token_width, config.queries
        widths = level_widths(spec, config.embedding_size)
        self.features = LevelTokens(widths, per_level=config.level_tokens, width=D)
        self.tokens = 2 * n + self.features.count(*widths)
        self.events = EventEncoder(spec, config.embedding_size, D)
        parts = {name: count * D for name, count in self.features.counts.items()}
        self.queries_first = BlockLinear({**parts, "global": D, "realtime": D}, 2 * n * D)
        self.queries_second = GroupedLinear(2 * n, D, D)
        self.layers = nn.ModuleList(
            HyFormerLayer(config, self.tokens) for _ in range(config.layers)
        )
        self.norm_out = make_norm("rms", D)
        pooled = D * (self.tokens if config.pooling == "flatten" else 1)
        self.heads = Heads(spec, pooled, config.tower_hidden, config.dropout)

    def encode_user(self, inputs: Inputs) -> UserState:
        """Feature tokens of the user, event vectors of all layers."""
        tokens_RMD = self.features("user", inputs.user_RW)
        projected_RU = self.queries_first.bias.expand(tokens_RMD.shape[0], -1)
        events_ED = self.events(inputs)
        encoded = [events_ED]
        for layer in self._layers():
            encoded.append(layer.encoder(encoded[-1]))
        return UserState(
            tokens_RMD=tokens_RMD,
            projected_RU=self._plus(projected_RU, "user", tokens_RMD),
            event_time_ms=event_times(inputs.batch),
            events_ED=events_ED,
            encoded_Ex=torch.cat(encoded[1:], 1),
        )

    def keep_user(self, state: UserState) -> UserState:
        """Return the state with the keys and values of the global history, of all layers."""
        keys_values = [
            layer.global_.keys_values(events_ED, state.event_time_ms)
            for layer, events_ED in zip(
                self._layers(), self._by_layer(state.encoded_Ex), strict=True
            )
        ]
        return replace(state, global_keys_values=torch.cat(keys_values, 1))

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Return feature tokens, the queries' first layer, and histories laid out for every layer.

        Args:
            state: The user state.
            inputs: Inputs with the stage ``request``.
        """
        layout, time_ms, of_user = inputs.layout, state.event_time_ms, inputs.batch.user_index
        context_QMD = self.features("context", inputs.context_QW)
        projected_QU = self._plus(
            state.projected_RU.index_select(0, of_user), "context", context_QMD
        )
        for part, mean_QD in zip(
            ("global", "realtime"), layout.means(state.events_ED), strict=True
        ):
            projected_QU = self._plus(projected_QU, part, mean_QD)
        kept = (
            [None] * len(self.layers)
            if state.global_keys_values is None
            else self._by_layer(state.global_keys_values)
        )
        users, realtime, global_ = state.tokens_RMD.shape[0], [], []
        for layer, events_ED, keys_values in zip(
            self._layers(), self._by_layer(state.encoded_Ex), kept, strict=True
        ):
            realtime.append(layout.realtime_state(layer.realtime, events_ED, time_ms, users))
            global_.append(layout.global_state(layer.global_, events_ED, keys_values, time_ms))
        tokens_QMD = torch.cat([state.tokens_RMD.index_select(0, of_user), context_QMD], 1)
        return RequestState(
            tokens_QMD=tokens_QMD, projected_QU=projected_QU, realtime=realtime, global_=global_
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        assert inputs.item_IW is not None, "score needs the stage candidate"
        batch, index = inputs.batch, inputs.layout.candidates
        item_NMD = self.features("item", inputs.item_IW.index_select(0, batch.item_index))
        cross_NMD = self.features("cross", inputs.cross_NW)
        hidden_NU = state.projected_QU.index_select(0, batch.request_index)
        hidden_NU = self._plus(self._plus(hidden_NU, "item", item_NMD), "cross", cross_NMD)
        tokens_NMD = torch.cat(
            [state.tokens_QMD.index_select(0, batch.request_index), item_NMD, cross_NMD], 1
        )
        x_SND = torch.cat([self.queries(hidden_NU), tokens_NMD.transpose(0, 1)])
        for layer, global_, realtime in zip(
            self.layers, state.global_, state.realtime, strict=True
        ):
            x_SND = layer(x_SND, global_, realtime, index)
        x_SND = self.norm_out(x_SND)
        pooled_NP = (
            x_SND.mean(0) if self.config.pooling == "mean" else x_SND.transpose(0, 1).flatten(1)
        )
        logits_NT: Tensor = self.heads(pooled_NP, batch.bias)
        return logits_NT

    def queries(self, hidden_NU: Tensor) -> Tensor:
        """[N, 2n * D] -> [2n, N, D]: the queries from the first layer of their networks."""
        shape = hidden_NU.shape[0], 2 * self.config.queries, self.config.token_width
        inner_NnD = F.gelu(hidden_NU).view(shape)
        queries_nND: Tensor = self.queries_second(inner_NnD.transpose(0, 1))
        return queries_nND

    def _plus(self, total: Tensor, part: str, rows: Tensor) -> Tensor:
        """The first layer of the queries' networks with the summand of one part."""
        projected = self.queries_first.project_part(part, rows.flatten(1))
        return total if projected is None else total + projected

    def _layers(self) -> list[HyFormerLayer]:
        layers = list(self.layers)
        assert all(isinstance(layer, HyFormerLayer) for layer in layers)
        return layers  # type: ignore[return-value]

    def _by_layer(self, rows_Ex: Tensor) -> list[Tensor]:
        """Columns of a row per event, by layer."""
        return list(rows_Ex.chunk(len(self.layers), 1))
