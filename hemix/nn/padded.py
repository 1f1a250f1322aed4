"""Histories and candidates as padded rectangles, as a graph for another server holds them.

All users have equally many event slots, and all requests equally many candidates. A request's
ranges hide the events that it does not see. The only value of a tensor that is read is the length
of the longest real-time history, so the model can be traced.

Letters: R users, e events a user, L = 1 + e keys a user (the null event first), Q requests, K
candidates a request, N = Q * K, E = R * e, D token width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.nn.grouping import Group
from hemix.nn.history_state import HistoryState
from hemix.nn.interests import HistoryInterest
from hemix.nn.slots import HistoryLayout, Slots

__all__ = ["PaddedLayout", "flat_events", "padded_events"]

_OUTSIDE = 2**40
"""A row that does not exist. A request whose range ends behind its user's events looks it up, so
the runtime raises an index error instead of reading another user's events."""
_MANY = 2**31
"""Candidates of a group, as if there were very many. Keys and values are then always projected; a
choice by the real number would fix it in the graph."""


def padded_events(flat_Ex: Tensor, users: int, events: int) -> Tensor:
    """Return rows of events [1 + R * e, ...] as [R, L, ...], the null event first in each.

    Args:
        flat_Ex: The rows, the null event's first.
        users: R.
        events: e, so that L = 1 + e.
    """
    user_R1 = torch.arange(users, device=flat_Ex.device).unsqueeze(1)
    row_Re = 1 + events * user_R1 + torch.arange(events, device=flat_Ex.device)
    return flat_Ex[F.pad(row_Re, (1, 0))]


def flat_events(padded_RLx: Tensor) -> Tensor:
    """Return rows [R * L, ...] of padded events: those of one user after another's, row 0 a null
    event's, as a model reads them."""
    return padded_RLx.flatten(0, 1)


@dataclass(frozen=True)
class RectangleIndex:
    """The request of every candidate, of requests with equally many."""

    requests: int
    candidates: int

    def lay_out(
        self,
        groups: list[Group],  # noqa: ARG002
        requests: int,  # noqa: ARG002
        device: torch.device,
    ) -> Slots:
        """Lay candidates out in one group of all requests.

        Args:
            groups: Not used.
            requests: Not used.
            device: The device of the result.
        """
        row_N = torch.arange(self.requests * self.candidates, device=device)
        return Slots(
            rows=[row_N.view(self.requests, 1, self.candidates)],
            slot_N=row_N,
            request_N=row_N // self.candidates,
        )


@dataclass(frozen=True, kw_only=True)
class PaddedLayout:
    """Where events and candidates lie in rectangles (:class:`~hemix.nn.histories.Layout`).

    Events are those of :func:`flat_events`.
    """

    events: int
    """e"""
    candidates_each: int
    """K"""
    user_index_Q: Tensor
    """int64 [Q]"""
    history_ranges_Q3: Tensor
    """int64 [Q, 3], as places in the user's own events: begin, real time, end"""
    request_time_ms: Tensor
    """int64 [Q]"""

    @property
    def one_candidate_each(self) -> bool:
        """Whether every request is known to have one candidate: never, a graph takes any number."""
        return False

    @property
    def candidates(self) -> RectangleIndex:
        """The request of every candidate."""
        return RectangleIndex(self.user_index_Q.shape[0], self.candidates_each)

    def global_state(
        self,
        interest: HistoryInterest,
        events_ED: Tensor,
        keys_values: Tensor | None,
        event_time_ms: Tensor,
    ) -> HistoryState:
        """Lay out the global part; every row of the user's history is a key.

        Args:
            interest: The attention that reads it.
            events_ED: [1 + E, D].
            keys_values: [1 + E, 2 D], if they are cached.
            event_time_ms: int64 [1 + E].
        """
        begin, middle, _ = self.history_ranges_Q3.unsqueeze(2).unbind(1)
        event_e = torch.arange(self.events, device=begin.device)
        row_QL = F.pad(self._rows(), (1, 0))
        seen_QL = F.pad((event_e >= begin) & (event_e < middle), (1, 0), value=True)
        events = events_ED if keys_values is None else keys_values
        layout = self._layout(row_QL, seen_QL)
        return interest.state(
            layout, events, event_time_ms, self.request_time_ms, projected=keys_values is not None
        )

    def realtime_state(
        self,
        interest: HistoryInterest,
        events_ED: Tensor,
        event_time_ms: Tensor,
        users: int,  # noqa: ARG002
    ) -> HistoryState:
        """Lay out the real-time part; its longest sets the number of keys.

        Args:
            interest: The attention that reads it.
            events_ED: [1 + E, D].
            event_time_ms: int64 [1 + E].
            users: Not used.
        """
        _, middle, end = self.history_ranges_Q3.unsqueeze(2).unbind(1)
        longest: int = (end - middle).max().item()  # type: ignore[assignment]
        event_L = torch.arange(longest + 1, device=middle.device) - 1
        seen_QL = event_L < end - middle
        event_QL = middle + event_L
        row_QL = torch.where(event_QL < self.events, self._first_row() + event_QL, _OUTSIDE)
        row_QL = torch.where(seen_QL & (event_L >= 0), row_QL, 0)
        layout = self._layout(row_QL, seen_QL)
        return interest.state(layout, events_ED, event_time_ms, self.request_time_ms)

    def means(self, events_ED: Tensor) -> tuple[Tensor, Tensor]:
        """See Layout."""
        events_QeD = events_ED[self._rows()]
        begin, middle, end = self.history_ranges_Q3.unsqueeze(2).unbind(1)
        event_e = torch.arange(self.events, device=begin.device)
        of_global, of_realtime = (
            torch.bmm(
                ((event_e >= first) & (event_e < last)).to(events_QeD.dtype).unsqueeze(1),
                events_QeD,
            ).squeeze(1)
            / (last - first).clamp(min=1)
            for first, last in ((begin, middle), (middle, end))
        )
        return of_global, of_realtime

    def _rows(self) -> Tensor:
        """int64 [Q, e]: the rows of the events of every request's user."""
        return self._first_row() + torch.arange(self.events, device=self.user_index_Q.device)

    def _first_row(self) -> Tensor:
        """int64 [Q, 1]: the row of the first event of every request's user."""
        return 1 + (1 + self.events) * self.user_index_Q.unsqueeze(1)

    def _layout(self, row_QL: Tensor, seen_QL: Tensor) -> HistoryLayout:
        """One group, in which every request has a user of its own."""
        requests, device = row_QL.shape[0], row_QL.device
        request_Q = torch.arange(requests, device=device)
        group = Group(
            candidates=_MANY,
            requests_BC=request_Q.unsqueeze(1),
            has_request_BC=torch.ones(requests, 1, dtype=torch.bool, device=device),
            rows_BL=row_QL,
            visible_BCL=seen_QL.unsqueeze(1),
        )
        own = Slots(rows=[request_Q.view(requests, 1, 1)], slot_N=request_Q, request_N=request_Q)
        return HistoryLayout(groups=[group], rows=[row_QL], request_slots=own)
