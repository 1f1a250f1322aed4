"""Ragged rows in torch and in NumPy: numbers worked out by hand, and what holds for all rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hemix.data import jagged, jagged_array
from hemix.data.jagged import Jagged
from hemix.data.jagged_array import JaggedArray

ROWS = [[5, 6], [], [7], [8, 9, 10]]
LISTS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=4), max_size=7)


def array_of(lists: list[list[int]]) -> JaggedArray[np.int32]:
    return JaggedArray.from_lists(lists, np.int32)


def rows_of(rows: Jagged | JaggedArray[np.int32]) -> list[list[int]]:
    """The rows, read off the documented fields."""
    values, offsets = rows.values.tolist(), rows.offsets.tolist()
    assert (offsets[0], offsets[-1]) == (0, len(values))
    return [values[a:b] for a, b in pairwise(offsets)]


def test_offsets_begin_with_zero() -> None:
    assert jagged.offsets_of(torch.tensor([2, 0, 1, 3])).tolist() == [0, 2, 2, 3, 6]
    assert jagged_array.offsets_of([2, 0, 1, 3]).tolist() == [0, 2, 2, 3, 6]
    assert jagged.offsets_of(torch.zeros(0, dtype=torch.int64)).tolist() == [0]
    assert jagged_array.offsets_of([]).tolist() == [0]


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint64, np.int64])
def test_offsets_are_int64_whatever_the_lengths_are(kind: type[np.integer]) -> None:
    """300 does not fit into int8."""
    offsets = jagged_array.offsets_of(np.full(3, 100, kind))
    assert offsets.dtype == np.int64 and offsets.tolist() == [0, 100, 200, 300]


def test_positions_in_ranges() -> None:
    """3, 4 of the first range, nothing of the second, 1 of the third."""
    begin, lengths = [3, 9, 1], [2, 0, 1]
    assert jagged_array.range_positions(np.array(begin), np.array(lengths)).tolist() == [3, 4, 1]
    for total in (None, 3):
        positions = jagged.range_positions(torch.tensor(begin), torch.tensor(lengths), total)
        assert positions.tolist() == [3, 4, 1]


def test_positions_in_no_range() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert jagged.range_positions(none, none).tolist() == []
    assert jagged_array.range_positions(none.numpy(), none.numpy()).tolist() == []


def test_rows_and_their_lengths() -> None:
    for rows in (Jagged.from_lists(ROWS), array_of(ROWS)):
        assert rows_of(rows) == ROWS
        assert rows.offsets.tolist() == [0, 2, 2, 3, 6]
        assert (rows.rows, rows.lengths.tolist()) == (4, [2, 0, 1, 3])


def test_no_rows() -> None:
    for rows in (Jagged.from_lists([]), array_of([])):
        assert (rows.rows, rows.lengths.tolist(), rows.offsets.tolist()) == (0, [], [0])
    assert Jagged.from_lists([]).padded(-1).shape == (0, 0)


def test_selected_rows_come_in_the_given_order_and_may_repeat() -> None:
    expected = [[8, 9, 10], [5, 6], [], [5, 6]]
    assert rows_of(Jagged.from_lists(ROWS).select(torch.tensor([3, 0, 1, 0]))) == expected
    assert rows_of(array_of(ROWS).select(np.array([3, 0, 1, 0]))) == expected


def test_a_slice_begins_at_zero_and_copies_no_value() -> None:
    rows = Jagged.from_lists(ROWS)
    part = rows.slice(1, 3)
    assert rows_of(part) == [[], [7]] and part.offsets.tolist() == [0, 0, 1]
    assert part.values.data_ptr() == rows.values[2:].data_ptr()
    array = array_of(ROWS)
    assert rows_of(array.slice(1, 3)) == [[], [7]]
    assert np.shares_memory(array.slice(1, 3).values, array.values)


def test_padding_stands_behind_the_values() -> None:
    rows = Jagged.from_lists(ROWS)
    assert rows.padded(-1).tolist() == [[5, 6, -1], [-1, -1, -1], [7, -1, -1], [8, 9, 10]]
    assert Jagged.from_lists([[1]]).padded(-1, width=2).tolist() == [[1, -1]]
    assert Jagged.from_lists([[], []]).padded(-1).shape == (2, 0)
    assert Jagged.from_lists([[], []]).padded(-1, width=1).tolist() == [[-1], [-1]]


def test_values_may_be_vectors() -> None:
    vectors = torch.arange(6.0).view(3, 2)
    padded = Jagged.from_lengths(vectors, torch.tensor([1, 2])).padded(0)
    assert padded.tolist() == [[[0, 1], [0, 0]], [[2, 3], [4, 5]]]


def test_the_row_and_the_rank_of_every_value() -> None:
    assert array_of(ROWS).row_index.tolist() == [0, 0, 2, 3, 3, 3]
    assert array_of(ROWS).ranks.tolist() == [0, 1, 0, 0, 1, 2]


def test_an_array_becomes_int64_tensors() -> None:
    rows = Jagged.from_array(array_of(ROWS))
    assert rows_of(rows) == ROWS
    assert rows.values.dtype == rows.offsets.dtype == torch.int64


@given(LISTS, LISTS)
def test_concatenated_rows_follow_each_other(a: list[list[int]], b: list[list[int]]) -> None:
    assert rows_of(JaggedArray.concatenate([array_of(a), array_of(b)])) == a + b


@given(LISTS, st.randoms(use_true_random=False))
def test_selecting_in_another_order_and_back_gives_the_whole(
    lists: list[list[int]], random: object
) -> None:
    order = list(range(len(lists)))
    random.shuffle(order)  # type: ignore[attr-defined]
    back = np.argsort(np.array(order, dtype=np.int64))
    rows = Jagged.from_lists(lists).select(torch.tensor(order, dtype=torch.int64))
    assert rows_of(rows) == [lists[i] for i in order]
    assert rows_of(rows.select(torch.from_numpy(back))) == lists
    array = array_of(lists).select(np.array(order, dtype=np.int64))
    assert rows_of(array.select(back)) == lists


@given(LISTS, st.integers(0, 7))
def test_slices_make_up_the_whole(lists: list[list[int]], at: int) -> None:
    at = min(at, len(lists))
    rows, array = Jagged.from_lists(lists), array_of(lists)
    assert rows_of(rows.slice(0, at)) + rows_of(rows.slice(at, rows.rows)) == lists
    assert rows_of(JaggedArray.concatenate([array.slice(0, at), array.slice(at, 9)])) == lists


@given(LISTS, st.integers(0, 6))
def test_padding_can_be_removed_again(lists: list[list[int]], width: int) -> None:
    rows = Jagged.from_lists(lists)
    assert rows_of(Jagged.from_padded(rows.padded(-1, width), rows.lengths)) == lists
