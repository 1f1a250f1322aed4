"""Where candidates and events lie in the padded rectangles of groups, and gathers both ways.

Rows of a batch are ragged; attention needs rectangles. An example of two users, A and B:

    events     row 0 the null event   rows 1-5 A: a1 a2 a3 a4 a5   rows 6-8 B: b1 b2 b3
    request 0  of A, sees a1 to a5    its candidate:  0
    request 1  of B, sees b1 b2       its candidates: 1 2
    request 2  of B, sees b1 to b3    its candidates: 3 4 5

Users with histories of similar length form a :class:`Group`, padded to its own longest. Here each
user is a group, of B = 1 row:

    requests_BC    [[0]]                         [[1 2]]                      C = 1 and 2
    rows_BL        [[0 1 2 3 4 5]]               [[0 6 7 8]]                  L = 6 and 4
    visible_BCL    [[[1 1 1 1 1 1]]]             [[[1 1 1 0], [1 1 1 1]]]

:class:`Slots` puts a rectangle [B, C, K] of candidates beside each group. K is the most candidates
of one of its requests; a free slot repeats candidate 0:

    Slots.rows     [[[0]]]                       [[[1 2 0], [3 4 5]]]         K = 1 and 3
    slot number      0                              1 2 3    4 5 6
    Slots.slot_N   [0 1 2 4 5 6], the slot of every candidate

:func:`to_slots` gathers rows [N, x] into the rectangles, :func:`from_slots` brings results back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.devices import to_device
from hemix.data.jagged import offsets_of
from hemix.nn.grouping import Group
from hemix.nn.history_ranges import assert_on_cpu

__all__ = [
    "HistoryLayout",
    "HostIndex",
    "Slots",
    "from_slots",
    "positions",
    "slots",
    "to_slots",
]


@dataclass(frozen=True)
class HostIndex:
    """The request of every row, such as a candidate; always in the CPU's memory.

    It decides shapes, and a step would wait for shapes on a device. So what lays rows out takes
    this and no tensor.
    """

    values: Tensor
    """int64 [N], ascending"""

    def __post_init__(self) -> None:
        assert_on_cpu(self.values)

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
        """Lay candidates out in groups; see :func:`slots`.

        Args:
            groups: The groups of requests.
            requests: Q.
            device: The device of the result.
        """
        return slots(groups, self, requests, device)


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
    """One section of the requests' histories, ready for its events."""

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
    first_Q = offsets_of(count_Q)[:-1]
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
    """Return the values of slots in the order of candidates: the inverse of :func:`to_slots`.

    Args:
        values: By group, [B, C, K, width].
        position: int64 [N], the slot of every candidate (:attr:`Slots.slot_N`).
    """
    return _concatenated([v.flatten(0, 2) for v in values]).index_select(0, position)


def _concatenated(tensors: list[Tensor]) -> Tensor:
    """Their concatenation, without a copy of a single one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def positions(layout: list[Tensor], rows: int) -> Tensor:
    """Return where each row lies in a layout, flattened and concatenated; -1 if nowhere.

    Args:
        layout: By group, int64 of any shape: the row in every slot. Row 0 counts as padding.
        rows: How many rows there are.

    Returns:
        int64 [rows].
    """
    flat = torch.cat([index.flatten() for index in layout])
    position = torch.full((rows,), -1, dtype=torch.int64, device=flat.device)
    return position.index_copy_(
        0, flat, torch.arange(flat.shape[0], device=flat.device)
    ).index_fill_(0, flat.new_zeros(1), -1)


def to_slots(
    rows_Nx: Tensor, layout: list[Tensor], slot_N: Tensor, null_first: bool = False
) -> list[Tensor]:
    """Lay rows out: [*index.shape, width] for every ``index`` of the layout.

    Args:
        rows_Nx: [N, width].
        layout: By group, int64: the row in every slot.
        slot_N: int64 [N], the one slot of every row; -1: none. Only row 0 may lie in others, as
            padding, whose gradient is zero.
        null_first: Row 0 is also the null event at the start of every list, with a gradient.
    """
    if not torch.is_grad_enabled():
        return [_gathered(rows_Nx, index) for index in layout]
    by_group = _ToSlots.apply(rows_Nx, slot_N, null_first, *layout)  # type: ignore[no-untyped-call]
    return list(by_group)


def _gathered(rows_Nx: Tensor, index: Tensor) -> Tensor:
    return rows_Nx.index_select(0, index.flatten()).view(*index.shape, rows_Nx.shape[1])


class _ToSlots(torch.autograd.Function):
    """A gather whose backward is a gather too: each row's gradient is fetched from its one slot.

    PyTorch's own backward would fill and add a tensor of all rows for every group.
    """

    @staticmethod
    def forward(
        ctx: Any, rows_Nx: Tensor, slot_N: Tensor, null_first: bool, *layout: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the rows of every group.

        Args:
            ctx: Keeps the slots for the backward pass.
            rows_Nx: N rows.
            slot_N: The one slot of each row; below 0: none.
            null_first: Whether row 0 is the null row, which has no slot.
            layout: Rows of the slots of each group.
        """
        ctx.save_for_backward(slot_N)
        ctx.null_first = null_first
        return tuple(_gathered(rows_Nx, index) for index in layout)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slot_N,) = ctx.saved_tensors
        out = _concatenated([g.flatten(0, -2) for g in gradients]).index_select(
            0, slot_N.clamp(min=0)
        )
        out.masked_fill_((slot_N < 0).unsqueeze(1), 0)
        if ctx.null_first:
            out[0] = torch.stack([g[:, 0].sum(0) for g in gradients]).sum(0)
        return out, None, None, *[None] * len(gradients)
