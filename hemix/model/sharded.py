"""Embedding tables over several processes, each holding a run of rows of all tables together.

A look-up asks the owners for its distinct rows, once for all levels of a step; the gradients go the same way back and are added up by
row there, so a table optimiser sees a weight of its own rows and steps as on one process. Decision 13 says why not by TorchRec.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hemix.model.embedding import Gradients, Tables, sum_by_row
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
        """Not of a part: raises TypeError. Weights of several processes are saved by `hemix.run.shards`."""
        raise TypeError("tables over several processes have no whole table in one of them")

    def _readable(self, ids: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        flat = torch.cat([i.flatten() for i in ids])
        distinct, places = torch.unique(flat, return_inverse=True)
        counts = self._counts(distinct)
        asked, incoming = self.team.exchanged(self._here(distinct), counts)
        mine = self.weight.detach().index_select(0, asked - self.owned[0])
        found, _ = self.team.exchanged(mine, incoming)
        pieces = torch.split(places, [i.numel() for i in ids])
        return found, [piece.view(i.shape) for piece, i in zip(pieces, ids, strict=True)]

    def take_gradients(self) -> Gradients | None:
        """What all processes' last look-ups gave to the rows of :attr:`weight`, added up: ids are places in it, each once."""
        step, self._step = self._step, None
        if step is None:
            return None
        gradient = torch.zeros_like(step.values) if step.values.grad is None else step.values.grad
        rows, summed = sum_by_row(Gradients(ids=step.ids, bags=step.bags, values=gradient), self.rows)
        counts = self._counts(rows)
        ids, _ = self.team.exchanged(self._here(rows), counts)
        gradients, _ = self.team.exchanged(summed, counts)
        distinct, places = torch.unique(ids, return_inverse=True)
        total = gradients.new_zeros(distinct.shape[0], self.width).index_add_(0, places, gradients)
        return Gradients(ids=(distinct - self.owned[0]).cpu(), bags=None, values=total)

    def _counts(self, ascending: Tensor) -> list[int]:
        """How many of ascending ids each process owns."""
        found: list[int] = torch.searchsorted(ascending, self._begins).diff().tolist()
        return found
