"""HeMix, the whole model: tokens from features, interests from two histories, HeteroMixer blocks, towers.

The forward is `Ranker.forward`: embed, encode_user, encode_request, score. What the parts are is said in their own files.

Letters: R users, Q requests, N candidates, E events, T tasks, S tokens, D token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hemix.config import ModelSettings
from hemix.data.spec import TIMELESS_MS, InputSpec
from hemix.model.events import EventEncoder
from hemix.model.heads import Heads
from hemix.model.interest import HistoryInterest, HistoryState
from hemix.model.layers import make_norm
from hemix.model.mixer import HeteroMixerBlock
from hemix.model.ragged import group_requests, rows_in_ranges
from hemix.model.ranker import Inputs, Ranker
from hemix.model.tokenizer import Tokenizer

__all__ = ["HeMix", "RequestState", "UserState"]


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone. Row 0 of the events is the null event, row e + 1 is event e."""

    share_RH: Tensor
    """The user's columns of the tokeniser's first layer"""
    event_time_ms: Tensor
    """int64 [1 + E]"""
    events_ED: Tensor
    """[1 + E, D]: event vectors"""
    global_keys_values: Tensor | None
    """[1 + E, 2 D], where the state is kept for requests to come; within a whole batch they are made for those who need them"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    share_QH: Tensor
    """The user's and the context's columns of the tokeniser's first layer"""
    fixed_realtime_QfD: Tensor | None
    fixed_global_QfD: Tensor | None
    """None: a request has one candidate, so the fixed queries go with its dynamic ones"""
    realtime: HistoryState
    global_: HistoryState


class HeMix(Ranker):
    """Query-mixed interest extraction and heterogeneous interaction."""

    def __init__(self, spec: InputSpec, settings: ModelSettings) -> None:
        super().__init__(spec, settings)
        self.tokenizer = Tokenizer(spec, settings)
        self.events = EventEncoder(spec, settings)
        self.realtime = HistoryInterest(settings, settings.ns_tokens_realtime, settings.fixed_queries_realtime)
        self.global_ = HistoryInterest(settings, settings.ns_tokens_global, settings.fixed_queries_global)
        self.norm_interests = make_norm(settings.norm, settings.token_width)
        self.blocks = nn.ModuleList(HeteroMixerBlock(settings) for _ in range(settings.layers))
        pre = settings.norm_position == "pre"
        self.norm_out = make_norm(settings.norm, settings.token_width) if pre else nn.Identity()
        pooled = settings.token_width * (settings.tokens if settings.pooling == "flatten" else 1)
        self.heads = Heads(spec, pooled, settings.tower_hidden, settings.dropout)

    def compilable(self) -> Sequence[nn.Module]:
        """The mixer blocks."""
        return list(self.blocks)

    def encode_user(self, inputs: Inputs) -> UserState:
        """Event vectors, global keys and values, the user's share of the tokeniser."""
        return self.encode_history(self.events(inputs), inputs)

    def encode_history(self, events_ED: Tensor, inputs: Inputs) -> UserState:
        """:meth:`encode_user` from event vectors [1 + E, D] that exist already, the null event in front."""
        assert inputs.user_RW is not None, "encode_user needs the level user"
        time_ms = torch.cat([inputs.batch.event_time_ms.new_full((1,), TIMELESS_MS), inputs.batch.event_time_ms])
        return UserState(
            share_RH=self.tokenizer.user_share(inputs.user_RW),
            event_time_ms=time_ms,
            events_ED=events_ED,
            global_keys_values=self.global_.keys_values(events_ED, time_ms) if inputs.context_QW is None else None,
        )

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Cuts, ages and fixed-query interests. Users' rows and events' positions of ``inputs`` are those of ``state``."""
        assert inputs.context_QW is not None, "encode_request needs the level request"
        batch, host, device = inputs.batch, inputs.batch.host, state.event_time_ms.device
        begin, middle, end = host.visible.unbind(1)
        candidates_Q = torch.bincount(host.request_index, minlength=batch.requests_count)
        times = (state.event_time_ms, host.request_time_ms)

        groups = group_requests(host.user_index, begin, middle, candidates_Q, device)
        rows = [group.rows_BL for group in groups]
        if state.global_keys_values is None:
            global_ = self.global_.state(groups, rows, state.events_ED, *times)
        else:
            global_ = self.global_.state(groups, rows, state.global_keys_values, *times, projected=True)

        users, count = state.share_RH.shape[0], state.event_time_ms.shape[0]
        recent, place = rows_in_ranges(host.user_index, middle, end, users, count, device)
        recent_ED = state.events_ED.index_select(0, recent)
        groups = group_requests(host.user_index, middle, end, candidates_Q, device)
        realtime = self.realtime.state(groups, [place[group.rows_BL] for group in groups], recent_ED, *times)

        apart = batch.candidates_count != batch.requests_count
        return RequestState(
            share_QH=self.tokenizer.request_share(state.share_RH, batch.user_index, inputs.context_QW),
            fixed_realtime_QfD=self.realtime.fixed(realtime, batch.requests_count) if apart else None,
            fixed_global_QfD=self.global_.fixed(global_, batch.requests_count) if apart else None,
            realtime=realtime,
            global_=global_,
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Logits [N, T]."""
        assert inputs.item_IW is not None and inputs.cross_NW is not None, "score needs the level candidate"
        batch, of_request = inputs.batch, inputs.batch.request_index
        on_host = batch.host.request_index
        ns_NnD = self.tokenizer(state.share_QH, of_request, inputs.item_IW, batch.item_index, inputs.cross_NW)
        query_global, query_realtime = ns_NnD.split([self.settings.ns_tokens_global, self.settings.ns_tokens_realtime], 1)
        interests_NnD = torch.cat(
            [
                *_mixed(self.realtime, state.realtime, query_realtime, state.fixed_realtime_QfD, of_request, on_host),
                *_mixed(self.global_, state.global_, query_global, state.fixed_global_QfD, of_request, on_host),
            ],
            1,
        )
        tokens_NnD = (self.norm_interests(interests_NnD), ns_NnD.to(interests_NnD.dtype))
        x_SND = torch.cat([tokens.transpose(0, 1) for tokens in tokens_NnD])
        for block in self.blocks:
            x_SND = block(x_SND)
        x_SND = self.norm_out(x_SND)
        pooled_NP = x_SND.mean(0) if self.settings.pooling == "mean" else x_SND.transpose(0, 1).flatten(1)
        logits_NT: Tensor = self.heads(pooled_NP, batch.bias)
        return logits_NT


def _mixed(
    history: HistoryInterest,
    state: HistoryState,
    queries_NnD: Tensor,
    fixed_QfD: Tensor | None,
    request_index_N: Tensor,
    on_host_N: Tensor,
) -> list[Tensor]:
    """Dynamic, then fixed interests [N, queries, D] of one history, in pieces."""
    if fixed_QfD is None:
        return [history.dynamic(state, queries_NnD, on_host_N, fixed_too=True)]
    return [history.dynamic(state, queries_NnD, on_host_N), fixed_QfD.index_select(0, request_index_N)]
