"""Where the events and candidates of a batch lie, for the modules that read histories.

A batch's histories are ragged (:class:`RaggedLayout`). The global part is read from cached keys and
values, or from event vectors. The real-time part is read from the few events that a request sees of
it. An exported graph has padded histories (`hemix.nn.padded`). A model reads either through the
same calls.

Letters: Q requests, E events, D token width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.devices import to_device
from hemix.data.jagged import offsets_of, range_positions
from hemix.data.spec import TIMELESS_MS
from hemix.nn.grouping import group_requests
from hemix.nn.history_ranges import HistoryRanges, rows_in_ranges
from hemix.nn.history_state import CandidateIndex, HistoryState
from hemix.nn.interests import HistoryInterest
from hemix.nn.slots import HistoryLayout, HostIndex

__all__ = [
    "Layout",
    "RaggedLayout",
    "event_times",
    "history_means",
]


def event_times(batch: RequestBatch) -> Tensor:
    """int64 [1 + E], ms: the times of the null event, which has none, and of all events."""
    return torch.cat([batch.event_time_ms.new_full((1,), TIMELESS_MS), batch.event_time_ms])


class Layout(Protocol):
    """Where events and candidates lie. Row 0 of events is the null event, row e + 1 event e."""

    @property
    def one_candidate_each(self) -> bool:
        """Whether every request is known to have one candidate."""
        ...

    @property
    def candidates(self) -> CandidateIndex:
        """The request of every candidate."""
        ...

    def global_state(
        self,
        interest: HistoryInterest,
        events_ED: Tensor,
        keys_values: Tensor | None,
        event_time_ms: Tensor,
    ) -> HistoryState:
        """Lay out the global part.

        Args:
            interest: What reads it.
            events_ED: [1 + E, D].
            keys_values: [1 + E, 2 D], where they are kept.
            event_time_ms: int64 [1 + E].
        """
        ...

    def realtime_state(
        self, interest: HistoryInterest, events_ED: Tensor, event_time_ms: Tensor, users: int
    ) -> HistoryState:
        """Lay out the real-time part.

        Args:
            interest: What reads it.
            events_ED: [1 + E, D].
            event_time_ms: int64 [1 + E].
            users: How many users there are.
        """
        ...

    def means(self, events_ED: Tensor) -> tuple[Tensor, Tensor]:
        """Return means [Q, D] of what each request sees of the global and the real-time part."""
        ...


@dataclass(frozen=True)
class RaggedLayout:
    """Of a batch as it is: users' events one after another, in groups of similar length."""

    batch: RequestBatch

    @property
    def one_candidate_each(self) -> bool:
        """Whether there are as many candidates as requests."""
        return self.batch.candidates_count == self.batch.requests_count

    @property
    def candidates(self) -> HostIndex:
        """The request of every candidate."""
        return HostIndex.of_candidates(self.batch)

    def global_state(
        self,
        interest: HistoryInterest,
        events_ED: Tensor,
        keys_values: Tensor | None,
        event_time_ms: Tensor,
    ) -> HistoryState:
        """Lay out the global part in groups of requests with similar lengths.

        Args:
            interest: The attention that reads it.
            events_ED: [1 + E, D].
            keys_values: [1 + E, 2 D], if they are cached.
            event_time_ms: int64 [1 + E].
        """
        batch, device = self.batch, events_ED.device
        ranges = HistoryRanges.of(batch, "global")
        groups = group_requests(ranges, batch.candidates_per_request, device)
        rows = [group.rows_BL for group in groups]
        layout = HistoryLayout.of(groups, rows, batch.requests_count, device)
        projected = keys_values is not None
        events = events_ED if keys_values is None else keys_values
        return interest.state(
            layout, events, event_time_ms, batch.cpu_batch.request_time_ms, projected=projected
        )

    def realtime_state(
        self, interest: HistoryInterest, events_ED: Tensor, event_time_ms: Tensor, users: int
    ) -> HistoryState:
        """Lay out the few events that requests see of the real-time part.

        Args:
            interest: The attention that reads it.
            events_ED: [1 + E, D].
            event_time_ms: int64 [1 + E].
            users: How many users there are.
        """
        batch, device = self.batch, events_ED.device
        ranges = HistoryRanges.of(batch, "realtime")
        recent, position = rows_in_ranges(ranges, users, event_time_ms.shape[0], device)
        groups = group_requests(ranges, batch.candidates_per_request, device)
        rows = [position[group.rows_BL] for group in groups]
        layout = HistoryLayout.of(groups, rows, batch.requests_count, device)
        events = events_ED.index_select(0, recent)
        return interest.state(layout, events, event_time_ms, batch.cpu_batch.request_time_ms)

    def means(self, events_ED: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Layout`."""
        return history_means(events_ED, self.batch.cpu_batch.history_ranges)


def history_means(events_ED: Tensor, history_ranges_Q3: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means [Q, D] of the events that each request sees.

    The boundaries of all ranges divide the events into segments. Every event is added once, into
    its segment; a request adds up the segments of its range.

    Args:
        events_ED: [1 + E, D]. Event e is in row e + 1; no mean counts the null event in row 0.
        history_ranges_Q3: int64, a batch's ranges, in the CPU's memory.

    Returns:
        Means of the global part and of the real-time part; zeros where a request sees no event.
    """
    boundaries = torch.unique(history_ranges_Q3)
    if boundaries.shape[0] == 0:
        nothing = events_ED.new_zeros(0, events_ED.shape[1])
        return nothing, nothing
    segment_sums = _SegmentSums.apply(events_ED, boundaries + 1)  # type: ignore[no-untyped-call]
    sums_sD = F.pad(segment_sums, (0, 0, 0, 1))
    begin, middle, end = history_ranges_Q3.unbind(1)
    first, between, last = torch.searchsorted(boundaries, history_ranges_Q3).unbind(1)
    ranges = ((begin, middle, first, between), (middle, end, between, last))
    global_QD, realtime_QD = (
        _range_sums(sums_sD, low, high)
        / to_device((stop - start).clamp(min=1), events_ED.device).unsqueeze(1)
        for start, stop, low, high in ranges
    )
    return global_QD, realtime_QD


def _range_sums(rows_sD: Tensor, first_Q: Tensor, last_Q: Tensor) -> Tensor:
    """[Q, D]: sum of rows first[q] : last[q]."""
    lengths = last_Q - first_Q
    rows = to_device(range_positions(first_Q, lengths), rows_sD.device)
    offsets = to_device(offsets_of(lengths), rows_sD.device)
    return F.embedding_bag(rows, rows_sD, offsets, mode="sum", include_last_offset=True)


class _SegmentSums(torch.autograd.Function):
    """Sums of rows boundaries[i] : boundaries[i + 1]. The backward pass is a gather: every row is
    in one segment at most."""

    @staticmethod
    def forward(ctx: Any, rows_ED: Tensor, boundaries: Tensor) -> Tensor:
        """Return the sums [segments, D].

        Args:
            ctx: Keeps the boundaries for the backward pass.
            rows_ED: Rows of the events.
            boundaries: int64 [segments + 1], ascending.
        """
        device = rows_ED.device
        on_device = to_device(boundaries, device)
        ctx.save_for_backward(on_device)
        ctx.rows = rows_ED.shape[0]
        every = torch.arange(int(boundaries[0]), int(boundaries[-1]), device=device)
        return F.embedding_bag(
            every, rows_ED, on_device - int(boundaries[0]), mode="sum", include_last_offset=True
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (boundaries,) = ctx.saved_tensors
        segment = torch.searchsorted(
            boundaries, torch.arange(ctx.rows, device=boundaries.device), right=True
        )
        padded = F.pad(gradients[0], (0, 0, 1, 1))
        return padded.index_select(0, segment), None
