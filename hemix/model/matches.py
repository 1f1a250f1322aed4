"""How often a request's user has met what a candidate shares with its events: counts by shared column, action and window of time.

An event matches a candidate in a column (item, category, chain, ...) where both hold the same known id. That is exact, so nothing has to
be learned from vectors but what a match is worth. The counts are found by binary search in sorted keys, so no candidate is laid beside
every event. Decision 14 has what they bring. Knows no weights.

Letters: R users, Q requests, N candidates, E events, C shared columns, A actions, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.config import ModelSettings
from hemix.data.batch import RequestBatch
from hemix.data.spec import FIRST, InputSpec

__all__ = ["ACTIONS_MAX", "WINDOWS_MS", "MatchEvents", "MatchRequests", "Matches"]

_MINUTE_MS = 60_000
WINDOWS_MS = (15 * _MINUTE_MS, 60 * _MINUTE_MS, 7 * 24 * 60 * _MINUTE_MS)
"""Windows that end with the request. Two more follow them: the real-time part, and everything that the request sees."""
ACTIONS_MAX = 8
"""Actions that are counted apart, the most frequent ones; the last of them stands for all further ones too."""


@dataclass(frozen=True, kw_only=True)
class MatchEvents:
    """What is kept of users' events. Row 0 is the null event, row e + 1 is event e."""

    by_event: ClassVar[tuple[str, ...]] = ("ids_EC", "action_E")

    ids_EC: Tensor
    """int32 [1 + E, C]"""
    action_E: Tensor
    """uint8 [1 + E]: which of the counted actions"""


@dataclass(frozen=True, kw_only=True)
class MatchRequests:
    """What a candidate's counts are found with."""

    keys_CE: Tensor
    """int64 [C, E], ascending: id, then action, then position"""
    bounds_QW2: Tensor
    """int64 [Q, W, 2]: the positions [first, last) of the events in each window"""


class Matches:
    """Numbers of requests and candidates: log(1 + count)."""

    def __init__(self, spec: InputSpec, settings: ModelSettings) -> None:
        self.columns = list(spec.event_item_columns)
        self.actions = min(max(spec.tables[spec.event.tables[0]] - FIRST, 1), ACTIONS_MAX) if spec.event.tables else 1
        self.uses_global, self.uses_realtime = settings.use_global, settings.use_realtime

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
        action_E = batch.event_ids[:, 0] if batch.event_ids.shape[1] else torch.zeros_like(batch.event_item)
        action_E = (action_E - FIRST).clamp(min=0, max=self.actions - 1)
        return MatchEvents(ids_EC=F.pad(ids_EC, (0, 0, 1, 0)).int(), action_E=F.pad(action_E, (1, 0)).to(torch.uint8))

    def of_requests(self, state: MatchEvents, event_time_ms: Tensor, batch: RequestBatch) -> tuple[MatchRequests, Tensor]:
        """(what candidates are looked up in, numbers [Q, A W] of all events that a request sees). ``event_time_ms`` [1 + E]."""
        ids_CE, action_E = state.ids_EC[1:].t().contiguous().long(), state.action_E[1:].long()
        events = action_E.shape[0]
        position_E = torch.arange(events, device=action_E.device)
        bounds_QW2 = self._bounds(event_time_ms[1:], batch)
        keys_CE = self._key(ids_CE, action_E, position_E, events).sort(dim=1).values
        every_E = self._key(0, action_E, position_E, events).sort().values
        counts_QAW = self._counts(every_E, self._wanted(0, bounds_QW2, events))
        return MatchRequests(keys_CE=keys_CE, bounds_QW2=bounds_QW2), counts_QAW.flatten(1).float().log1p()

    def of_candidates(self, state: MatchRequests, batch: RequestBatch) -> Tensor:
        """Numbers [N, C A W] of the events that match."""
        events = state.keys_CE.shape[1]
        bounds_NW2 = state.bounds_QW2.index_select(0, batch.request_index)
        found = [bounds_NW2.new_zeros(bounds_NW2.shape[0], 0, dtype=torch.float32)]
        for column, keys_E in zip(self.columns, state.keys_CE, strict=True):
            ids_N = batch.items.ids[:, column].index_select(0, batch.item_index)
            counts_NAW = self._counts(keys_E, self._wanted(ids_N[:, None, None, None], bounds_NW2, events))
            found.append(counts_NAW.masked_fill(ids_N[:, None, None] < FIRST, 0).flatten(1).float().log1p())
        return torch.cat(found, 1)

    def _key(self, ids: Tensor | int, action: Tensor, position: Tensor, events: int) -> Tensor:
        return (ids * self.actions + action) * (events + 1) + position

    def _wanted(self, ids: Tensor | int, bounds_nW2: Tensor, events: int) -> Tensor:
        """[n, A, W, 2]: the keys between which lie what is counted."""
        action_A = torch.arange(self.actions, device=bounds_nW2.device)
        return self._key(ids, action_A[:, None, None], bounds_nW2.unsqueeze(1), events)

    @staticmethod
    def _counts(keys_E: Tensor, wanted_nAW2: Tensor) -> Tensor:
        """[n, A, W]"""
        return torch.searchsorted(keys_E, wanted_nAW2).diff(dim=3).squeeze(3)

    def _bounds(self, time_E: Tensor, batch: RequestBatch) -> Tensor:
        """[Q, W, 2]. A history that the model does without is in no window."""
        begin, middle, end = batch.visible.unbind(1)
        first, last = (begin if self.uses_global else middle), (end if self.uses_realtime else middle)
        since_QW = batch.request_time_ms.unsqueeze(1) - torch.tensor(WINDOWS_MS, device=time_E.device)
        starts_QW = torch.cat([_first_since(time_E, since_QW, first, last), middle.unsqueeze(1), first.unsqueeze(1)], 1)
        return torch.stack([starts_QW, last.unsqueeze(1).expand_as(starts_QW)], 2)


def _first_since(time_E: Tensor, since_QW: Tensor, first_Q: Tensor, last_Q: Tensor) -> Tensor:
    """[Q, W]: the position of the first event of [first, last), whose times ascend, that is not before ``since``; else ``last``."""
    low, high = (bound.unsqueeze(1).expand_as(since_QW) for bound in (first_Q, last_Q))
    for _ in range(time_E.shape[0].bit_length()):
        middle = (low + high) // 2
        before = (middle < high) & (time_E[middle.clamp(max=time_E.shape[0] - 1)] < since_QW)
        low, high = torch.where(before, middle + 1, low), torch.where(before, high, middle)
    return low
