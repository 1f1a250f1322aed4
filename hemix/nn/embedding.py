"""All embedding tables in one weight, read once a microbatch.

Why FBGEMM updates them on a GPU alone, and why they are not TorchRec's: decisions 8 and 13.
The weight is [rows of all tables, width]. In training a look-up reads all its ids at once into a
leaf tensor without connection to the weight. Autograd gives that leaf one gradient per vector. A
table optimiser (`hemix.training.table_optimizers`) adds the gradients up by row and updates those
rows alone. The dense optimiser never sees the weight.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.data.devices import to_device
from hemix.data.jagged import offsets_of, range_positions
from hemix.data.spec import MISSING
from hemix.nn.init import WeightInit

__all__ = ["EmbeddingTables", "Gradients", "LookUp", "distinct_rows", "sum_by_row"]

_DENSE_FACTOR = 16
_ROWS_PER_DRAW = 2**16


@dataclass(frozen=True, kw_only=True)
class LookUp:
    """Ids to look up, in the host's memory: one-valued columns, or with ``offsets`` one
    multi-valued feature."""

    tables: tuple[str, ...]
    """Table of every column; one table for a multi-valued feature."""
    ids: Tensor
    """int64 [rows, columns]; [total] with ``offsets``"""
    offsets: Tensor | None = None
    """int64 [rows + 1]: row i has the values ids[offsets[i]:offsets[i + 1]]"""


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """What a backward pass left: a gradient for every vector of the step's look-up."""

    ids: Tensor
    """int64 [n], rows of the weight, with repeats; in the host's memory"""
    mean_offsets: Tensor | None
    """int64 [b + 1], in the host's memory, from 0, ascending strictly: the last b vectors were
    means of the last ``mean_offsets[-1]`` ids, the i-th of those in
    mean_offsets[i]:mean_offsets[i + 1]. All vectors before are one row each. None: there are no
    means"""
    values: Tensor
    """[m, width]"""


class EmbeddingTables(nn.Module):
    """The embedding tables, one after another in :attr:`weight` [sum of rows, width]."""

    def __init__(
        self, rows: Mapping[str, int], width: int, owned: tuple[int, int] | None = None
    ) -> None:
        """``owned``: which rows of all tables together the weight holds; by default all."""
        super().__init__()
        self.width = width
        self.first_row: dict[str, int] = {}
        total = 0
        for name, count in rows.items():
            self.first_row[name] = total
            total += count
        self.rows = total
        self.owned = owned or (0, total)
        self.weight = nn.Parameter(
            torch.empty(self.owned[1] - self.owned[0], width), requires_grad=False
        )
        self._step: Gradients | None = None
        self._microbatches: list[tuple[Tensor, Tensor]] = []
        """Rows and summed gradients of the microbatches of this step"""

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw the rows in pieces: a process that owns some of them draws all and keeps its own,
        so that values are the same for any number of processes."""
        first, last = self.owned
        for begin in range(0, self.rows, _ROWS_PER_DRAW):
            end = min(begin + _ROWS_PER_DRAW, self.rows)
            size = (end - begin, self.width)
            drawn = torch.randn(size, generator=init.generator, dtype=torch.float32)
            low, high = max(begin, first), min(end, last)
            if low < high:
                own_rows = (drawn * init.embedding_std)[low - begin : high - begin]
                self.weight[low - first : high - first] = own_rows.to(self.weight.dtype)

    def look_up(self, look_ups: Sequence[LookUp]) -> list[Tensor]:
        """Vectors of everything that a step needs: [rows, columns * width] each, [rows, width] for
        a multi-valued feature (the
        mean of its values; the missing row where there is none).

        In training (train mode with gradients on) once a step: call :meth:`take_step` before the
        next, or :meth:`end_microbatch`.
        """
        if not look_ups:
            return []
        lists = [None if w.offsets is None else _with_missing(w.ids, w.offsets) for w in look_ups]
        ids = [
            (w.ids if jagged is None else jagged[0].unsqueeze(1)) + self._first_rows(w)
            for w, jagged in zip(look_ups, lists, strict=True)
        ]
        weight, positions = self._readable(ids)
        if self.training and torch.is_grad_enabled():
            vectors = self._read_for_step(
                ids,
                weight.detach(),
                positions,
                [None if jagged is None else jagged[1] for jagged in lists],
            )
            return [
                looked_up.view(i.shape[0], i.shape[1] * self.width) if jagged is None else looked_up
                for looked_up, i, jagged in zip(vectors, ids, lists, strict=True)
            ]
        return [
            weight.index_select(0, self._here(at.flatten())).view(
                at.shape[0], at.shape[1] * self.width
            )
            if jagged is None
            else F.embedding_bag(
                self._here(at.flatten()),
                weight,
                self._here(jagged[1]),
                mode="mean",
                include_last_offset=True,
            )
            for at, jagged in zip(positions, lists, strict=True)
        ]

    def _readable(self, ids: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(a weight [n, width] to read from, the positions of ``ids`` in it)."""
        return self.weight, ids

    def _read_for_step(
        self,
        ids: list[Tensor],
        weight: Tensor,
        positions: list[Tensor],
        offsets: list[Tensor | None],
    ) -> list[Tensor]:
        """Vectors [m, width] of every look-up, pieces of one leaf that :meth:`take_gradients` will
        ask for its gradient."""
        assert self._step is None, "one look-up a step: the step before was not taken"
        order = sorted(range(len(ids)), key=lambda at: offsets[at] is not None)  # lists last
        flat = torch.cat([ids[at].flatten() for at in order])
        rows = self._here(torch.cat([positions[at].flatten() for at in order]))
        lengths = [o.diff() for o in offsets if o is not None]
        single, mean_offsets = (
            flat.shape[0] - sum(ids[at].numel() for at in order if offsets[at] is not None),
            None,
        )
        if lengths:
            mean_offsets = offsets_of(torch.cat(lengths))
        leaf = weight.new_empty(
            single + (0 if mean_offsets is None else mean_offsets.shape[0] - 1), self.width
        )
        torch.index_select(weight, 0, rows[:single], out=leaf[:single])
        if mean_offsets is not None:
            leaf[single:] = F.embedding_bag(
                rows[single:],
                weight,
                self._here(mean_offsets),
                mode="mean",
                include_last_offset=True,
            )
        self._step = Gradients(ids=flat, mean_offsets=mean_offsets, values=leaf.requires_grad_())
        sizes = [ids[at].numel() if (o := offsets[at]) is None else o.shape[0] - 1 for at in order]
        vectors = dict(zip(order, torch.split(leaf, sizes), strict=True))
        return [vectors[at] for at in range(len(ids))]

    def _here(self, ids: Tensor) -> Tensor:
        return to_device(ids, self.weight.device)

    def by_name(self) -> dict[str, Tensor]:
        """The rows of every table, as views of the weight."""
        return {name: self.weight[first:end] for name, (first, end) in self.ranges().items()}

    def ranges(self) -> dict[str, tuple[int, int]]:
        """[first, end) of every table's rows among those of all tables; empty where a schema has no
        ids."""
        names, firsts = list(self.first_row), [*self.first_row.values(), self.rows]
        return dict(zip(names, itertools.pairwise(firsts), strict=True))

    def end_microbatch(self) -> None:
        """Store the gradients of a microbatch after its backward pass.

        :meth:`take_gradients` adds them up in the order of the microbatches.
        """
        step, self._step = self._step, None
        if step is not None:
            gradient = (
                torch.zeros_like(step.values) if step.values.grad is None else step.values.grad
            )
            self._microbatches.append(
                sum_by_row(
                    Gradients(ids=step.ids, mean_offsets=step.mean_offsets, values=gradient),
                    self.rows,
                )
            )

    def take_gradients(self) -> Gradients | None:
        """The gradients that reached the look-ups since the last call, or None; forgets them."""
        if self._microbatches:
            microbatches, self._microbatches = self._microbatches, []
            ids, values = (torch.cat(tensors) for tensors in zip(*microbatches, strict=True))
            return Gradients(ids=ids, mean_offsets=None, values=values)
        step, self._step = self._step, None
        if step is None or step.values.grad is None:
            return None
        return Gradients(ids=step.ids, mean_offsets=step.mean_offsets, values=step.values.grad)

    def take_step(self) -> tuple[Tensor, Tensor] | None:
        """The same added up: (rows int64 [n], distinct and ascending, gradient [n, width]), both
        where the weight is."""
        gradients = self.take_gradients()
        if gradients is None:
            return None
        rows, gradient = sum_by_row(gradients, self.rows)
        return self._here(rows), gradient

    def _first_rows(self, look_ups: LookUp) -> Tensor:
        return torch.tensor([self.first_row[name] for name in look_ups.tables])


