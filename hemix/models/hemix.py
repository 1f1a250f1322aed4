"""HeMix (arXiv 2602.09387): its settings, and the whole forward.

In the order that data passes it, a file each:

1. `hemix.nn.tokenizer`: all features, mixed, then cut into NS tokens; 2. `hemix.nn.interests`:
queries Q = [dynamic ; fixed] read the global and the real-time history; 3. `hemix.nn.mixer`: X =
[real-time interests ; global interests ; NS tokens] through HeteroMixer blocks; 4.
`hemix.nn.heads`: the mean of the tokens to a logit a task.

The forward is :meth:`hemix.models.base.Ranker.forward`: embed, encode_user, encode_request, score.

Letters: R users, Q requests, N candidates, E events, T tasks, S tokens, D token width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from hemix.config import Count, CountOrZero
from hemix.data.spec import InputSpec
from hemix.models.base import Ranker, SizedConfig, check_divisor, check_rotary, named_sizes
from hemix.models.registry import register_model
from hemix.nn.events import EventEncoder
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.history_state import HistoryState
from hemix.nn.inputs import Inputs, level_widths
from hemix.nn.interests import HistoryInterest
from hemix.nn.layers import ActivationKind, NormKind, make_norm
from hemix.nn.matches import Matches, MatchEvents, MatchIndex
from hemix.nn.mixer import Block, FFNActivation, HeteroFFN, HeteroInteraction, NormPosition
from hemix.nn.mixing import SelfAttention, TokenMixing
from hemix.nn.pooled import PooledState
from hemix.nn.products import FieldProducts
from hemix.nn.slots import HostIndex
from hemix.nn.time_encoding import TimeEncoding
from hemix.nn.tokenizer import Tokenizer
from hemix.validation import InvalidKey

__all__ = ["HeMix", "HeMixConfig", "RequestState", "UserState", "make_block"]

_WEIGHTS_AT_ONCE = 2**19
"""Events by candidates whose weights are held at once when a ranking is explained."""


class HeMixConfig(SizedConfig):
    """Settings of HeMix. Every choice that the paper leaves open is one."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024),
        attention_heads=(2, 4, 6, 8),
        layers=(2, 3, 3, 7),
        mix_heads=(4, 4, 8, 16),
        mix_rank=(32, 64, 128, 256),
        tokenizer_hidden=(128, 512, 2048, 4096),
    )

    name: Literal["hemix"] = "hemix"
    ns_tokens_global: Count = 4
    """S_G: the NS tokens that query the global history."""
    ns_tokens_realtime: Count = 4
    """S_R: the NS tokens that query the real-time history."""
    fixed_queries_global: CountOrZero = 4
    fixed_queries_realtime: CountOrZero = 4
    dynamic_queries: bool = True
    """Off: histories are read by fixed queries alone."""
    query_projection: Literal["per_query", "shared"] = "per_query"
    use_global: bool = True
    """Off: the model has no global history."""
    use_realtime: bool = True
    """Off: the model has no real-time history."""
    attention_heads: Count = 2
    """H, the heads of the cross-attention."""
    tokenizer_hidden: Count = 128
    """Units of the tokeniser's inner layer."""
    products: Literal["none", "fields", "histories"] = "histories"
    """Dot products of pairs of fields as inputs of the tokeniser: none, of the features, or of
    features and pooled histories."""
    matches: bool = True
    """Counts of the events that share an id with the candidate, by column, action and window of
    time, as inputs of the tokeniser."""
    time_encoding: TimeEncoding = "bias"
    """How an event's age enters, without entering keys and values: see docs/decisions."""
    block: Literal["heteromixer", "rankmixer", "transformer"] = "heteromixer"
    """How tokens interact in a block."""
    mix_heads: Count = 4
    """M: mix-tokens of a HeteroMixer block."""
    mix_rank: Count = 32
    """r, the inner width of the low-rank interaction."""
    mix_activation: ActivationKind = "relu"
    ffn: Literal["per_token", "per_group", "shared"] = "per_token"
    ffn_activation: FFNActivation = "gelu"
    ffn_expansion: Count = 4
    norm_position: NormPosition = "post"
    norm: NormKind = "layer"
    pooling: Literal["mean", "flatten"] = "mean"

    @model_validator(mode="after")
    def _consistent(self) -> HeMixConfig:
        check_divisor(
            self.token_width, attention_heads=self.attention_heads, mix_heads=self.mix_heads
        )
        for history in ("global", "realtime"):
            if getattr(self, f"use_{history}") and not sum(self.queries(history)):
                raise InvalidKey(
                    f"use_{history}", f"needs dynamic_queries or fixed_queries_{history}"
                )
        if self.block == "rankmixer" and self.token_width < self.tokens:
            raise InvalidKey(
                "block",
                f"rankmixer needs a token_width of at least the {self.tokens} tokens, "
                f"got {self.token_width}",
            )
        check_rotary(self.time_encoding, self.token_width, self.attention_heads)
        return self

    @property
    def tokens(self) -> int:
        """S: dynamic and fixed interests of both histories, then the NS tokens."""
        return sum(self.token_groups)

    @property
    def token_groups(self) -> tuple[int, int, int]:
        """How many tokens are real-time interests, global interests, NS tokens; in this order."""
        return sum(self.queries("realtime")), sum(self.queries("global")), self.ns_tokens

    def queries(self, history: Literal["global", "realtime"]) -> tuple[int, int]:
        """Return how many dynamic and how many fixed queries read a history."""
        if not getattr(self, f"use_{history}"):
            return 0, 0
        dynamic: int = getattr(self, f"ns_tokens_{history}") if self.dynamic_queries else 0
        fixed: int = getattr(self, f"fixed_queries_{history}")
        return dynamic, fixed

    @property
    def ns_tokens(self) -> int:
        """S_G + S_R."""
        return self.ns_tokens_global + self.ns_tokens_realtime


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone. Row 0 of the events is the null event, row e +
    1 is event e."""

    by_event: ClassVar[tuple[str, ...]] = ("event_time_ms", "events_ED", "global_keys_values")

    projected_RH: Tensor
    """The user's columns of the tokeniser's first layer"""
    event_time_ms: Tensor
    """int64 [1 + E]"""
    events_ED: Tensor
    """[1 + E, D]: event vectors"""
    global_keys_values: Tensor | None
    """[1 + E, 2 D], where the state is kept for requests to come; within a whole batch they are
    made for those who need them"""
    fields: PooledState | None
    """What products are made of; None: the model has none"""
    matches: MatchEvents | None
    """What matches are counted in; None: the model counts none"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    projected_QH: Tensor
    """All columns of the tokeniser's first layer but the candidate's"""
    fields_QFd: Tensor | None
    """The request's side of the candidates' products; None: the model has none"""
    matches: MatchIndex | None
    """What the candidates' matches are looked up in; None: the model counts none"""
    fixed_realtime_QfD: Tensor | None
    fixed_global_QfD: Tensor | None
    """None: a request has one candidate, so the fixed queries go with its dynamic ones"""
    realtime: HistoryState | None
    global_: HistoryState | None
    """None: the model does without this history"""


