"""The slots of a step, and which of them a process computes.

A slot gives the same result in whatever process it is computed, and results are added in one
binary tree over the slots. So a run has the same bytes for any number of processes that is a power
of two and divides the number of slots.
"""

from __future__ import annotations

import numpy as np

from hemix.data.dataset import Dataset
from hemix.distributed import DistributedContext
from hemix.errors import SettingsError
from hemix.settings import Settings

__all__ = ["check_slots", "own_slots", "slot_seed"]

_SETTING = "train.gradient_accumulation"


def check_slots(settings: Settings, data: Dataset, processes: int) -> None:
    """Check that every slot has a partition and that every process gets equally many slots.

    Args:
        settings: Of the run.
        data: The dataset to train on.
        processes: Number of processes.

    Raises:
        SettingsError: Naming the numbers of slots or partitions that would do.
    """
    slots, partitions = settings.train.gradient_accumulation, len(data.manifest["partitions"])
    if slots % processes:
        fits = partitions // processes * processes
        remedy = (
            f"in a new run set {_SETTING} to a multiple of {processes} that is at most {fits}"
            if fits
            else f"prepare the logs again with --partitions {processes} or more"
        )
        divisors = [number for number in range(1, slots + 1) if slots % number == 0]
        raise SettingsError(
            f"{_SETTING}: {slots} {_plural('slot', slots)} cannot be shared equally by {processes} "
            f"processes: take {_or(divisors)} {_plural('process', divisors[-1])}, or {remedy}",
            field=_SETTING,
        )
    if slots > partitions:
        raise SettingsError(
            f"{_SETTING}: {slots} slots need a partition each, but {data.folder} has {partitions}: "
            f"take at most {partitions} slots, or prepare the logs again with --partitions {slots} "
            "or more",
            field=_SETTING,
        )


def _plural(noun: str, count: int) -> str:
    suffix = "es" if noun.endswith("s") else "s"
    return noun if count == 1 else noun + suffix


def _or(numbers: list[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last


def own_slots(settings: Settings, distributed: DistributedContext | None) -> range:
    """Return the numbers of the slots that this process computes.

    Args:
        settings: Of the run.
        distributed: The processes; None: this one alone.
    """
    rank, size = (distributed.rank, distributed.world_size) if distributed is not None else (0, 1)
    own = settings.train.gradient_accumulation // size
    return range(rank * own, (rank + 1) * own)


def slot_seed(seed: int, step: int, slot: int) -> int:
    """Return the seed of the random numbers of one slot in one step.

    No two slots share their dropout, and no generator's state has to be saved.

    Args:
        seed: The run's seed.
        step: Number of the step.
        slot: Number of the slot.
    """
    sequence = np.random.SeedSequence([seed, step, slot])
    return int(sequence.generate_state(1, np.uint64)[0])
