"""Embedding tables over several processes, each of which holds a range of rows of all tables.

A look-up fetches its distinct rows from their owners, once for all levels of a step. The gradients
go the same way back and are summed by row there, so a table optimiser steps as in one process
(docs/project/decisions/0013-several-processes.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hemix.distributed import DistributedContext
from hemix.nn.embedding import EmbeddingTables, Gradients

__all__ = ["ShardedTables", "owned_rows"]


def owned_rows(rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return the rows [first, last) of one process; the ranges differ by one row at most.

    Args:
        rows: Rows of all tables.
        rank: The process.
        world_size: Number of processes.
    """
    return rank * rows // world_size, (rank + 1) * rows // world_size


class ShardedTables(EmbeddingTables):
    """This process's rows of the tables. Look-ups and steps are collective."""

    def __init__(
        self, rows: Mapping[str, int], width: int, distributed: DistributedContext
    ) -> None:
        """Make the weight of this process's rows.

        Args:
            rows: Rows of every table by name.
            width: Width of the vectors.
            distributed: The processes that share the tables.
        """
        total, world_size = sum(rows.values()), distributed.world_size
        super().__init__(rows, width, owned_rows(total, distributed.rank, world_size))
        self.distributed = distributed
        firsts = [owned_rows(total, rank, world_size)[0] for rank in range(world_size)]
        self._firsts = torch.tensor([*firsts, total], device="cpu")
        """int64 [world_size + 1]: the first row of every process, then the number of rows"""

    def by_name(self) -> dict[str, Tensor]:
        """Raise TypeError, because no process has a whole table; `hemix.runs.shards` saves them."""
        raise TypeError("tables over several processes have no whole table in one of them")

    def _readable(self, ids: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        flat = torch.cat([i.flatten() for i in ids])
        distinct, positions = torch.unique(flat, return_inverse=True)
        requested, recv_counts = self.distributed.all_to_all(
            self._here(distinct), self._counts_by_owner(distinct)
        )
        own_rows = self.weight.detach().index_select(0, requested - self.owned[0])
        received, _ = self.distributed.all_to_all(own_rows, recv_counts)
        split_positions = torch.split(positions, [i.numel() for i in ids])
        return received, [
            flat_positions.view(i.shape)
            for flat_positions, i in zip(split_positions, ids, strict=True)
        ]

    def take_gradients(self) -> Gradients | None:
        """Return the gradients of this process's rows from all processes, or None; forget them.

        The ids are positions in :attr:`weight`, with repeats, in the order of the microbatches.
        """
        self.end_microbatch()
        microbatches, self._microbatches = self._microbatches, []
        if not microbatches:
            return None
        rows, summed = (torch.cat(tensors) for tensors in zip(*microbatches, strict=True))
        owner = torch.searchsorted(self._firsts[1:], rows, right=True)
        if len(microbatches) > 1:
            # rows by owner, those of one owner in the order of the microbatches
            owner, order = torch.sort(owner, stable=True)
            rows, summed = rows[order], summed[self._here(order)]
        send_counts = torch.bincount(owner, minlength=self.distributed.world_size).tolist()
        ids, _ = self.distributed.all_to_all(self._here(rows), send_counts)
        gradients, _ = self.distributed.all_to_all(summed, send_counts)
        return Gradients(ids=(ids - self.owned[0]).cpu(), mean_offsets=None, values=gradients)

    def _counts_by_owner(self, ascending: Tensor) -> list[int]:
        """Count the ascending ids of each process."""
        counts: list[int] = torch.searchsorted(ascending, self._firsts).diff().tolist()
        return counts