def _with_missing(values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The same lists with ``[MISSING]`` in place of every empty one."""
    lengths = offsets.diff()
    empty = lengths == 0
    if not bool(empty.any()):
        return values, offsets
    shift = offsets_of(empty)
    filled = torch.full(
        (values.shape[0] + int(shift[-1]),), MISSING, dtype=values.dtype, device=values.device
    )
    positions = range_positions(offsets[:-1] + shift[:-1], lengths, values.shape[0])
    return filled.index_copy_(0, positions, values), offsets + shift


def sum_by_row(gradients: Gradients, rows: int) -> tuple[Tensor, Tensor]:
    """Add up the gradients of every distinct id, always in the same order.

    The ids are sorted in the CPU's memory; the sums are computed on the gradients' device.

    Args:
        gradients: Ids in [0, rows) and the gradient of every look-up.
        rows: Rows of the weight.

    Returns:
        Distinct ids int64 [n], ascending, and their summed gradients [n, width].
    """
    values, mean_offsets = gradients.values, gradients.mean_offsets
    device = values.device
    ids = gradients.ids.int() if rows < 2**31 else gradients.ids  # sorts twice as fast
    ordered, vector = torch.sort(ids, stable=True)
    distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
    if mean_offsets is not None:
        lengths = mean_offsets.diff()
        single = values.shape[0] - lengths.shape[0]
        values = torch.cat(
            [values[:single], values[single:] / to_device(lengths, device).unsqueeze(1)]
        )
        every = torch.arange(values.shape[0])
        vector = torch.cat(
            [every[:single], every[single:].repeat_interleave(lengths)]
        ).index_select(0, vector)
    begin = offsets_of(counts)
    total = F.embedding_bag(
        to_device(vector, device),
        values,
        to_device(begin, device),
        mode="sum",
        include_last_offset=True,
    )
    return distinct.long(), total


def distinct_rows(ids: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return the distinct ids, and the position of every id among them.

    Args:
        ids: int64 [n], in [0, rows).
        rows: Rows of the weight.

    Returns:
        Distinct ids int64, ascending, and positions int64 [n].
    """
    if rows > _DENSE_FACTOR * ids.shape[0]:
        distinct, positions = torch.unique(ids, return_inverse=True)
        return distinct, positions
    seen = torch.zeros(rows, dtype=torch.bool, device=ids.device).index_fill_(0, ids, True)
    distinct = seen.nonzero().squeeze(1)
    position = torch.zeros(rows, dtype=torch.int64, device=ids.device)
    position.index_copy_(0, distinct, torch.arange(distinct.shape[0], device=ids.device))
    return distinct, position.index_select(0, ids)
