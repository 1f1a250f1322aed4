"""What requests see of their users' histories: a range of events each.

A section of a history (global or real time) is such a range. Row 0 of a batch's events is the null
event, which every history carries; the event at position e is row e + 1.

What decides a shape is worked out in the CPU's memory, so that no step waits for a device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.devices import to_device
from hemix.data.jagged import range_positions

__all__ = ["HistoryRanges", "assert_on_cpu", "ranges_per_user", "rows_in_ranges"]


@dataclass(frozen=True, kw_only=True)
class HistoryRanges:
    """What each request sees of a section of its user's history; always in the CPU's memory."""

    user_index_Q: Tensor
    """int64 [Q]"""
    begin_Q: Tensor
    """int64 [Q]: position of the first event"""
    end_Q: Tensor
    """int64 [Q]: the position behind the last event"""

    def __post_init__(self) -> None:
        assert_on_cpu(self.user_index_Q, self.begin_Q, self.end_Q)

    @classmethod
    def of(
        cls, batch: RequestBatch, section: Literal["global", "realtime", "both"]
    ) -> HistoryRanges:
        """Return the ranges of a batch, wherever that lies.

        Args:
            batch: The requests.
            section: Of the history, or both sections as one.
        """
        begin, middle, end = batch.cpu_batch.history_ranges.unbind(1)
        return cls(
            user_index_Q=batch.cpu_batch.user_index,
            begin_Q=middle if section == "realtime" else begin,
            end_Q=middle if section == "global" else end,
        )

    def newest(self, events: int) -> HistoryRanges:
        """Return the ranges of the newest so many events."""
        return replace(self, begin_Q=torch.maximum(self.begin_Q, self.end_Q - events))

    def one_user_per_request(self) -> HistoryRanges:
        """Return the same as if every request had a user of its own."""
        return replace(self, user_index_Q=torch.arange(self.user_index_Q.shape[0]))

    @property
    def lengths(self) -> Tensor:
        """int64 [Q]: how many events each request sees."""
        return self.end_Q - self.begin_Q


def assert_on_cpu(*tensors: Tensor) -> None:
    """Refuse tensors on a device, for whose values the caller would wait."""
    for tensor in tensors:
        assert tensor.device.type == "cpu", f"expected a CPU tensor, got one on {tensor.device}"


def ranges_per_user(
    user_Q: Tensor, begin_Q: Tensor, end_Q: Tensor, users: int
) -> tuple[Tensor, Tensor]:
    """Return the smallest range per user that holds all non-empty ranges of the user's requests.

    Args:
        user_Q: int64 [Q], the user of every request.
        begin_Q: int64 [Q], position of the first event that a request sees.
        end_Q: int64 [Q], the position behind the last.
        users: R.

    Returns:
        First and last (exclusive), int64 [R] each; 0 and 0 of a user without a range.
    """
    some = end_Q > begin_Q
    far = torch.iinfo(torch.int64).max
    first = torch.full((users,), far, device=user_Q.device).scatter_reduce_(
        0, user_Q, torch.where(some, begin_Q, far), "amin"
    )
    last = torch.zeros_like(first).scatter_reduce_(0, user_Q, torch.where(some, end_Q, 0), "amax")
    return torch.where(last > 0, first, 0), last


def rows_in_ranges(
    ranges: HistoryRanges, users: int, rows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the rows of the events that requests see, and the position of each among them.

    Args:
        ranges: What each request sees.
        users: How many users there are.
        rows: How many rows of events there are, the null event's included.
        device: The model's.

    Returns:
        Rows int64: the null event's, and per user all from the first to the last event that a
        request sees. Positions int64 [rows] of every row among them, 0 for the others.
    """
    first, last = ranges_per_user(ranges.user_index_Q, ranges.begin_Q, ranges.end_Q, users)
    lengths = last - first
    total = int(lengths.sum())
    events = range_positions(to_device(first, device), to_device(lengths, device), total)
    selected = F.pad(events + 1, (1, 0))
    position = torch.zeros(rows, dtype=torch.int64, device=device)
    return selected, position.index_copy_(0, selected, torch.arange(total + 1, device=device))
