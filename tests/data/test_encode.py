"""Encoders by hand: every kind of feature, saved and loaded, and the same for a chunk and for one
row.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from hemix.data.encode import Encoders
from hemix.data.keys import KeyMap, keys_of
from hemix.data.levels import level_spec
from hemix.data.spec import MISSING, TIMELESS_MS, UNKNOWN, Task
from hemix.errors import DataError, SchemaError
from hemix.features.coordinates import CoordinateScales
from hemix.features.distance import haversine_km
from hemix.features.scaling import Scale
from hemix.schema import Schema
from tests.data.small import at
from tests.refusals import raises

SCHEMA = Schema.parse("""
name: all-kinds
clock: {timezone: Asia/Shanghai}
tables: {items: items.parquet}
features:
  context:
    hour: {type: clock, part: hour}
    weekday: {type: clock, part: weekday}
    place: {type: coordinates, latitude: lat, longitude: lon}
  item:
    item_id: {type: categorical, hash: {rows: 1000}}
    category: {type: categorical, table: words}
    tags: {type: categorical, multi: true, max_values: 2, table: words}
    price: {type: numeric, column: yuan}
    rating: {type: numeric, encoding: standardise}
    image: {type: vector, size: 2}
    place: {type: coordinates, latitude: lat, longitude: lon}
  cross:
    distance: {type: distance, between: [context.place, item.place]}
history:
  fields: {hour: {type: clock, part: hour_of_week}}
