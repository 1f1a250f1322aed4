"""Embedding tables over several processes, each holding a run of rows of all tables together.

A look-up asks the owners for its distinct rows, once for all levels of a step; the gradients go the
same way back and are added up by row there, so a table optimiser sees a weight of its own rows and
steps as on one process. Decision 13 says why not by TorchRec.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hemix.nn.embedding import Gradients, Tables
from hemix.team import Team

__all__ = ["ShardedTables", "owned_rows"]


def owned_rows(rows: int, rank: int, size: int) -> tuple[int, int]:
    """[first, last) of process ``rank`` among ``size``: runs that differ by one row at most."""
    return rank * rows // size, (rank + 1) * rows // size


class ShardedTables(Tables):
    """This process's rows of the tables; all processes look up together and step together."""

    def __init__(self, rows: Mapping[str, int], width: int, team: Team) -> None:
        total = sum(rows.values())
        super().__init__(rows, width, owned_rows(total, team.rank, team.size))
        self.team = team
        begins = [owned_rows(total, rank, team.size)[0] for rank in range(team.size)]
        self._begins = torch.tensor([*begins, total], device="cpu")

    def by_name(self) -> dict[str, Tensor]:
        """Not of a part: raises TypeError. Weights of several processes are saved by
        `hemix.runs.shards`."""
        raise TypeError("tables over several processes have no whole table in one of them")

    def _readable(self, ids: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        flat = torch.cat([i.flatten() for i in ids])
        distinct, positions = torch.unique(flat, return_inverse=True)
        counts = self._counts(distinct)
        requested, incoming = self.team.exchanged(self._here(distinct), counts)
        mine = self.weight.detach().index_select(0, requested - self.owned[0])
        received, _ = self.team.exchanged(mine, incoming)
        pieces = torch.split(positions, [i.numel() for i in ids])
        return received, [piece.view(i.shape) for piece, i in zip(pieces, ids, strict=True)]

    def take_gradients(self) -> Gradients | None:
        """What all processes' look-ups of this step gave to the rows of :attr:`weight`, part by
        part: ids are positions in it, with
        repeats."""
        self.keep_part()
        parts, self._parts = self._parts, []
        if not parts:
            return None
        rows, summed = (torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
        owner = torch.searchsorted(self._begins[1:], rows, right=True)
        if len(parts) > 1:
            owner, order = torch.sort(owner, stable=True)  # an owner's rows together, part by part
            rows, summed = rows[order], summed[self._here(order)]
        counts = torch.bincount(owner, minlength=self.team.size).tolist()
        ids, _ = self.team.exchanged(self._here(rows), counts)
        gradients, _ = self.team.exchanged(summed, counts)
        return Gradients(ids=(ids - self.owned[0]).cpu(), mean_offsets=None, values=gradients)

    def _counts(self, ascending: Tensor) -> list[int]:
        """How many of ascending ids each process owns."""
        received: list[int] = torch.searchsorted(ascending, self._begins).diff().tolist()
        return received
