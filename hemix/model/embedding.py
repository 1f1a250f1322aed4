"""All embedding tables in one weight, read once a step.

The weight is [rows of all tables, width]. In training a step reads each distinct row once into a leaf tensor; every feature is
then gathered from that leaf, so that its gradient has one row per distinct id, whatever the batch repeats. A table optimiser
(`hemix.train.table_optimizers`) takes rows and gradient and updates those rows alone; the dense optimiser never sees the weight.

Knows neither the schema nor what the columns mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.data.spec import MISSING

__all__ = ["LookUp", "Tables", "distinct_rows"]

_DENSE_FACTOR = 16


@dataclass(frozen=True, kw_only=True)
class LookUp:
    """Ids to look up: one-valued columns, or with ``offsets`` one multi-valued feature."""

    tables: tuple[str, ...]
    """Table of every column; one table for a multi-valued feature."""
    ids: Tensor
    """int64 [rows, columns]; [total] with ``offsets``"""
    offsets: Tensor | None = None
    """int64 [rows + 1]: row i has the values ids[offsets[i]:offsets[i + 1]]"""


class Tables(nn.Module):
    """The embedding tables, one after another in :attr:`weight` [sum of rows, width]."""

    def __init__(self, rows: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.width = width
        self.first_row: dict[str, int] = {}
        total = 0
        for name, count in rows.items():
            self.first_row[name] = total
            total += count
        self.weight = nn.Parameter(torch.empty(total, width), requires_grad=False)
        self._step: tuple[Tensor, Tensor] | None = None

    def look_up(self, wanted: Sequence[LookUp]) -> list[Tensor]:
        """Vectors of everything that a step needs: [rows, columns * width] each, [rows, width] for a multi-valued feature (the
        mean of its values; the missing row where there is none).

        In training (train mode with gradients on) once a step: call :meth:`take_step` before the next.
        """
        if not wanted:
            return []
        bags = [None if w.offsets is None else _with_missing(w.ids, w.offsets) for w in wanted]
        ids = [(w.ids if bag is None else bag[0].unsqueeze(1)) + self._first_rows(w) for w, bag in zip(wanted, bags, strict=True)]
        source: Tensor = self.weight
        if self.training and torch.is_grad_enabled():
            assert self._step is None, "one look-up a step: the step before was not taken"
            rows, places = distinct_rows(torch.cat([i.flatten() for i in ids]), self.weight.shape[0])
            source = self.weight.detach().index_select(0, rows).requires_grad_()
            self._step = (rows, source)
            ids = [p.view(i.shape) for p, i in zip(torch.split(places, [i.numel() for i in ids]), ids, strict=True)]
        return [
            source.index_select(0, i.flatten()).view(i.shape[0], i.shape[1] * self.width)
            if bag is None
            else F.embedding_bag(i.flatten(), source, bag[1], mode="mean", include_last_offset=True)
            for i, bag in zip(ids, bags, strict=True)
        ]

    def by_name(self) -> dict[str, Tensor]:
        """The rows of every table, as views of the weight."""
        ends = [*list(self.first_row.values())[1:], self.weight.shape[0]]
        return {name: self.weight[first:end] for (name, first), end in zip(self.first_row.items(), ends, strict=True)}

    def take_step(self) -> tuple[Tensor, Tensor] | None:
        """(rows int64 [n], gradient [n, width]) of the look-up since the last call, or None; forgets it."""
        step, self._step = self._step, None
        if step is None or step[1].grad is None:
            return None
        return step[0], step[1].grad

    def _first_rows(self, wanted: LookUp) -> Tensor:
        return torch.tensor([self.first_row[name] for name in wanted.tables], device=wanted.ids.device)


def _with_missing(values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The same lists with ``[MISSING]`` in place of every empty one."""
    lengths = offsets.diff()
    empty = lengths == 0
    shift = F.pad(empty.cumsum(0), (1, 0))
    filled = torch.full((values.shape[0] + int(shift[-1]),), MISSING, dtype=values.dtype, device=values.device)
    places = torch.arange(values.shape[0], device=values.device) + torch.repeat_interleave(shift[:-1], lengths)
    return filled.index_copy_(0, places, values), offsets + shift


def distinct_rows(ids: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """(distinct ids ascending, the place of every id among them), for int64 [n] ids in [0, rows)."""
    if rows > _DENSE_FACTOR * ids.shape[0]:
        distinct, places = torch.unique(ids, return_inverse=True)
        return distinct, places
    seen = torch.zeros(rows, dtype=torch.bool, device=ids.device).index_fill_(0, ids, True)
    distinct = seen.nonzero().squeeze(1)
    place = torch.zeros(rows, dtype=torch.int64, device=ids.device)
    place.index_copy_(0, distinct, torch.arange(distinct.shape[0], device=ids.device))
    return distinct, place.index_select(0, ids)
