"""Which parts of a batch a process works on: sums over the parts do not depend on how many processes share them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hemix.config import Settings
from hemix.data.batch import RequestBatch
from hemix.data.parts import part_of
from hemix.errors import SettingsError
from hemix.team import Team

__all__ = ["micro_batches", "own_parts"]


def micro_batches(settings: Settings, team: Team | None) -> int:
    """Parts of every batch. Raises SettingsError where the processes cannot share them equally."""
    processes = team.size if team is not None else 1
    parts = settings.train.micro_batches or processes
    if parts % processes:
        raise SettingsError(f"train.micro_batches: {parts} parts cannot be shared equally by {processes} processes: name a multiple "
                            "of their number, or 0 for one a process")  # fmt: skip
    return parts


def own_parts(batch: RequestBatch, parts: int, team: Team | None) -> Iterator[tuple[int, RequestBatch, Tensor]]:
    """(number of the part, the part, int64 [n] which of the batch's candidates it holds) of each of this process's; all processes'
    together, by rank, are all parts in their order. The batch lies in the host's memory."""
    if parts == 1:
        yield 0, batch, torch.arange(batch.candidates_count)
        return
    rank, size = (team.rank, team.size) if team is not None else (0, 1)
    own = parts // size
    for number in range(rank * own, (rank + 1) * own):
        yield number, *part_of(batch, number, parts)
