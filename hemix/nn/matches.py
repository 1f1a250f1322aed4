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
    bounds_QX: Tensor
    """int64 [Q, W + 1]: the position of the first event in each window, then the one behind the last event of them all"""


class Matches:
    """Numbers of requests and candidates: log(1 + count)."""

    def __init__(self, spec: InputSpec, *, use_global: bool = True, use_realtime: bool = True) -> None:
        """``use_global``, ``use_realtime``: the parts of the history whose events count."""
        self.columns = list(spec.event_item_columns)
        self.actions = min(max(spec.tables[spec.event.tables[0]] - FIRST, 1), ACTIONS_MAX) if spec.event.tables else 1
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
        action_E = batch.event_ids[:, 0] if batch.event_ids.shape[1] else torch.zeros_like(batch.event_item)
        action_E = (action_E - FIRST).clamp(min=0, max=self.actions - 1)
        return MatchEvents(ids_EC=F.pad(ids_EC, (0, 0, 1, 0)).int(), action_E=F.pad(action_E, (1, 0)).to(torch.uint8))

    def of_requests(self, state: MatchEvents, event_time_ms: Tensor, batch: RequestBatch) -> tuple[MatchRequests, Tensor]:
        """(what candidates are looked up in, numbers [Q, A W] of all events that a request sees). ``event_time_ms`` [1 + E]."""
        ids_CE, action_E = state.ids_EC[1:].t().long(), state.action_E[1:].long()
        events = action_E.shape[0]
        every_CE = F.pad(ids_CE, (0, 0, 0, 1))  # the last column: an id that all events share
        keys_CE = self._key(every_CE, action_E, torch.arange(events, device=action_E.device), events).sort(dim=1).values
        bounds_QX = self._bounds(event_time_ms, batch)
        counts_1QAW = self._counts(keys_CE[-1:], every_CE.new_zeros(1, bounds_QX.shape[0]), bounds_QX)
        return MatchRequests(keys_CE=keys_CE[:-1], bounds_QX=bounds_QX), counts_1QAW[0].flatten(1).float().log1p()

    def of_candidates(self, state: MatchRequests, batch: RequestBatch) -> Tensor:
        """Numbers [N, C A W] of the events that match."""
        ids_CN = batch.items.ids[:, self.columns].index_select(0, batch.item_index).t().contiguous()
        counts_CNAW = self._counts(state.keys_CE, ids_CN, state.bounds_QX.index_select(0, batch.request_index))
        known_CNAW = counts_CNAW.masked_fill(ids_CN[:, :, None, None] < FIRST, 0)
        return known_CNAW.float().log1p().transpose(0, 1).flatten(1)

    def _key(self, ids: Tensor, action: Tensor, position: Tensor, events: int) -> Tensor:
        return (ids * self.actions + action) * (events + 1) + position

    def _counts(self, keys_CE: Tensor, ids_Cn: Tensor, bounds_nX: Tensor) -> Tensor:
        """[C, n, A, W]: the events of an id and an action in each window, which all end where the last one does."""
        action_A1 = torch.arange(self.actions, device=ids_Cn.device).unsqueeze(1)
        wanted_CnAX = self._key(ids_Cn[:, :, None, None], action_A1, bounds_nX.unsqueeze(1), keys_CE.shape[1])
        before_CnAX = torch.searchsorted(keys_CE, wanted_CnAX.flatten(1)).view(wanted_CnAX.shape)
        return before_CnAX[..., -1:] - before_CnAX[..., :-1]

    def _bounds(self, time_ms: Tensor, batch: RequestBatch) -> Tensor:
        """[Q, W + 1]. A history that the model does without is in no window. ``time_ms`` [1 + E]."""
        begin, middle, end = batch.visible.unbind(1)
        first, last = (begin if self.uses_global else middle), (end if self.uses_realtime else middle)
        since_QW = batch.request_time_ms.unsqueeze(1) - torch.tensor(WINDOWS_MS, device=time_ms.device)
        recent_QW = _first_since(time_ms, since_QW, first.unsqueeze(1), last.unsqueeze(1))
        return torch.cat([recent_QW, torch.stack([middle, first, last], 1)], 1)


def _first_since(time_ms: Tensor, since_QW: Tensor, first_Q1: Tensor, last_Q1: Tensor) -> Tensor:
    """[Q, W]: the position of the first event of [first, last), whose times ascend, that is not before ``since``; else ``last``."""
    found_QW = first_Q1.expand_as(since_QW)
    for bit in reversed(range((time_ms.shape[0] - 1).bit_length())):
        further_QW = torch.minimum(found_QW + 2**bit, last_Q1)  # the event before it is in this row of the times
        found_QW = torch.where(time_ms.take(further_QW) < since_QW, further_QW, found_QW)
    return found_QW
