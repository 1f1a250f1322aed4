"""Canonical texts, xxh64 keys, and the growing index."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from hemix.data import keys
from hemix.data.keys import NULL_KEY, KeyIndex, keys_of, keys_of_texts, texts_of, xxh64_texts
from hemix.data.texts import is_keyable, text_of


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
        (pa.array([b"raw"], pa.binary_view()), ["raw"]),
        (pa.array(["é"], pa.string_view()), ["é"]),
        (pa.array(["é"], pa.large_string()), ["é"]),
        (pa.array([2**64 - 1, None], pa.uint64()), ["18446744073709551615", None]),
        (pa.array([0.1, 3, 2.5, None, -0.0], pa.float32()), ["0.1", "3", "2.5", None, "0"]),
        (pa.array([np.float16(0.1), np.float16(3), None], pa.float16()), ["0.1", "3", None]),
        (
            pa.array([Decimal("3.00"), Decimal(0), None, Decimal("-7")], pa.decimal128(38, 18)),
            ["3", "0", None, "-7"],
        ),
        (
            pa.array([Decimal("2.50"), Decimal(300), Decimal("0.00001")], pa.decimal128(20, 5)),
            ["2.5", "300", "1e-05"],
        ),
        (
            pa.array([Decimal("0.123456789012345678901")], pa.decimal256(60, 30)),
            ["0.123456789012345678901"],
        ),
        (pa.array([Decimal(300)], pa.decimal128(5, -2)), ["300"]),
        (pa.array([Decimal("3.00"), Decimal("0.1")], pa.decimal32(5, 2)), ["3", "0.1"]),
        (pa.array([datetime.date(2026, 1, 5)], pa.date64()), ["2026-01-05"]),
        (
            pa.array([datetime.time(6, 30), datetime.time(10, 0, 10, 250_000)]),
            ["06:30:00", "10:00:10.25"],
        ),
        (pa.array([6 * 3600], pa.time32("s")), ["06:00:00"]),
        (
            pa.array([1_767_594_600_010, None, -1], pa.timestamp("ms")),
            ["2026-01-05T06:30:00.01Z", None, "1969-12-31T23:59:59.999Z"],
        ),
    ],
)
def test_canonical_texts(values: pa.Array, texts: list[Any]) -> None:
    assert texts_of(values).to_pylist() == texts


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+05:30"])
def test_a_moment_has_one_text_in_every_unit_and_zone(unit: str, zone: str | None) -> None:
    number = 1_767_594_600 * {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[unit]
    assert texts_of(pa.array([number], pa.timestamp(unit, zone))).to_pylist() == [
        "2026-01-05T06:30:00Z"
    ]


@given(
    value=st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    )
)
def test_a_json_value_has_the_text_of_the_same_value_in_a_column(value: Any) -> None:
    assert texts_of(pa.array([value])).to_pylist() == [text_of(value)]


@given(value=st.decimals(-(10**12), 10**12, places=3), more=st.integers(0, 9))
def test_a_decimal_has_the_text_of_the_number_that_json_has_for_it(
    value: Decimal, more: int
) -> None:
    column = pa.array([value], pa.decimal128(38, 3 + more))
    assert texts_of(column).to_pylist() == [text_of(json.loads(str(value)))]


def test_types_that_no_request_can_send_have_no_text() -> None:
    kinds = [
        pa.duration("s"),
        pa.binary(4),
        pa.struct([("a", pa.int64())]),
        pa.list_(pa.int64()),
        pa.map_(pa.string(), pa.int64()),
    ]
    assert not any(is_keyable(kind) for kind in kinds)


def test_one_value_has_one_key_whatever_its_type() -> None:
    forms = [pa.array([41]), pa.array([41.0]), pa.array(["41"]), pa.array([41], pa.uint8())]
    forms += [
        pa.array([41.0]).cast(pa.float16()),
        pa.array([Decimal("41.00")]),
        pa.array([Decimal(41)]).cast(pa.decimal32(4, 1)),
    ]
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
    chunks = [
        cut.add(pa.array(values[i : i + size], pa.int64())) for i in range(0, len(values), size)
    ]
    assert np.concatenate([np.zeros(0, np.int32), *chunks]).tolist() == expected.tolist()
    assert cut.texts().to_pylist() == whole.texts().to_pylist()


def test_add_texts_adds_new_values_only() -> None:
    index, texts = KeyIndex(), pa.array(["b", "a", "c"])
    index.add(pa.array(["a"]))
    assert index.add_texts(keys_of(texts), texts).tolist() == [1, 0, 2]
    assert index.texts().to_pylist() == ["a", "b", "c"]
