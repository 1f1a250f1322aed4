"""Canonical texts, xxh64 keys, and the growing index."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from hemix.data import keys
from hemix.data.keys import NULL_KEY, KeyIndex, keys_of, keys_of_texts, texts_of, xxh64_texts


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array(["a", None, "é"]), ["a", None, "é"]),
        (pa.array([7, -3, None], pa.int16()), ["7", "-3", None]),
        (pa.array([3.0, 2.5, -0.0, None, 1e20]), ["3", "2.5", "0", None, "100000000000000000000"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([datetime.date(2026, 1, 5)]), ["2026-01-05"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.array([b"raw"]), ["raw"]),
    ],
)
def test_canonical_texts(values: pa.Array, texts: list[Any]) -> None:
    assert texts_of(values).to_pylist() == texts


def test_one_value_has_one_key_whatever_its_type() -> None:
    forms = [pa.array([41]), pa.array([41.0]), pa.array(["41"]), pa.array([41], pa.uint8())]
    assert {int(keys_of(form)[0]) for form in forms} == {xxhash.xxh64_intdigest(b"41")}


def test_known_hashes() -> None:
    # xxh64 with seed 0, as published for the empty input and "abc"
    assert xxh64_texts(pa.array(["", "abc"])).tolist() == [0xEF46DB3751D8E999, 0x44BC2CF5AD770999]


def test_null_has_the_null_key() -> None:
    assert keys_of(pa.array(["a", None]))[1] == NULL_KEY
    assert keys_of(pa.nulls(2)).tolist() == [NULL_KEY, NULL_KEY]
    assert keys_of(pa.array([], pa.string())).tolist() == []


@given(texts=st.lists(st.text(max_size=50), max_size=30))
def test_texts_have_the_same_keys_without_arrow(texts: list[str]) -> None:
    assert keys_of_texts(texts).tolist() == keys_of(pa.array(texts, pa.string())).tolist()


@given(texts=st.lists(st.text(max_size=50), min_size=1, max_size=30), skip=st.integers(0, 5))
def test_the_vectorised_hash_is_xxhash(texts: list[str], skip: int) -> None:
    array = pa.array(texts + ["tail"] * 5)[skip:]
    expected = [xxhash.xxh64_intdigest(text.encode()) for text in array.to_pylist()]
    before, keys._FEW = keys._FEW, 0  # every call takes the vectorised road
    try:
        assert xxh64_texts(array).tolist() == expected
    finally:
        keys._FEW = before
    assert xxh64_texts(array).tolist() == expected


def test_the_index_numbers_by_first_appearance() -> None:
    index = KeyIndex()
    assert index.add(pa.array(["b", "a", "b", None, "c"])).tolist() == [0, 1, 0, -1, 2]
    assert index.add(pa.array(["d", "a"])).tolist() == [3, 1]
    assert index.texts().to_pylist() == ["b", "a", "c", "d"]
    assert index.look_up(keys_of(pa.array(["c", "unknown"]))).tolist() == [2, -1]
    assert index.keys().tolist() == keys_of(pa.array(["b", "a", "c", "d"])).tolist()


@given(values=st.lists(st.integers(0, 30), max_size=60), size=st.integers(1, 60))
def test_the_index_does_not_depend_on_the_chunks(values: list[int], size: int) -> None:
    whole, cut = KeyIndex(), KeyIndex()
    expected = whole.add(pa.array(values, pa.int64()))
    pieces = [cut.add(pa.array(values[i : i + size], pa.int64())) for i in range(0, len(values), size)]
    assert np.concatenate([np.zeros(0, np.int32), *pieces]).tolist() == expected.tolist()
    assert cut.texts().to_pylist() == whole.texts().to_pylist()


def test_noting_adds_only_what_is_new() -> None:
    index, values = KeyIndex(), pa.array(["a", None, "b", "a"])
    index.add(pa.array(["a"]))
    index.note(keys_of(values), values)
    assert index.texts().to_pylist() == ["a", "b"]
