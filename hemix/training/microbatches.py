"""The microbatches of a step, and which of them a process computes.

A microbatch gives the same result however many processes share a step. The sum over two
microbatches does too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.distributed import DistributedContext
from hemix.errors import SettingsError
from hemix.settings import Settings

__all__ = ["check_microbatches", "microbatch_count", "microbatch_seed", "own_microbatches"]


def microbatch_count(settings: Settings, distributed: DistributedContext | None) -> int:
    """Return the number of microbatches in a step, over all processes.

    Args:
        settings: Of the run.
        distributed: The processes; None: this one alone.
    """
    return settings.train.gradient_accumulation or (
        distributed.world_size if distributed is not None else 1
    )


def check_microbatches(settings: Settings, distributed: DistributedContext | None) -> None:
    """Check that every process gets equally many microbatches.

    Args:
        settings: Of the run.
        distributed: The processes; None: this one alone.

    Raises:
        SettingsError: If the number of processes does not divide the number of microbatches.
    """
    count, processes = (
        microbatch_count(settings, distributed),
        distributed.world_size if distributed is not None else 1,
    )
    if count % processes:
        raise SettingsError(
            f"train.gradient_accumulation: {count} microbatches cannot be shared equally by "
            f"{processes} processes: take a number of processes that divides {count}, or in a new "
            "run a multiple of the number of processes",
            field="train.gradient_accumulation",
        )


def own_microbatches(
    batch: RequestBatch, count: int, distributed: DistributedContext | None
) -> Iterator[tuple[int, RequestBatch, Tensor]]:
    """Divide a batch and yield the microbatches of this process.

    Args:
        batch: A batch in the CPU's memory.
        count: Microbatches of the batch, over all processes.
        distributed: The processes; None: this one alone.

    Yields:
        Number of the microbatch, the microbatch, and int64 [n] positions of its candidates in the
        batch. The microbatches of all processes, by rank, are in ascending order.
    """
    if count == 1:
        yield 0, batch, torch.arange(batch.candidates_count)
        return
    rank, size = (distributed.rank, distributed.world_size) if distributed is not None else (0, 1)
    own = count // size
    for number in range(rank * own, (rank + 1) * own):
        yield number, *batch.microbatch(number, count)


def microbatch_seed(seed: int, step: int, number: int) -> int:
    """Return the seed of the random numbers of one microbatch.

    No two microbatches share their dropout, and no generator's state has to be saved.

    Args:
        seed: The run's seed.
        step: Number of the step.
        number: Number of the microbatch in its step.
    """
    sequence = np.random.SeedSequence([seed, step, number])
    return int(sequence.generate_state(1, np.uint64)[0])
