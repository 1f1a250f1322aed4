"""The slots of a step: which process computes them, and which numbers fit a dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hemix.data.dataset import Dataset
from hemix.distributed import DistributedContext, tree_reduce
from hemix.errors import SettingsError
from hemix.settings import Settings, build_settings
from hemix.training.slots import check_slots, own_slots, slot_seed
from tests.refusals import raises


def settings(slots: int) -> Settings:
    return build_settings(overrides={"train.gradient_accumulation": slots})


def test_processes_compute_neighbouring_slots() -> None:
    def of(rank: int) -> list[int]:
        return list(own_slots(settings(6), DistributedContext(rank, 3, torch.device("cpu"))))

    assert [of(rank) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert list(own_slots(settings(2), None)) == [0, 1]


@pytest.mark.parametrize(
    ("slots", "processes", "says"),
    [
        (1, 2, "take 1 process, or in a new run set train.gradient_accumulation to a multiple of 2 "
               "that is at most 8"),
        (6, 4, "take 1, 2, 3 or 6 processes, or in a new run set train.gradient_accumulation to a "
               "multiple of 4 that is at most 8"),
        (1, 9, "take 1 process, or prepare the logs again with --partitions 9 or more"),
        (16, 4, "take at most 8 slots, or prepare the logs again with --partitions 16 or more"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_are_refused_with_those_that_would(
    planted_data: Path, slots: int, processes: int, says: str
) -> None:
    data = Dataset(planted_data)
    with raises(SettingsError, says, field="train.gradient_accumulation"):
        check_slots(settings(slots), data, processes)


@pytest.mark.parametrize(("slots", "processes"), [(1, 1), (8, 4), (6, 3), (8, 1)])
def test_numbers_that_fit(planted_data: Path, slots: int, processes: int) -> None:
    check_slots(settings(slots), Dataset(planted_data), processes)


def test_every_slot_of_every_step_has_random_numbers_of_its_own() -> None:
    seeds = [
        slot_seed(seed, step, slot) for seed in range(3) for step in range(50) for slot in range(4)
    ]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("slots", [1, 2, 3, 6, 8, 12])
def test_a_tree_over_slots_is_one_over_processes_of_trees_over_theirs(slots: int) -> None:
    """Written as text: ((0+1)+(2+3)). A process adds up its slots, then the processes are added."""

    def add(left: str, right: str) -> str:
        return f"({left}+{right})"

    whole = tree_reduce(str, add, 0, slots)
    for processes in (p for p in (1, 2, 4) if slots % p == 0):
        own = slots // processes
        of_process = [tree_reduce(str, add, r * own, (r + 1) * own) for r in range(processes)]
        assert tree_reduce(of_process.__getitem__, add, 0, processes) == whole
    assert tree_reduce(str, add, 0, 6) == "((0+(1+2))+(3+(4+5)))"
