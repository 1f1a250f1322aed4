"""How often a request's user has met what a candidate shares with its events: counts by shared
column, action and window of time.

An event matches a candidate in a column (item, category, chain, ...) where both hold the same known
id. That is exact, so nothing has to be learned from vectors but what a match is worth. The counts
are found by binary search in sorted keys, so no candidate is laid beside every event. Decision 14
has what they bring.

Letters: R users, Q requests, N candidates, E events, C shared columns, A actions, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.spec import FIRST, InputSpec

__all__ = ["ACTIONS_MAX", "WINDOWS_MS", "MatchEvents", "MatchIndex", "Matches", "SortedMatches"]

_MINUTE_MS = 60_000
WINDOWS_MS = (15 * _MINUTE_MS, 60 * _MINUTE_MS, 7 * 24 * 60 * _MINUTE_MS)
"""Windows that end with the request. Two more follow them: the real-time part, and everything that
the request sees."""
ACTIONS_MAX = 8
"""Actions that are counted apart, the most frequent ones; the last of them stands for all further
ones too."""


@dataclass(frozen=True, kw_only=True)
class MatchEvents:
    """What is kept of users' events. Row 0 is the null event, row e + 1 is event e."""

    by_event: ClassVar[tuple[str, ...]] = ("ids_EC", "action_E")

    ids_EC: Tensor
    """int32 [1 + E, C]"""
    action_E: Tensor
    """uint8 [1 + E]: which of the counted actions"""


