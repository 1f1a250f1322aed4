"""Groups of users with histories of similar length, so that a short history is never padded to the
longest.

A history part (global or real time) is a range of events per request. Users are put into groups by
the length of what any of their requests sees and by how many candidates they have; a group is
padded to its own longest. Users without a request are left out.

Row 0 of a batch's events is the null event, which every history carries; the event at position e is
row e + 1. What decides a shape is worked out in the host's memory, from tensors that lie there;
only what a model reads goes to its device, so that no step waits for one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import RequestBatch, to_device

__all__ = [
    "Group",
    "HistoryLayout",
    "HistoryRanges",
    "HostIndex",
    "Slots",
    "from_slots",
    "group_requests",
    "positions",
    "rows_in_ranges",
    "slots",
    "to_slots",
]

_LENGTH_CLASSES = [
    8,
    12,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
    192,
    256,
    384,
    512,
    768,
    1024,
    1536,
    2048,
    3072,
    4096,
    6144,
    8192,
    16384,
]
_GROUP_COST = 1500
"""What one more group costs, in padded events."""
_QUERY_COST = 0.05
"""What a candidate adds to the cost of an event that it looks at, in events."""
_MERGE_MAX = 24


@dataclass(frozen=True)
class HostIndex:
    """The request of every row, such as a candidate; always in the host's memory.

    It decides shapes, for which a step would wait for a device. So whoever lays rows out takes this
    and no tensor.
    """

    values: Tensor
    """int64 [N], ascending"""

    def __post_init__(self) -> None:
        _assert_host(self.values)

    @classmethod
    def of_candidates(cls, batch: RequestBatch) -> HostIndex:
        """Return the request of every candidate of a batch, wherever that lies."""
        return cls(batch.cpu_batch.request_index)

    @classmethod
    def of_requests(cls, requests: int) -> HostIndex:
        """Return every request itself."""
        return cls(torch.arange(requests))

    def __getitem__(self, rows: slice) -> HostIndex:
        """The index of some rows."""
        return HostIndex(self.values[rows])

    def lay_out(self, groups: list[Group], requests: int, device: torch.device) -> Slots:
        """See :func:`slots`."""
        return slots(groups, self, requests, device)


@dataclass(frozen=True, kw_only=True)
class HistoryRanges:
    """What each request sees of a part of its user's history; always in the host's memory."""

    user_index_Q: Tensor
    """int64 [Q]"""
    begin_Q: Tensor
    """int64 [Q]: position of the first event"""
    end_Q: Tensor
    """int64 [Q]: the position behind the last event"""

    def __post_init__(self) -> None:
        _assert_host(self.user_index_Q, self.begin_Q, self.end_Q)

    @classmethod
    def of(cls, batch: RequestBatch, part: Literal["global", "realtime", "both"]) -> HistoryRanges:
        """Return the ranges of a batch, wherever that lies.

        Args:
            batch: The requests.
            part: The part of the history, or both as one.
        """
        begin, middle, end = batch.cpu_batch.history_ranges.unbind(1)
        return cls(
            user_index_Q=batch.cpu_batch.user_index,
            begin_Q=middle if part == "realtime" else begin,
            end_Q=middle if part == "global" else end,
        )

    def newest(self, events: int) -> HistoryRanges:
        """Return the ranges of the newest so many events."""
        return replace(self, begin_Q=torch.maximum(self.begin_Q, self.end_Q - events))

    def apart(self) -> HistoryRanges:
        """Return the same as if every request had a user of its own."""
        return replace(self, user_index_Q=torch.arange(self.user_index_Q.shape[0]))

    @property
    def lengths(self) -> Tensor:
        """int64 [Q]: how many events each request sees."""
        return self.end_Q - self.begin_Q


def _assert_host(*tensors: Tensor) -> None:
    for tensor in tensors:
        assert tensor.device.type == "cpu", (
            f"expected a tensor of the host, got one on {tensor.device}"
        )


@dataclass(frozen=True, kw_only=True)
class Group:
    """B users with up to C requests each, whose events, the null event in front, are padded to
    L."""

    candidates: int
    """The most candidates of one user, counting each of their requests like the one with most."""
    requests_BC: Tensor
    """int64, in the host's memory: row of each request; the user's first where a user has fewer
    than C"""
    has_request_BC: Tensor
    """bool, in the host's memory"""
    rows_BL: Tensor
    """int64: row of each event; the null event's, 0, first, and for padding"""
    visible_BCL: Tensor
    """bool: whether the request sees the event; the null event always, padding never"""


