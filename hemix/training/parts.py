"""Which parts of a batch a process works on.

What is computed of a part does not depend on how many processes share them; nor do, of two parts,
their sums.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.parts import part_of
from hemix.errors import SettingsError
from hemix.settings import Settings
from hemix.team import Team

__all__ = ["check_parts", "micro_batches", "own_parts"]


def micro_batches(settings: Settings, team: Team | None) -> int:
    """Parts of every batch."""
    return settings.train.micro_batches or (team.size if team is not None else 1)


def check_parts(settings: Settings, team: Team | None) -> None:
    """Raises SettingsError where the processes cannot share the parts equally."""
    parts, processes = micro_batches(settings, team), team.size if team is not None else 1
    if parts % processes:
        raise SettingsError(
            f"train.micro_batches: {parts} parts cannot be shared equally by {processes} "
            "processes: take a number of "
            f"processes that divides {parts}, or in a new run a multiple of theirs"
        )


def own_parts(
    batch: RequestBatch, parts: int, team: Team | None
) -> Iterator[tuple[int, RequestBatch, Tensor]]:
    """(number of the part, the part, int64 [n] which of the batch's candidates it holds) of each of
    this process's; all processes' together, by rank, are all parts in their order. The batch lies
    in the host's memory.
    """
    if parts == 1:
        yield 0, batch, torch.arange(batch.candidates_count)
        return
    rank, size = (team.rank, team.size) if team is not None else (0, 1)
    own = parts // size
    for number in range(rank * own, (rank + 1) * own):
        yield number, *part_of(batch, number, parts)
