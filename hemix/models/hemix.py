"""HeMix (arXiv 2602.09387): the whole forward.

In the order in which data passes them, a file each:

- hemix.models.hemix_config: the settings.
- hemix.nn.tokenizer: all features, mixed, then cut into NS (non-sequence) tokens.
- hemix.nn.interests: queries Q = [dynamic ; fixed] read the global and the real-time history.
- hemix.nn.mixer: X = [real-time ; global interests ; NS tokens] through HeteroMixer blocks.
- hemix.nn.heads: the mean of the tokens to a logit per task.

The forward is :meth:`hemix.models.base.Ranker.forward`: embed, encode_user, encode_request, score.

Letters: R users, Q requests, N candidates, E events, T tasks, S tokens, D token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from hemix.data.spec import InputSpec
from hemix.models.base import Ranker
from hemix.models.hemix_config import HeMixConfig
from hemix.models.registry import register_model
from hemix.nn.event_weights import HistoryRead, strongest_events
from hemix.nn.events import EventEncoder
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.history_state import DynamicQueries, HistoryState
from hemix.nn.inputs import Inputs, level_widths
from hemix.nn.interests import HistoryInterest
from hemix.nn.layers import make_norm
from hemix.nn.mixer import HeteroFFN, HeteroInteraction, MixerBlock
from hemix.nn.mixing import SelfAttention, TokenMixing
from hemix.nn.pooled import PooledState
from hemix.nn.products import FieldProducts
from hemix.nn.states import PER_EVENT
from hemix.nn.tokenizer import Tokenizer

__all__ = ["HeMix", "RequestState", "UserState", "make_block"]


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone.

    Row 0 of the events is the null event, row e + 1 is event e.
    """

    projected_RU: Tensor
    """The user's columns of the tokeniser's first layer"""
    event_time_ms: Tensor = field(metadata=PER_EVENT)
    """int64 [1 + E]"""
    events_ED: Tensor = field(metadata=PER_EVENT)
    """[1 + E, D]: event vectors"""
    global_keys_values: Tensor | None = field(default=None, metadata=PER_EVENT)
    """[1 + E, 2 D], in a kept state; a whole batch projects only what it needs"""
    fields: PooledState | None
    """Pooled fields, from which products are made; None: the model has none"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    projected_QU: Tensor
    """All columns of the tokeniser's first layer but the candidate's"""
    fields_QFd: Tensor | None
    """The request's side of the candidates' products; None: the model has none"""
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
        crossed = dict[str, int]()
        if self.products is not None:
            crossed["request_products"] = self.products.request_count
            crossed["candidate_products"] = self.products.candidate_count
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
        histories = [name for name, use in used.items() if use and config.products == "histories"]
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
            qk_norm=config.qk_norm,
        )

    def compilable(self) -> Sequence[nn.Module]:
        """The mixer blocks."""
        return list(self.blocks)

    def encode_user(self, inputs: Inputs) -> UserState:
        """Event vectors and the user's partial product of the tokeniser."""
        return self.encode_history(self.events(inputs), inputs)

    def encode_history(self, events_ED: Tensor, inputs: Inputs) -> UserState:
        """Encode users whose event vectors exist already.

        Args:
            events_ED: [1 + E, D], the null event first.
            inputs: Inputs with the stage ``user``.
        """
        assert inputs.user_RW is not None, "encode_user needs the stage user"
        return UserState(
            projected_RU=self.tokenizer.project_user(inputs.user_RW),
            event_time_ms=event_times(inputs.batch),
            events_ED=events_ED,
            fields=self.products.of_users(inputs) if self.products else None,
        )

    def keep_user(self, state: UserState) -> UserState:
        """Return the state with the keys and values of the global history."""
        if self.global_ is None:
            return state
        keys_values = self.global_.keys_values(state.events_ED, state.event_time_ms)
        return replace(state, global_keys_values=keys_values)

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Return what the requests see of the histories, and their fixed interests.

        Args:
            state: The user state; ``inputs`` refers to its user rows and event positions.
            inputs: Inputs with the stage ``request``.
        """
        assert inputs.context_QW is not None, "encode_request needs the stage request"
        batch, layout, time_ms = inputs.batch, inputs.layout, state.event_time_ms
        requests, fixed_apart = inputs.context_QW.shape[0], not layout.one_candidate_each
        global_ = realtime = fields_QFd = None
        crossed = dict[str, Tensor]()
        if self.realtime is not None:
            users = state.projected_RU.shape[0]
            realtime = layout.realtime_state(self.realtime, state.events_ED, time_ms, users)
        if self.global_ is not None:
            global_ = layout.global_state(
                self.global_, state.events_ED, state.global_keys_values, time_ms
            )
        if self.products is not None and state.fields is not None:
            fields_QFd, crossed["request_products"] = self.products.of_requests(
                state.fields, inputs
            )
        return RequestState(
            projected_QU=self.tokenizer.project_request(
                state.projected_RU, batch.user_index, inputs.context_QW, crossed
            ),
            fields_QFd=fields_QFd,
            fixed_realtime_QfD=self.realtime.fixed(realtime, requests)
            if fixed_apart and self.realtime and realtime
            else None,
            fixed_global_QfD=self.global_.fixed(global_, requests)
            if fixed_apart and self.global_ and global_
            else None,
            realtime=realtime,
            global_=global_,
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        batch, ns_NnD = inputs.batch, self._ns_tokens(state, inputs)
        query_global, query_realtime = self._dynamic_queries(ns_NnD, inputs)
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
        is_mean = self.config.pooling == "mean"
        pooled_NP = x_SND.mean(0) if is_mean else x_SND.transpose(0, 1).flatten(1)
        logits_NT: Tensor = self.heads(pooled_NP, batch.bias)
        return logits_NT

    def _mixed(
        self,
        history: HistoryInterest | None,
        state: HistoryState | None,
        queries: DynamicQueries,
        fixed_QfD: Tensor | None,
        inputs: Inputs,
    ) -> list[Tensor]:
        """Dynamic, then fixed interests [N, queries, D] of one history, normalised."""
        if history is None or state is None:
            return []
        dynamic_NnD = history.dynamic(
            state, queries, inputs.layout.candidates, fixed_too=fixed_QfD is None
        )
        interests = [self.norm_interests(dynamic_NnD)]
        if fixed_QfD is not None:
            fixed_QfD = self.norm_interests(fixed_QfD)
            interests.append(fixed_QfD.index_select(0, inputs.batch.request_index))
        return interests

    def _dynamic_queries(
        self, ns_NnD: Tensor, inputs: Inputs
    ) -> tuple[DynamicQueries, DynamicQueries]:
        """The NS tokens that query the global and the real-time history, with the candidate as an
        event; [N, 0, D] without."""
        if not self.config.dynamic_queries:
            nothing = DynamicQueries(ns_NnD[:, :0])
            return nothing, nothing
        candidates_ND = self.events.candidates(inputs) if self.config.candidate_query else None
        first = self.config.ns_tokens_global
        return (
            DynamicQueries(ns_NnD[:, :first], candidates_ND),
            DynamicQueries(ns_NnD[:, first:], candidates_ND),
        )

    def _ns_tokens(self, state: RequestState, inputs: Inputs) -> Tensor:
        """[N, S_NS, D]"""
        assert inputs.item_IW is not None and inputs.cross_NW is not None, (
            "candidates need their stage"
        )
        batch, crossed = inputs.batch, dict[str, Tensor]()
        if self.products is not None and state.fields_QFd is not None:
            crossed["candidate_products"] = self.products.of_candidates(state.fields_QFd, inputs)
        tokens_NnD: Tensor = self.tokenizer(
            state.projected_QU,
            batch.request_index,
            inputs.item_IW,
            batch.item_index,
            inputs.cross_NW,
            crossed,
        )
        return tokens_NnD

    def event_weights(
        self, state: RequestState, inputs: Inputs, count: int, always_include: int | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Return the events of most weight to the dynamic queries of both histories.

        Args:
            state: The request state.
            inputs: The request's inputs.
            count: How many events to return.
            always_include: The position of an event that gets a column of its own, the last, with
                weight 0 where it is among the others.

        Returns:
            Positions and weights, as :meth:`Ranker.event_weights` gives them. None without dynamic
            queries.
        """
        if not self.config.dynamic_queries:
            return None
        queries = self._dynamic_queries(self._ns_tokens(state, inputs), inputs)
        reads = [
            HistoryRead(interest=interest, history=history, queries=own)
            for interest, history, own in zip(
                (self.global_, self.realtime), (state.global_, state.realtime), queries, strict=True
            )
            if interest is not None and history is not None
        ]
        return strongest_events(reads, inputs.batch, count, always_include)


def make_block(config: HeMixConfig) -> MixerBlock:
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
    return MixerBlock(
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