def group_requests(
    ranges: HistoryRanges, candidates_Q: Tensor, device: torch.device
) -> list[Group]:
    """Group requests by the lengths of what they see. Every request is in exactly one group.

    Args:
        ranges: What each request sees.
        candidates_Q: int64 [Q], in the host's memory: how many candidates each has.
        device: The model's.
    """
    user_index_Q, begin_Q, end_Q = ranges.user_index_Q, ranges.begin_Q, ranges.end_Q
    if user_index_Q.shape[0] == 0:
        return []
    if user_index_Q.shape[0] == 1:
        only_BC = torch.zeros(1, 1, dtype=torch.int64)
        cuts = (begin_Q, end_Q, begin_Q.unsqueeze(1), end_Q.unsqueeze(1))
        return [
            _group(only_BC, only_BC == 0, int(end_Q - begin_Q), int(candidates_Q), cuts, device)
        ]
    by_user = torch.argsort(user_index_Q, stable=True)
    _, user_of, requests_U = torch.unique_consecutive(
        user_index_Q[by_user], return_inverse=True, return_counts=True
    )
    first_U, last_U = _span(user_of, begin_Q[by_user], end_Q[by_user], requests_U.shape[0])
    candidates_U = (
        torch.zeros_like(requests_U).scatter_reduce_(0, user_of, candidates_Q[by_user], "amax")
        * requests_U
    )
    first_request_U = requests_U.cumsum(0) - requests_U

    by_shape, groups_of_users = _cut_into_groups(last_U - first_U, candidates_U)
    groups = []
    shapes = _shapes(
        torch.split(by_shape, groups_of_users), requests_U, last_U - first_U, candidates_U
    )
    for users, width, length, candidates in shapes:
        step = torch.arange(width)
        has_request_BC = step < requests_U[users].unsqueeze(1)
        requests_BC = by_user[
            torch.where(
                has_request_BC,
                first_request_U[users].unsqueeze(1) + step,
                first_request_U[users, None],
            )
        ]
        cuts = (first_U[users], last_U[users], begin_Q[requests_BC], end_Q[requests_BC])
        groups.append(_group(requests_BC, has_request_BC, length, candidates, cuts, device))
    return groups


def _group(
    requests_BC: Tensor,
    has_request_BC: Tensor,
    length: int,
    candidates: int,
    cuts: tuple[Tensor, Tensor, Tensor, Tensor],
    device: torch.device,
) -> Group:
    """``cuts``, in the host's memory: [first, last) [B] of the users' events, at most ``length``,
    and [begin, end) [B, C] of those
    that their requests see."""
    first_B, last_B, begin_BC, end_BC = (to_device(cut, device) for cut in cuts)
    events_BL = first_B.unsqueeze(1) + torch.arange(length, device=device)
    seen_BCL = events_BL.unsqueeze(1) >= begin_BC.unsqueeze(2)
    seen_BCL &= events_BL.unsqueeze(1) < end_BC.unsqueeze(2)
    return Group(
        candidates=candidates,
        requests_BC=requests_BC,
        has_request_BC=has_request_BC,
        rows_BL=F.pad(torch.where(events_BL < last_B.unsqueeze(1), events_BL + 1, 0), (1, 0)),
        visible_BCL=F.pad(seen_BCL, (1, 0), value=True),
    )


