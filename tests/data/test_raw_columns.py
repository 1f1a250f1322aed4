"""Raw columns to cells: what counts as missing, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import NULL_KEY, keys_of
from hemix.data.raw_columns import (
    Where,
    as_arrow,
    concatenate,
    from_arrow,
    row_hashes,
    take,
)
from hemix.errors import DataError
from hemix.features import Categorical, Coordinates, Numeric, Vector
from tests.refusals import raises

WHERE = Where("logs/items.parquet", 100)
TAGS = Categorical(multi=True, max_values=2)


def read(feature: Any, values: pa.Array) -> Any:
    return feature.read("x", {"x": values}, len(values), WHERE)


def test_a_list_is_cut_and_a_missing_one_is_one_missing_value() -> None:
    lists = read(TAGS, pa.array([["a", "b", "c"], None, [], [None, "a"]]))
    a, b = keys_of(pa.array(["a", "b"])).tolist()
    assert lists.values.tolist() == [a, b, NULL_KEY, NULL_KEY, a]
    assert lists.offsets.tolist() == [0, 2, 3, 3, 5]


def test_numbers() -> None:
    assert read(Numeric(), pa.array([1, None, 3])).tolist()[::2] == [1.0, 3.0]
    assert np.isnan(read(Numeric(), pa.array([1, None, 3]))[1])
    assert np.isnan(read(Numeric(), pa.nulls(2))).all()
    assert read(Numeric(), pa.array([True, False])).tolist() == [1.0, 0.0]


def test_a_missing_column_encodes_as_missing() -> None:
    keys, vectors = Categorical().read("x", {}, 2, WHERE), Vector(size=2).read("x", {}, 1, WHERE)
    assert isinstance(keys, np.ndarray) and keys.tolist() == [NULL_KEY, NULL_KEY]
    assert isinstance(vectors, np.ndarray) and vectors.tolist() == [[0.0, 0.0]]


def test_vectors() -> None:
    assert read(Vector(size=2), pa.array([[1.0, 2.0], None, [3.0, 4.0]])).tolist() == [
        [1, 2],
        [0, 0],
        [3, 4],
    ]


def test_coordinates_with_one_number_are_missing() -> None:
    feature = Coordinates(latitude="lat", longitude="lon")
    column = feature.read(
        "x", {"lat": pa.array([31.0, None]), "lon": pa.array([121.0, 121.0])}, 2, WHERE
    )
    assert isinstance(column, np.ndarray)
    assert column[0].tolist() == [31.0, 121.0]
    assert np.isnan(column[1]).all()


@pytest.mark.parametrize(
    ("feature", "values", "code", "named"),
    [
        (Numeric(), pa.array([1.0, float("nan")]), None, ["row 101", "nan"]),
        (Numeric(), pa.array([float("inf")]), None, ["row 100", "inf"]),
        (Numeric(), pa.array(["a"]), "wrong_column_type", ["a number", "string"]),
        (Categorical(), pa.array([0.0, float("nan")]), None, ["row 101", "nan"]),
        (Categorical(), pa.array([["a"]]), "wrong_column_type", ["a string", "list"]),
        (TAGS, pa.array(["a"]), "wrong_column_type", ["a list", "found string"]),
        (TAGS, pa.array([[1.0], [2.0, float("nan")]]), None, ["row 101", "nan"]),
        (Vector(size=2), pa.array([[1.0, 2.0], [1.0]]), None, ["row 101", 2, "found 1"]),
        (Vector(size=2), pa.array([None, [1.0, float("nan")]]), None, ["row 101", 2, "[1.0, n"]),
        (Vector(size=2), pa.array([[1.0, None]]), None, ["row 100", 2, "[1.0, None]"]),
    ],
)
def test_refusals_name_file_row_and_column(
    feature: Any, values: pa.Array, code: str | None, named: list[object]
) -> None:
    with raises(DataError, "logs/items.parquet: ", *named, code=code, field="x"):
        read(feature, values)


def test_a_latitude_beyond_the_pole_is_refused() -> None:
    feature = Coordinates(latitude="lat", longitude="lon")
    with raises(DataError, "row 100", -90, 90, 121.5, field="lat"):
        feature.read("x", {"lat": pa.array([121.5]), "lon": pa.array([31.0])}, 1, WHERE)


@given(
    lists=st.lists(st.lists(st.integers(1, 2**63), max_size=4), max_size=8),
    seed=st.integers(0, 99),
)
def test_jagged_columns_survive_take_concatenate_and_arrow(
    lists: list[list[int]], seed: int
) -> None:
    column = JaggedArray.from_lists(lists, np.uint64)
    rows = np.random.default_rng(seed).integers(0, max(len(lists), 1), 5 if lists else 0)
    selected = take(column, rows)
    back = from_arrow(as_arrow(concatenate([selected, column])))
    assert isinstance(back, JaggedArray)
    expected = JaggedArray.from_lists([lists[i] for i in rows] + lists, np.uint64)
    assert back.values.tolist() == expected.values.tolist()
    assert back.offsets.tolist() == expected.offsets.tolist()


def test_different_rows_have_different_hashes() -> None:
    jagged = JaggedArray.from_lists([[1, 2], [2, 1], [], [1, 2]], np.uint64)
    hashes = row_hashes(jagged).tolist()
    assert hashes[0] == hashes[3]  # [1, 2]
    assert len({*hashes}) == 3  # [2, 1] and [] differ from it
    assert row_hashes(np.array([0.0, -0.0, 1.0]))[0] == row_hashes(np.array([-0.0]))[0]
