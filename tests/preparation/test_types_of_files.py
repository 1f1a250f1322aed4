"""Files of one folder whose column types differ: a value means the same in all of them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import DataError
from hemix.preparation import prepare, shift_split
from tests.data.small import PLAIN, Prepared, at, shown, write
from tests.preparation.test_inputs import arrays
from tests.refusals import raises

SCHEMA = """
name: typed
tables: {impressions: days, items: items}
clock: {column: when, unit: s}
labels: {click: {}, order: {given: click, available_at: known}}
roles: {request_id: request, weight: weight, bias: {column: position, max: 5}}
features:
  item: {item_id: {type: categorical, vocabulary: {min_count: 1}}, price: {type: numeric,
    encoding: standardise},
         vector: {type: vector, size: 2}, tags: {type: categorical, multi: true,
           vocabulary: {min_count: 1}}}
  context: {city: {type: categorical, vocabulary: {min_count: 1}}, age: {type: numeric, buckets: 3}}
history: {fields: {age: {type: numeric, buckets: 3}}}
split: {valid: 2026-01-06, test: 2026-01-07}
"""
ROWS = 12


def impressions(day: int) -> pa.Table:
    numbers = range(day * ROWS, (day + 1) * ROWS)
    when = [at(day, n % ROWS) // 1000 for n in numbers]
    return pa.table(
        {
            "user_id": [n % 4 for n in numbers],
            "item_id": [n % 5 for n in numbers],
            "when": when,
            "click": [n % 2 for n in numbers],
            "order": [n % 3 % 2 for n in numbers],
            "known": [t + 60 for t in when],
            "request": list(numbers),
            "weight": [1 + n % 2 for n in numbers],
            "position": [n % 6 for n in numbers],
            "city": [n % 3 for n in numbers],
            "age": [20 + n % 5 for n in numbers],
        }
    )


def items(first: int, last: int) -> pa.Table:
    at = range(first, last)
    columns = {
        "item_id": list(at),
        "price": [n / 2 for n in at],
        "vector": [[n, n / 4] for n in at],
        "tags": [[n % 2, 7] for n in at],
    }
    return pa.table(columns)


def retyped(
    table: pa.Table, **kinds: pa.DataType | Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> pa.Table:
    for name, kind in kinds.items():
        values = table[name].cast(kind) if isinstance(kind, pa.DataType) else kind(table[name])
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def moments(kind: pa.TimestampType) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    return lambda seconds: seconds.cast(pa.timestamp("s")).cast(kind)


def made(folder: Path, days: list[pa.Table], parts: list[pa.Table]) -> dict[str, str]:
    logs = write(folder / "logs", SCHEMA)
    for table, tables in (("days", days), ("items", parts)):
        (logs / table).mkdir()
        for n, content in enumerate(tables):
            pq.write_table(content, logs / table / f"{n}.parquet")
    prepare(logs, folder / "data")
    return {  # raw ids are numbers or text, which manifests of partitions tell too
        name: value
        for name, value in arrays(folder / "data").items()
        if not name.endswith(("ids.parquet", "items.parquet", "manifest.json"))
    }


def test_all_types_at_once(tmp_path: Path) -> None:
    """Every role in three types, one a file, gives the arrays of one type in all files."""
    days, parts = [impressions(day) for day in range(3)], [items(0, 3), items(3, 5)]
    (tmp_path / "one").mkdir(), (tmp_path / "other").mkdir()
    whole = made(tmp_path / "one", days, parts)
    days[1] = retyped(
        days[1],
        user_id=pa.string(),
        item_id=pa.decimal128(25, 3),
        when=moments(pa.timestamp("ns")),
        click=pa.bool_(),
        order=pa.float32(),
        known=pa.float64(),
        request=pa.large_string(),
        weight=pa.float16(),
        position=pa.uint64(),
        city=pa.float32(),
        age=pa.decimal128(25, 2),
    )
    days[2] = retyped(
        days[2].select(list(reversed(days[2].column_names))),
        user_id=pa.float64(),
        item_id=lambda v: v.cast(pa.string()).dictionary_encode(),
        click=pa.int8(),
        order=pa.decimal256(40, 1),
        when=moments(pa.timestamp("ms", "Europe/Berlin")),
        known=moments(pa.timestamp("us", "UTC")),
        request=pa.uint64(),
        weight=pa.decimal128(25, 1),
        position=pa.float32(),
        city=pa.string_view(),
        age=pa.float32(),
    ).append_column("served", pa.array(["x"] * ROWS))
    parts[1] = retyped(
        parts[1],
        item_id=pa.string(),
        price=pa.float32(),
        vector=pa.list_(pa.float32(), 2),
        tags=pa.large_list(pa.large_string()),
    )
    assert made(tmp_path / "other", days, parts) == whole


def test_a_file_without_rows_may_have_any_columns(tmp_path: Path) -> None:
    """As pandas writes a day on which nothing happened."""
    logs = write(tmp_path / "logs", PLAIN + "tables: {impressions: days}\n")
    (logs / "days").mkdir()
    rows = shown([("u", "i", at(n), n % 2) for n in range(3)])
    for name, table in (
        ("a", pa.table({name: pa.nulls(0) for name in rows})),
        ("b", pa.table(rows)),
        ("c", pa.table({"click": pa.array([], pa.string())})),
        ("d", pa.table({**shown([("v", "i", at(2), 1)]), "click": pa.nulls(1)})),
    ):
        pq.write_table(table, logs / "days" / f"{name}.parquet")
    manifest = prepare(logs, tmp_path / "data")
    assert [split["rows"] for split in manifest["splits"].values()] == [1, 1, 2]
    assert manifest["splits"]["test"]["unknown"]["click"] == 1


@pytest.mark.parametrize(
    ("kind", "described"),
    [
        (pa.uint64(), [2**63 + 5, 2**63 + 6, 7]),
        (pa.int64(), [2**62 + 1, -3, 7]),
        (pa.decimal128(38, 0), [Decimal(10**30), Decimal(5), Decimal(7)]),
    ],
)
def test_large_ids_are_exact(tmp_path: Path, kind: pa.DataType, described: list[Any]) -> None:
    logs = write(
        tmp_path / "logs",
        impressions={
            **shown([("u", "i", at(n), 0) for n in range(3)]),
            "user_id": pa.array(described, kind),
        },
    )
    data = Prepared(tmp_path / "data", prepare(logs, tmp_path / "data", partitions=1))
    assert data.users() == (
        described if pa.types.is_int64(kind) else [str(value) for value in described]
    )


@pytest.mark.parametrize(
    ("boundaries", "values"),
    [
        (
            "valid: 2026-01-06, test: 2026-01-07",
            [pa.array([20458], pa.date32()), pa.array(["2026-01-06"]), pa.array(["2026-01-07"])],
        ),
        (
            "valid: 2026-01-06, test: 2026-01-07",
            [
                pa.array([at(0, 5)], pa.timestamp("ms")),
                pa.array(["2026-01-06"]),
                pa.array([at(2) * 1000], pa.timestamp("us")),
            ],
        ),
        (
            "valid: 2026-01-06, test: 2026-01-07",
            [
                pa.array([at(0, 5)], pa.timestamp("ms", "UTC")),
                pa.array(["2026-01-06"]),
                pa.array(["2026-01-07"]),
            ],
        ),
        (
            "valid: 20260106, test: 20260107",
            [pa.array([20260105]), pa.array(["20260106"]), pa.array([20260107], pa.int32())],
        ),
        (
            "valid: '20260106', test: '20260107'",
            [pa.array([20260105]), pa.array(["20260106"]), pa.array([20260107], pa.uint32())],
        ),
        ("valid: 1.5, test: 2.5", [pa.array([1]), pa.array([2.0]), pa.array([3.0], pa.float32())]),
    ],
    ids=range(6),
)
def test_a_split_column_of_several_types(
    tmp_path: Path, boundaries: str, values: list[pa.Array]
) -> None:
    logs = write(
        tmp_path / "logs",
        PLAIN.replace("{valid: 2026-01-06, test: 2026-01-07}", f"{{column: dt, {boundaries}}}")
        + "tables: {impressions: days}\n",
    )
    (logs / "days").mkdir()
    for n, value in enumerate(values):
        pq.write_table(
            pa.table({**shown([("u", "i", at(n), 0)]), "dt": value}), logs / "days" / f"{n}.parquet"
        )
    manifest = prepare(logs, tmp_path / "data")
    assert [split["rows"] for split in manifest["splits"].values()] == [1, 1, 1]
    if "2026" in boundaries and not boundaries.startswith("valid: '"):
        assert shift_split(logs, -1).split.valid in ("2026-01-05", 20260105)


def test_a_request_of_two_users_whose_id_is_beyond_all_dates(tmp_path: Path) -> None:
    ids = pa.array([2**62, 2**62, 0, 1], pa.timestamp("ms"))
    rows = shown(
        [("u", "i", at(0), 0), ("v", "i", at(0), 0), ("u", "i", at(1), 0), ("u", "i", at(2), 0)]
    )
    logs = write(
        tmp_path / "logs", PLAIN + "roles: {request_id: r}\n", impressions={**rows, "r": ids}
    )
    with raises(DataError, "row 1", "user_id", field="r"):
        prepare(logs, tmp_path / "data")


def test_a_split_value_that_cannot_be_cast_is_refused(tmp_path: Path) -> None:
    logs = write(
        tmp_path / "logs",
        "name: x\nlabels: {click: {}}\nsplit: {column: dt, valid: 1, test: 2}\ntables: "
        "{impressions: days}\n",
    )
    (logs / "days").mkdir()
    for n, value in enumerate([pa.array([0, 1, 2]), pa.array(["1", "soon", None])]):
        pq.write_table(
            pa.table({**shown([("u", f"i{n}", at(d), 0) for d in range(3)]), "dt": value}),
            logs / "days" / f"{n}.parquet",
        )
    with pytest.raises(DataError) as error:
        prepare(logs, tmp_path / "data")
    assert str(error.value) == (
        f"{logs}/days/1.parquet: row 1: column 'dt': expected int64, as in other files of the "
        "folder, found 'soon' (string)"
    )


def test_list_views_are_lists(tmp_path: Path) -> None:
    for name in ("views", "lists", "both", "one"):
        (tmp_path / name).mkdir()
    whole = items(0, 5)
    views = retyped(
        whole,
        vector=lambda lists: pa.chunked_array(
            [pa.array(lists.to_pylist(), pa.list_view(pa.float32()))]
        ),
        tags=lambda lists: pa.chunked_array(
            [pa.array(lists.to_pylist(), pa.large_list_view(pa.int16()))]
        ),
    )
    days = [impressions(day) for day in range(3)]
    assert made(tmp_path / "views", days, [views]) == made(tmp_path / "lists", days, [whole])
    assert made(tmp_path / "both", days, [views.slice(0, 2), whole.slice(2)]) == made(
        tmp_path / "one", days, [whole]
    )