def _span(row: Tensor, begin: Tensor, end: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Smallest [first, last) per row that holds all its non-empty ranges; [0, 0) where there is
    none."""
    some = end > begin
    far = torch.iinfo(torch.int64).max
    first = torch.full((rows,), far, device=row.device).scatter_reduce_(
        0, row, torch.where(some, begin, far), "amin"
    )
    last = torch.zeros_like(first).scatter_reduce_(0, row, torch.where(some, end, 0), "amax")
    return torch.where(last > 0, first, 0), last


def _shapes(groups: tuple[Tensor, ...], *sizes_U: Tensor) -> list[tuple[Any, ...]]:
    """Every group's users with the largest of each size."""
    largest = torch.stack(
        [torch.stack([size[users].max() for size in sizes_U]) for users in groups]
    ).tolist()
    return [(users, *sizes) for users, sizes in zip(groups, largest, strict=True)]


def _cut_into_groups(length_U: Tensor, candidates_U: Tensor) -> tuple[Tensor, list[int]]:
    """(users ordered so that similar ones are neighbours, how many of them each group takes)."""
    classes = torch.tensor(_LENGTH_CLASSES, device=length_U.device)
    candidates_class = (candidates_U.clamp(min=1).double().log2() / 2).ceil().long()
    key = candidates_class * (len(_LENGTH_CLASSES) + 1) + torch.bucketize(length_U, classes)
    key, order = torch.sort(key, stable=True)
    _, class_of, count = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    largest = torch.zeros((2, count.shape[0]), dtype=torch.int64, device=key.device)
    largest.scatter_reduce_(
        1, class_of.expand(2, -1), torch.stack([length_U[order], candidates_U[order]]), "amax"
    )
    return order, _cheapest_cuts(count.tolist(), *largest.tolist())


def _cheapest_cuts(count: list[int], length: list[int], candidates: list[int]) -> list[int]:
    """Merge neighbouring classes into groups of least total cost (dynamic programming); users per
    group."""
    cost: list[float] = [0.0]
    start: list[int] = []
    for stop in range(1, len(count) + 1):
        best, best_from, users, longest, most = float("inf"), stop - 1, 0, 0, 0
        for first in range(stop - 1, max(-1, stop - 1 - _MERGE_MAX), -1):
            users += count[first]
            longest, most = max(longest, length[first]), max(most, candidates[first])
            this = cost[first] + _GROUP_COST + users * (longest + 1) * (1 + _QUERY_COST * most)
            if this < best:
                best, best_from = this, first
        cost.append(best)
        start.append(best_from)
    sizes, stop = list[int](), len(count)
    while stop:
        sizes.append(sum(count[start[stop - 1] : stop]))
        stop = start[stop - 1]
    return sizes[::-1]


def rows_in_ranges(
    ranges: HistoryRanges, users: int, rows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the rows of the events that requests see, and where each lies among them.

    Args:
        ranges: What each request sees.
        users: How many users there are.
        rows: How many rows of events there are, the null event's included.
        device: The model's.

    Returns:
        Rows int64 of the null event and of all events that a request sees or that lie between such
        events of its user; and the position int64 [rows] of every row among them, 0 for the others.
    """
    first, last = _span(ranges.user_index_Q, ranges.begin_Q, ranges.end_Q, users)
    lengths = last - first
    starts = lengths.cumsum(0) - lengths
    total = int(lengths.sum())
    shift = torch.repeat_interleave(
        to_device(first - starts, device), to_device(lengths, device), output_size=total
    )
    chosen = F.pad(torch.arange(total, device=device) + shift + 1, (1, 0))
    position = torch.zeros(rows, dtype=torch.int64, device=device)
    return chosen, position.index_copy_(0, chosen, torch.arange(total + 1, device=device))


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Rows of candidates laid out request by request, padded within each group; on the model's
    device."""

    rows: list[Tensor]
    """int64 [B, C, K] per group: the candidate in each slot; 0 where a request has fewer than K"""
    slot_N: Tensor
    """int64 [N]: the candidate's slot, counted over the flattened groups"""
    request_N: Tensor
    """int64 [N]: the candidate's request"""


@dataclass(frozen=True, kw_only=True)
class HistoryLayout:
    """One part of the requests' histories, ready for its events."""

    groups: list[Group]
    rows: list[Tensor]
    """int64 [B, L] by group: which row of the events stands where"""
    request_slots: Slots
    """One row for every request"""

    @classmethod
    def of(
        cls, groups: list[Group], rows: list[Tensor], requests: int, device: torch.device
    ) -> HistoryLayout:
        """Lay out groups of ragged histories.

        Args:
            groups: The groups.
            rows: By group, int64 [B, L], which row of the events stands where.
            requests: Q.
            device: The model's.
        """
        request_slots = slots(groups, HostIndex.of_requests(requests), requests, device)
        return cls(groups=groups, rows=rows, request_slots=request_slots)


def slots(groups: list[Group], index: HostIndex, requests: int, device: torch.device) -> Slots:
    """Lay out candidates in the groups of their requests.

    Args:
        groups: The groups.
        index: The request of every candidate.
        requests: Q.
        device: The model's.
    """
    request_index_N = index.values
    if requests == 1:
        every_N = torch.arange(request_index_N.shape[0], device=device)
        return Slots(
            rows=[every_N[None, None]], slot_N=every_N, request_N=torch.zeros_like(every_N)
        )
    count_Q = torch.bincount(request_index_N, minlength=requests)
    first_Q = count_Q.cumsum(0) - count_Q
    counts = [torch.where(g.has_request_BC, count_Q[g.requests_BC], 0) for g in groups]
    widths = torch.stack([c.max() for c in counts]).tolist() if counts else []
    rows, base = list[Tensor](), 0
    slot_Q = torch.zeros_like(count_Q)
    for group, count, width in zip(groups, counts, widths, strict=True):
        step = torch.arange(width)
        rows.append(
            torch.where(
                step < count.unsqueeze(2), first_Q[group.requests_BC].unsqueeze(2) + step, 0
            )
        )
        position = base + width * torch.arange(count.numel())
        slot_Q.index_copy_(
            0, group.requests_BC[group.has_request_BC], position[group.has_request_BC.flatten()]
        )
        base += rows[-1].numel()
    rank_N = torch.arange(request_index_N.shape[0]) - first_Q[request_index_N]
    return Slots(
        rows=[to_device(row, device) for row in rows],
        slot_N=to_device(slot_Q[request_index_N] + rank_N, device),
        request_N=to_device(request_index_N, device),
    )


def from_slots(values: list[Tensor], position: Tensor) -> Tensor:
    """Inverse of a layout: the groups' values [B, C, K, width], flattened and concatenated, in the
    order of ``position``."""
    return _joined([v.flatten(0, 2) for v in values]).index_select(0, position)


def _joined(pieces: list[Tensor]) -> Tensor:
    """Their concatenation, without a copy of a single one."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def positions(layout: list[Tensor], rows: int) -> Tensor:
    """int64 [rows]: where each row lies in a layout (flattened and concatenated), -1 if nowhere.
    Row 0 counts as padding."""
    flat = torch.cat([index.flatten() for index in layout])
    position = torch.full((rows,), -1, dtype=torch.int64, device=flat.device)
    return position.index_copy_(
        0, flat, torch.arange(flat.shape[0], device=flat.device)
    ).index_fill_(0, flat.new_zeros(1), -1)


def to_slots(
    rows_Nx: Tensor, layout: list[Tensor], slot_N: Tensor, null_first: bool = False
) -> list[Tensor]:
    """Rows [N, width] laid out: [*index.shape, width] for every ``index`` of the layout.

    A row lies in one slot at most, ``slot_N`` (-1: in none). Only row 0 may lie in others: as
    padding, whose gradient is zero; and, with ``null_first``, at the start of every list.
    """
    if not torch.is_grad_enabled():
        return [_gathered(rows_Nx, index) for index in layout]
    return list(_ToSlots.apply(rows_Nx, slot_N, null_first, *layout))  # type: ignore[no-untyped-call]


def _gathered(rows_Nx: Tensor, index: Tensor) -> Tensor:
    return rows_Nx.index_select(0, index.flatten()).view(*index.shape, rows_Nx.shape[1])


class _ToSlots(torch.autograd.Function):
    """A gather whose backward is a gather too: each row's gradient is fetched from its one slot.
    PyTorch's own backward would
    fill and add a tensor of all rows for every group."""

    @staticmethod
    def forward(
        ctx: Any, rows_Nx: Tensor, slot_N: Tensor, null_first: bool, *layout: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(slot_N)
        ctx.null_first = null_first
        return tuple(_gathered(rows_Nx, index) for index in layout)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slot_N,) = ctx.saved_tensors
        out = _joined([g.flatten(0, -2) for g in gradients]).index_select(0, slot_N.clamp(min=0))
        out.masked_fill_((slot_N < 0).unsqueeze(1), 0)
        if ctx.null_first:
            out[0] = torch.stack([g[:, 0].sum(0) for g in gradients]).sum(0)
        return out, None, None, *[None] * len(gradients)