class MatchIndex(Protocol):
    """The events of some requests, in which matches are counted."""

    def counts(self, ids_CN: Tensor, request_N: Tensor) -> Tensor:
        """Return [C, N, A, W]: the events of a request with an id, by action and window.

        Args:
            ids_CN: int64, an id by column.
            request_N: int64, the request.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SortedMatches:
    """Events as sorted keys, in which counts are found by binary search."""

    keys_CE: Tensor
    """int64 [C, E], ascending: id, then action, then position"""
    bounds_QX: Tensor
    """int64 [Q, W + 1]: the position of the first event in each window, then the one behind the
    last event of them all"""
    actions: int

    def counts(self, ids_CN: Tensor, request_N: Tensor) -> Tensor:
        """[C, N, A, W]: the windows all end where the last one does."""
        bounds_NX = self.bounds_QX.index_select(0, request_N)
        action_A1 = torch.arange(self.actions, device=ids_CN.device).unsqueeze(1)
        ids_CN11 = ids_CN[:, :, None, None]
        keys_CNAX = match_key(
            ids_CN11, action_A1, bounds_NX.unsqueeze(1), self.keys_CE.shape[1], self.actions
        )
        before_CNAX = torch.searchsorted(self.keys_CE, keys_CNAX.flatten(1)).view(keys_CNAX.shape)
        return before_CNAX[..., -1:] - before_CNAX[..., :-1]


def match_key(ids: Tensor, action: Tensor, position: Tensor, events: int, actions: int) -> Tensor:
    """Return int64 keys that ascend by id, then action, then position."""
    return (ids * actions + action) * (events + 1) + position


class Matches:
    """Numbers of requests and candidates: log(1 + count)."""

    def __init__(
        self, spec: InputSpec, *, use_global: bool = True, use_realtime: bool = True
    ) -> None:
        """``use_global``, ``use_realtime``: the parts of the history whose events count."""
        self.columns = list(spec.event_item_columns)
        self.actions = (
            min(max(spec.tables[spec.event.tables[0]] - FIRST, 1), ACTIONS_MAX)
            if spec.event.tables
            else 1
        )
        self.uses_global, self.uses_realtime = use_global, use_realtime

    @property
    def request_count(self) -> int:
        """A * W."""
        return self.actions * (len(WINDOWS_MS) + 2)

    @property
    def candidate_count(self) -> int:
        """C * A * W."""
        return len(self.columns) * self.request_count

    def of_users(self, batch: RequestBatch) -> MatchEvents:
        """The events' shared columns and actions."""
        ids_EC = batch.items.ids[:, self.columns].index_select(0, batch.event_item)
        action_E = (
            batch.event_ids[:, 0]
            if batch.event_ids.shape[1]
            else torch.zeros_like(batch.event_item)
        )
        action_E = (action_E - FIRST).clamp(min=0, max=self.actions - 1)
        return MatchEvents(
            ids_EC=F.pad(ids_EC, (0, 0, 1, 0)).int(),
            action_E=F.pad(action_E, (1, 0)).to(torch.uint8),
        )

    def of_requests(self, index: MatchIndex, totals_QAW: Tensor) -> tuple[MatchIndex, Tensor]:
        """Return what candidates are looked up in, and numbers [Q, A W] of all visible events.

        Args:
            index: The requests' events.
            totals_QAW: How many there are.
        """
        return index, totals_QAW.flatten(1).float().log1p()

    def of_candidates(self, index: MatchIndex, batch: RequestBatch) -> Tensor:
        """Return numbers [N, C A W] of the events that match.

        Args:
            index: The requests' events.
            batch: The candidates.
        """
        ids_CN = batch.items.ids[:, self.columns].index_select(0, batch.item_index).t().contiguous()
        counts_CNAW = index.counts(ids_CN, batch.request_index)
        known_CNAW = counts_CNAW.masked_fill(ids_CN[:, :, None, None] < FIRST, 0)
        return known_CNAW.float().log1p().transpose(0, 1).flatten(1)

    def sorted_index(
        self, state: MatchEvents, event_time_ms: Tensor, batch: RequestBatch
    ) -> tuple[MatchIndex, Tensor]:
        """Return the requests' events as sorted keys, and how many each sees, [Q, A, W].

        Args:
            state: The users' events.
            event_time_ms: int64 [1 + E].
            batch: The requests.
        """
        ids_CE, action_E = state.ids_EC[1:].t().long(), state.action_E[1:].long()
        events, device = action_E.shape[0], action_E.device
        every_CE = F.pad(ids_CE, (0, 0, 0, 1))  # the last column: an id that all events share
        position_E = torch.arange(events, device=device)
        keys_CE = match_key(every_CE, action_E, position_E, events, self.actions).sort(dim=1).values
        bounds_QX = self._bounds(event_time_ms, batch)
        of_all = SortedMatches(keys_CE=keys_CE[-1:], bounds_QX=bounds_QX, actions=self.actions)
        requests = bounds_QX.shape[0]
        totals_1QAW = of_all.counts(
            every_CE.new_zeros(1, requests), torch.arange(requests, device=device)
        )
        index = SortedMatches(keys_CE=keys_CE[:-1], bounds_QX=bounds_QX, actions=self.actions)
        return index, totals_1QAW[0]

    def _bounds(self, time_ms: Tensor, batch: RequestBatch) -> Tensor:
        """[Q, W + 1]. A history that the model does without is in no window. ``time_ms`` [1 +
        E]."""
        begin, middle, end = batch.history_ranges.unbind(1)
        first, last = (
            (begin if self.uses_global else middle),
            (end if self.uses_realtime else middle),
        )
        since_QW = batch.request_time_ms.unsqueeze(1) - torch.tensor(
            WINDOWS_MS, device=time_ms.device
        )
        recent_QW = _first_since(time_ms, since_QW, first.unsqueeze(1), last.unsqueeze(1))
        return torch.cat([recent_QW, torch.stack([middle, first, last], 1)], 1)


def _first_since(time_ms: Tensor, since_QW: Tensor, first_Q1: Tensor, last_Q1: Tensor) -> Tensor:
    """[Q, W]: the position of the first event of [first, last), whose times ascend, that is not
    before ``since``; else ``last``."""
    position_QW = first_Q1.expand_as(since_QW)
    for bit in reversed(range((time_ms.shape[0] - 1).bit_length())):
        further_QW = torch.minimum(
            position_QW + 2**bit, last_Q1
        )  # the event before it is in this row of the times
        position_QW = torch.where(time_ms.take(further_QW) < since_QW, further_QW, position_QW)
    return position_QW
