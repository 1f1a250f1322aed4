"""Rows in several partitions are those of one array that holds them all."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hemix.data.jagged_array import JaggedArray, range_positions
from hemix.data.layout import Block
from hemix.data.partitioned import PartitionedArray, PartitionedRows
from hemix.data.search import first_at_least

Array = npt.NDArray[Any]

COUNTS = [0, 3, 0, 0, 5, 1, 0]
"""Rows of every partition; several have none"""
ROWS = PartitionedRows(np.array(COUNTS))
POSITIONS = [
    [],
    [4],
    [8],
    [0, 1, 2],
    [0, 2, 2, 3, 7, 8],
    [8, 0, 3, 1, 7, 7],
]


def divided(whole: Array) -> list[Array]:
    return np.split(whole, np.cumsum(COUNTS)[:-1])


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("width", [None, 0, 2])
def test_an_array(positions: list[int], width: int | None) -> None:
    shape = (9,) if width is None else (9, width)
    whole = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    parts = divided(whole)
    array = PartitionedArray(ROWS, parts.__getitem__)
    rows = array[np.array(positions, dtype=np.int64)]
    assert len(array) == 9
    assert rows.dtype == np.int32 and rows.shape == (len(positions), *shape[1:])
    assert (rows == whole[np.array(positions, dtype=int)]).all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_pieces_are_the_rows_by_partition_and_back(positions: list[int]) -> None:
    numbers = np.array(positions, dtype=np.int64)
    pieces = ROWS.pieces(numbers)
    assert list(pieces.partitions) == sorted(set(pieces.partitions))
    assert len(pieces.bounds) == len(pieces.partitions) + 1
    ordered = numbers if pieces.order is None else numbers[pieces.order]
    assert (
        ROWS.numbers(pieces).tolist()
        == ordered.tolist()
        == sorted(positions, key=lambda n: np.searchsorted(ROWS.first, n, side="right"))
    )
    for place, rows in zip(pieces.partitions, pieces.each, strict=True):
        assert ((rows >= 0) & (rows < max(COUNTS[place], 1))).all()


@pytest.mark.parametrize("positions", [p for p in POSITIONS if p == sorted(p)])
def test_a_block_with_lists(positions: list[int]) -> None:
    lists = JaggedArray.from_lists([[1], [], [2, 3], [4], [5, 6], [], [7], [8, 9], []], np.int32)
    whole = Block(
        ids=np.arange(18, dtype=np.int32).reshape(9, 2),
        numbers=np.zeros((9, 0), dtype=np.float32),
        jagged=(lists,),
    )
    first = ROWS.first
    blocks = [whole.slice(int(a), int(b)) for a, b in itertools.pairwise(first)]
    pieces = ROWS.pieces(np.array(positions, dtype=np.int64))
    selected = pieces.select([blocks[place] for place in pieces.partitions])
    expected = whole.select(np.array(positions, dtype=np.int64))
    assert (selected.ids == expected.ids).all() and selected.numbers.shape == (len(positions), 0)
    assert selected.jagged[0].offsets.tolist() == expected.jagged[0].offsets.tolist()
    assert selected.jagged[0].values.tolist() == expected.jagged[0].values.tolist()


def test_ranges_of_another_level_stay_in_their_partitions() -> None:
    """Partition 1 has 4 events of 3 users, partition 4 has 6 of 5, partition 5 none of 1."""
    events = {1: np.arange(4), 4: np.arange(10, 16), 5: np.zeros(0, dtype=np.int64)}
    offsets = {1: [0, 1, 1, 4], 4: [0, 2, 2, 3, 6, 6], 5: [0, 0]}
    pieces = ROWS.pieces(np.array([0, 2, 3, 6, 8]))
    begin, lengths = (
        np.concatenate(
            [
                of(np.array(offsets[p]))[r]
                for p, r in zip(pieces.partitions, pieces.each, strict=True)
            ]
        )
        for of in (lambda o: o[:-1], np.diff)
    )
    ranges = pieces.ranges(begin, lengths)
    assert ranges.rows.tolist() == range_positions(begin, lengths).tolist()
    taken = ranges.take([events[place] for place in ranges.partitions])
    assert taken.tolist() == [0, 1, 2, 3, 10, 11, 13, 14, 15]


def test_a_search_within_partitions() -> None:
    times = [np.array([10, 20, 30]), np.zeros(0, dtype=np.int64), np.array([5, 15])]
    rows = PartitionedRows(np.array([2, 1, 1]))
    pieces = rows.pieces(np.array([0, 1, 2, 3]))
    low, high = np.array([0, 1, 0, 0]), np.array([2, 3, 0, 2])
    values = pieces.values([times[place] for place in pieces.partitions])
    found = first_at_least(values, low, high, np.array([20, 31, 7, 6]))
    assert found.tolist() == [1, 3, 0, 1]