labels: {click: {}, order: {given: click}}
roles: {negative_sampling_rate: 0.1, bias: {column: position, max: 20}}
split: {valid: 1, test: 2}
""")


def vocabulary(*words: str) -> KeyMap:
    keys = keys_of(pa.array(list(words)))
    order = np.argsort(keys)
    return KeyMap(keys[order], np.arange(2, 2 + len(words), dtype=np.int32)[order])


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    users = vocabulary("ann", "bob")
    return Encoders(
        schema=SCHEMA,
        vocabularies={
            "words": vocabulary("noodles", "spicy"),
            "event.action": vocabulary("click", "impression"),
        },
        states={
            ("edges", "item.price"): np.array([10.0, 20.0]),
            ("edges", "cross.distance"): np.array([1.0]),
            ("scales", "item.rating"): Scale(4.0, 0.5),
            ("place",): CoordinateScales(Scale(31.0, 0.1), Scale(121.0, 0.2)),
        },
        users=KeyMap(users.keys, users.numbers - 2),
        items=KeyMap(np.zeros(0, np.uint64), np.zeros(0, np.int32)),
    )


ITEMS = {
    "item_id": pa.array([7, None, 8]),
    "category": pa.array(["spicy", "never seen", None]),
    "tags": pa.array([["noodles", "new", "spicy"], [], None]),
    "yuan": pa.array([9.99, 10.0, None]),
    "rating": pa.array([5.0, 4.0, None]),
    "image": pa.array([[1.0, 2.0], None, [3.0, 4.0]]),
    "lat": pa.array([31.1, None, 31.0]),
    "lon": pa.array([121.2, 121.0, 121.0]),
}


def test_every_kind_of_item_feature(encoders: Encoders) -> None:
    block = encoders.encode("item", ITEMS, 3)
    hashed = [2 + xxhash.xxh64_intdigest(text) % 1000 for text in (b"7", b"8")]
    assert block.ids[:, 0].tolist() == [hashed[0], MISSING, hashed[1]]
    assert block.ids[:, 1].tolist() == [3, UNKNOWN, MISSING]
    assert block.ids[:, 2].tolist() == [2, 3, MISSING]  # below 10; from 10 on
    (tags,) = block.jagged
    assert tags.values.tolist() == [2, UNKNOWN, MISSING]
    assert tags.offsets.tolist() == [0, 2, 2, 3]
    np.testing.assert_allclose(
        block.numbers,
        [  # rating, missing | image | latitude, longitude, missing
            [2, 0, 1, 2, 1, 1, 0],
            [0, 0, 0, 0, 0, 0, 1],
            [0, 1, 3, 4, 0, 0, 0],
        ],
        atol=1e-5,
    )
    assert block.ids.dtype == np.int32 and block.numbers.dtype == np.float32


def test_json_rows_get_the_ids_of_parquet_rows(encoders: Encoders) -> None:
    from_json = {
        "item_id": pa.array(["7"]),
        "category": pa.array(["spicy"]),
        "yuan": pa.array([9]),
        "rating": pa.array([5]),
    }
    one = encoders.encode("item", from_json, 1)
    assert one.ids.tolist() == encoders.encode("item", ITEMS, 3).ids[:1].tolist()
    assert one.jagged[0].values.tolist() == [MISSING]  # a column that is not there


def test_clock_parts_are_local(encoders: Encoders) -> None:
    # 2026-01-05 20:00 UTC is Tuesday 04:00 in Shanghai
    block = encoders.encode("context", {}, 1, time_ms=np.array([at(0, 20)]))
    assert block.ids.tolist() == [[2 + 4, 2 + 1]]
    assert block.numbers.tolist() == [[0, 0, 1]]


def test_event_fields(encoders: Encoders) -> None:
    times = np.array([at(0, 20), TIMELESS_MS])
    block = encoders.encode(
        "event", {"action": pa.array(["impression", "swipe"])}, 2, time_ms=times
    )
    assert block.ids.tolist() == [[3, 2 + 24 + 4], [UNKNOWN, MISSING]]


def test_distance(encoders: Encoders) -> None:
    here = np.array([[31.0, 121.0]] * 3)
    there = np.array([[31.0, 121.0], [31.1, 121.0], [np.nan, np.nan]])
    block = encoders.encode(
        "cross", {}, 3, coordinates={"context.place": here, "item.place": there}
    )
    assert block.ids[:, 0].tolist() == [2, 3, MISSING]  # 0 km, 11 km
    assert encoders.encode("cross", {}, 2, coordinates={"context.place": here[:2]}).ids[
        :, 0
    ].tolist() == [MISSING, MISSING]


def test_great_circle_distances() -> None:
    quarter = haversine_km(np.array([0.0, 0.0]), np.array([[0.0, 90.0], [90.0, 0.0]]))
    np.testing.assert_allclose(quarter, 6371.0088 * math.pi / 2)
    # Shanghai to Beijing, about 1067 km
    assert haversine_km(np.array([[31.23, 121.47]]), np.array([[39.90, 116.41]]))[
        0
    ] == pytest.approx(1067, abs=3)


def test_numbers_of_users(encoders: Encoders) -> None:
    assert encoders.users.look_up(
        keys_of(pa.array(["bob", "carol", "ann", None])), -1
    ).tolist() == [1, -1, 0, -1]
    assert encoders.items.look_up(keys_of(pa.array([1, 2])), -1).tolist() == [-1, -1]


def test_the_spec(encoders: Encoders) -> None:
    spec = encoders.spec()
    assert spec.tables == {
        "context.hour": 26,
        "context.weekday": 9,
        "item.item_id": 1002,
        "words": 4,
        "item.price": 5,
        "cross.distance": 4,
        "event.action": 4,
        "event.hour": 170,
    }
    assert spec.item.names == ("item_id", "category", "price")
    assert spec.item.tables == ("item.item_id", "words", "item.price")
    assert (spec.item.jagged_names, spec.item.jagged_tables) == (("tags",), ("words",))
    assert spec.item.number_names == (
        "rating",
        "rating.missing",
        "image.0",
        "image.1",
        "place.latitude",
        "place.longitude",
        "place.missing",
    )
    assert spec.event.names == ("action", "hour")
    assert spec.event_item_columns == (0, 1, 2)
    assert spec.bias_rows == 21
    assert spec.tasks == (Task(name="click"), Task(name="order", given=0))
    assert spec.logit_shift == (
        math.log(0.1),
        0.0,
    )  # the order is conditional on the click, whose negatives were sampled


def test_saved_and_loaded(encoders: Encoders, tmp_path: Path) -> None:
    encoders.save(tmp_path / "encoders")
    loaded = Encoders.load(tmp_path / "encoders")
    assert loaded.spec() == encoders.spec()
    before, after = encoders.encode("item", ITEMS, 3), loaded.encode("item", ITEMS, 3)
    assert (before.ids == after.ids).all() and (before.numbers == after.numbers).all()
    assert loaded.users.look_up(keys_of(pa.array(["bob"])), -1).tolist() == [1]


def test_damaged_folders_are_refused(encoders: Encoders, tmp_path: Path) -> None:
    path = tmp_path / "encoders.json"
    with raises(DataError, code="missing_file", field=path):
        Encoders.load(tmp_path)
    encoders.save(tmp_path)
    other = SCHEMA.to_yaml().replace("size: 2", "size: 3")
    (tmp_path / "schema.yaml").write_text(other)
    with raises(SchemaError, code="other_schema", field=path):
        Encoders.load(tmp_path)


def test_encoding_imports_neither_torch_nor_pandas_nor_polars() -> None:
    code = (
        "import sys, hemix.data.encode; print([m for m in ('torch', 'pandas', 'polars') if m in "
        "sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


@pytest.mark.parametrize("value", [1e299, -1e299, 1.7e308, 1e6])
def test_numbers_far_out_are_cut_and_stay_finite(encoders: Encoders, value: float) -> None:
    vectors = pa.array([[max(-1e38, min(value, 1e38)), 1.0], None, None])
    block = encoders.encode(
        "item", {**ITEMS, "rating": pa.array([value, 5.0, None]), "image": vectors}, 3
    )
    names = level_spec(SCHEMA, "item").number_names
    sign = math.copysign(1, value)
    assert block.numbers[:, names.index("rating")].tolist() == [sign * 1e4, 2.0, 0.0]
    assert block.numbers[0, names.index("image.0")] == sign * 1e6
    assert np.isfinite(block.numbers).all()


def test_a_scale_clips_only_values_that_no_learned_row_can_have() -> None:
    values = np.zeros(100_000)
    values[0] = 1e12  # the farthest that one of so many rows can lie out
    scale = Scale(float(values.mean()), float(values.std()))
    assert scale.apply(values)[0] == np.float32((values[0] - scale.mean) / scale.std) < 1e4
