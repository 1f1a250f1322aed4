"""Both histories of a batch's requests, laid out for queries: the global part from keys and values that are kept, or from event vectors;
the real-time part from the few events that a request sees of it.

Letters: Q requests, E events, D token width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.spec import TIMELESS_MS
from hemix.nn.interests import HistoryInterest, HistoryState
from hemix.nn.ragged import HistoryRanges, group_requests, rows_in_ranges

__all__ = ["candidates_per_request", "event_times", "global_state", "realtime_state"]


def event_times(batch: RequestBatch) -> Tensor:
    """int64 [1 + E], ms: the times of the null event, which has none, and of all events."""
    return torch.cat([batch.event_time_ms.new_full((1,), TIMELESS_MS), batch.event_time_ms])


def global_state(
    interest: HistoryInterest, events_ED: Tensor, keys_values: Tensor | None, event_time_ms: Tensor, batch: RequestBatch
) -> HistoryState:
    """The global part. ``events_ED`` [1 + E, D] with the null event in front, ``keys_values`` [1 + E, 2 D] where they are kept."""
    host = batch.host
    ranges = HistoryRanges.of(batch, "global")
    groups = group_requests(ranges, candidates_per_request(batch), events_ED.device)
    rows = [group.rows_BL for group in groups]
    if keys_values is None:
        return interest.state(groups, rows, events_ED, event_time_ms, host.request_time_ms)
    return interest.state(groups, rows, keys_values, event_time_ms, host.request_time_ms, projected=True)


def realtime_state(
    interest: HistoryInterest, events_ED: Tensor, users: int, event_time_ms: Tensor, batch: RequestBatch
) -> HistoryState:
    """The real-time part; ``users``: rows of the user state."""
    host, device, ranges = batch.host, events_ED.device, HistoryRanges.of(batch, "realtime")
    recent, place = rows_in_ranges(ranges, users, event_time_ms.shape[0], device)
    groups = group_requests(ranges, candidates_per_request(batch), device)
    rows = [place[group.rows_BL] for group in groups]
    return interest.state(groups, rows, events_ED.index_select(0, recent), event_time_ms, host.request_time_ms)


def candidates_per_request(batch: RequestBatch) -> Tensor:
    """Return int64 [Q], in the host's memory, of a batch wherever that lies."""
    return torch.bincount(batch.host.request_index, minlength=batch.requests_count)