@register_model("hemix")
class HeMix(Ranker):
    """Query-mixed interest extraction and heterogeneous interaction."""

    Config = HeMixConfig
    config: HeMixConfig

    def __init__(self, spec: InputSpec, config: HeMixConfig) -> None:
        super().__init__(spec, config)
        width, dropout = config.token_width, config.dropout
        self.products = self._field_products()
        self.matches = (
            Matches(spec, use_global=config.use_global, use_realtime=config.use_realtime)
            if config.matches
            else None
        )
        crossed = {
            f"{level}_{name}": getattr(part, f"{level}_count")
            for name, part in (("products", self.products), ("matches", self.matches))
            for level in ("request", "candidate")
            if part is not None
        }
        self.tokenizer = Tokenizer(
            level_widths(spec, config.embedding_size),
            tokens=config.ns_tokens,
            width=width,
            hidden=config.tokenizer_hidden,
            norm=config.norm,
            dropout=dropout,
            crossed=crossed,
        )
        self.events = EventEncoder(spec, config.embedding_size, width)
        self.realtime = self._interest("realtime") if config.use_realtime else None
        self.global_ = self._interest("global") if config.use_global else None
        self.norm_interests = make_norm(config.norm, width)
        self.blocks = nn.ModuleList(make_block(config) for _ in range(config.layers))
        pre = config.norm_position == "pre"
        self.norm_out = make_norm(config.norm, width) if pre else nn.Identity()
        pooled = width * (config.tokens if config.pooling == "flatten" else 1)
        self.heads = Heads(spec, pooled, config.tower_hidden, dropout)

    def _field_products(self) -> FieldProducts | None:
        config = self.config
        if config.products == "none":
            return None
        used = {"global": config.use_global, "realtime": config.use_realtime}
        histories = [part for part, use in used.items() if use and config.products == "histories"]
        return FieldProducts(self.spec, config.embedding_size, histories)

    def _interest(self, history: Literal["global", "realtime"]) -> HistoryInterest:
        config = self.config
        dynamic, fixed = config.queries(history)
        return HistoryInterest(
            width=config.token_width,
            heads=config.attention_heads,
            dynamic=dynamic,
            fixed=fixed,
            time_encoding=config.time_encoding,
            shared_projection=config.query_projection == "shared",
        )

    def compilable(self) -> Sequence[nn.Module]:
        """The mixer blocks."""
        return list(self.blocks)

    def encode_user(self, inputs: Inputs) -> UserState:
        """Event vectors, global keys and values, the user's share of the tokeniser."""
        return self.encode_history(self.events(inputs), inputs)

    def encode_history(self, events_ED: Tensor, inputs: Inputs) -> UserState:
        """:meth:`encode_user` from event vectors [1 + E, D] that exist already, the null event in
        front."""
        assert inputs.user_RW is not None, "encode_user needs the level user"
        time_ms, keep = event_times(inputs.batch), inputs.context_QW is None
        return UserState(
            projected_RH=self.tokenizer.project_user(inputs.user_RW),
            event_time_ms=time_ms,
            events_ED=events_ED,
            global_keys_values=self.global_.keys_values(events_ED, time_ms)
            if keep and self.global_ is not None
            else None,
            fields=self.products.of_users(inputs) if self.products else None,
            matches=self.matches.of_users(inputs.batch) if self.matches else None,
        )

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Cuts, ages and fixed-query interests. Users' rows and events' positions of ``inputs`` are
        those of ``state``."""
        assert inputs.context_QW is not None, "encode_request needs the level request"
        batch, layout, time_ms = inputs.batch, inputs.layout, state.event_time_ms
        requests, apart = inputs.context_QW.shape[0], not layout.one_candidate_each
        global_ = realtime = fields_QFd = matches = None
        crossed = dict[str, Tensor]()
        if self.realtime is not None:
            users = state.projected_RH.shape[0]
            realtime = layout.realtime_state(self.realtime, state.events_ED, time_ms, users)
        if self.global_ is not None:
            global_ = layout.global_state(
                self.global_, state.events_ED, state.global_keys_values, time_ms
            )
        if self.products is not None and state.fields is not None:
            fields_QFd, crossed["request_products"] = self.products.of_requests(
                state.fields, inputs
            )
        if self.matches is not None and state.matches is not None:
            index_and_totals = layout.match_index(self.matches, state.matches, time_ms)
            matches, crossed["request_matches"] = self.matches.of_requests(*index_and_totals)
        return RequestState(
            projected_QH=self.tokenizer.project_request(
                state.projected_RH, batch.user_index, inputs.context_QW, crossed
            ),
            fields_QFd=fields_QFd,
            matches=matches,
            fixed_realtime_QfD=self.realtime.fixed(realtime, requests)
            if apart and self.realtime and realtime
            else None,
            fixed_global_QfD=self.global_.fixed(global_, requests)
            if apart and self.global_ and global_
            else None,
            realtime=realtime,
            global_=global_,
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Logits [N, T]."""
        batch, ns_NnD = inputs.batch, self._ns_tokens(state, inputs)
        query_global, query_realtime = torch.split(
            ns_NnD, [self.config.ns_tokens_global, self.config.ns_tokens_realtime], 1
        )
        if not self.config.dynamic_queries:
            query_global, query_realtime = query_global[:, :0], query_realtime[:, :0]
        tokens = [
            *self._mixed(
                self.realtime, state.realtime, query_realtime, state.fixed_realtime_QfD, inputs
            ),
            *self._mixed(self.global_, state.global_, query_global, state.fixed_global_QfD, inputs),
            ns_NnD,
        ]
        x_SND = torch.cat([tokens_NnD.transpose(0, 1) for tokens_NnD in tokens])
        for block in self.blocks:
            x_SND = block(x_SND)
        x_SND = self.norm_out(x_SND)
        pooled_NP = (
            x_SND.mean(0) if self.config.pooling == "mean" else x_SND.transpose(0, 1).flatten(1)
        )
        logits_NT: Tensor = self.heads(pooled_NP, batch.bias)
        return logits_NT

    def _mixed(
        self,
        history: HistoryInterest | None,
        state: HistoryState | None,
        queries_NnD: Tensor,
        fixed_QfD: Tensor | None,
        inputs: Inputs,
    ) -> list[Tensor]:
        """Dynamic, then fixed interests [N, queries, D] of one history, normalised, in pieces; none
        of a history that is not used."""
        if history is None or state is None:
            return []
        dynamic_NnD = history.dynamic(
            state, queries_NnD, inputs.layout.candidates, fixed_too=fixed_QfD is None
        )
        pieces = [self.norm_interests(dynamic_NnD)]
        if fixed_QfD is not None:
            pieces.append(
                self.norm_interests(fixed_QfD).index_select(0, inputs.batch.request_index)
            )
        return pieces

    def _ns_tokens(self, state: RequestState, inputs: Inputs) -> Tensor:
        """[N, S_NS, D]"""
        assert inputs.item_IW is not None and inputs.cross_NW is not None, (
            "candidates need their level"
        )
        batch, crossed = inputs.batch, dict[str, Tensor]()
        if self.products is not None and state.fields_QFd is not None:
            crossed["candidate_products"] = self.products.of_candidates(state.fields_QFd, inputs)
        if self.matches is not None and state.matches is not None:
            crossed["candidate_matches"] = self.matches.of_candidates(state.matches, batch)
        tokens_NnD: Tensor = self.tokenizer(
            state.projected_QH,
            batch.request_index,
            inputs.item_IW,
            batch.item_index,
            inputs.cross_NW,
            crossed,
        )
        return tokens_NnD

    def attention(
        self, state: RequestState, inputs: Inputs, most: int, also: int | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """The events of most weight to the dynamic queries: mean over the queries of both histories
        and their heads."""
        if not self.config.dynamic_queries:
            return None
        cpu_batch, index = inputs.batch.cpu_batch, HostIndex.of_candidates(inputs.batch)
        events = int(cpu_batch.history_ranges.max()) if cpu_batch.history_ranges.numel() else 0
        ns_NnD = self._ns_tokens(state, inputs)
        queries = torch.split(
            ns_NnD, [self.config.ns_tokens_global, self.config.ns_tokens_realtime], 1
        )
        parts = [
            (interest, history, queries_NnD)
            for interest, history, queries_NnD in zip(
                (self.global_, self.realtime), (state.global_, state.realtime), queries, strict=True
            )
            if interest is not None and history is not None
        ]
        positions, weights = list[Tensor](), list[Tensor]()
        for rows in torch.split(
            torch.arange(ns_NnD.shape[0]), max(1, _WEIGHTS_AT_ONCE // (1 + events))
        ):
            at = slice(int(rows[0]), int(rows[-1]) + 1)
            total = ns_NnD.new_zeros(rows.shape[0], 1 + events)
            for interest, history, queries_NnD in parts:
                total += (
                    interest.weights(history, queries_NnD[at], index[at], events)
                    * interest.dynamic_count
                )
            mean = total[:, 1:] / max(1, sum(i.dynamic_count for i, *_ in parts))
            top = mean.topk(min(most, events))
            missing = (0, most - min(most, events))
            top_weights, top_positions = F.pad(top.values, missing), F.pad(top.indices, missing)
            if also is not None:
                is_among = (top.indices == also).any(1, keepdim=True)
                top_weights = torch.cat(
                    [top_weights, mean[:, also : also + 1].masked_fill(is_among, 0)], 1
                )
                top_positions = F.pad(top_positions, (0, 1), value=also)
            weights.append(top_weights)
            positions.append(top_positions.masked_fill(top_weights <= 0, -1))
        return torch.cat(positions), torch.cat(weights)


def make_block(config: HeMixConfig) -> Block:
    """Return a block: the interaction that ``block`` names, and the networks that ``ffn`` names."""
    groups = {
        "per_token": (1,) * config.tokens,
        "per_group": config.token_groups,
        "shared": (config.tokens,),
    }
    ffn = HeteroFFN(
        groups[config.ffn],
        width=config.token_width,
        expansion=config.ffn_expansion,
        activation=config.ffn_activation,
        dropout=config.dropout,
    )
    return Block(
        _interaction(config),
        ffn,
        width=config.token_width,
        norm=config.norm,
        norm_position=config.norm_position,
        dropout=config.dropout,
    )


def _interaction(config: HeMixConfig) -> nn.Module:
    if config.block == "rankmixer":
        return TokenMixing()
    if config.block == "transformer":
        return SelfAttention(config.token_width, config.attention_heads)
    return HeteroInteraction(
        tokens=config.tokens,
        width=config.token_width,
        heads=config.mix_heads,
        rank=config.mix_rank,
        activation=config.mix_activation,
    )
