"""Which rows are equal: by the values of all columns, whatever other files of the folder have."""

from __future__ import annotations

import datetime
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.keys import keys_of
from hemix.data.raw_columns import Where
from hemix.preparation import prepare
from hemix.preparation.chunks import Chunk
from hemix.preparation.duplicates import chunk_hashes, column_hashes, occurrence_numbers
from tests.data.small import PLAIN, Prepared, at, shown, write

FOLDER = PLAIN + "tables: {impressions: days}\n"
LATER = [("u", "i", at(1), 0), ("u", "i", at(2), 0)]


def of_files(
    folder: Path, schema: str = FOLDER, table: str = "days", **files: pa.Table
) -> Prepared:
    """Prepare a folder of files by their names."""
    logs = write(folder / "logs", schema)
    (logs / table).mkdir()
    for name, content in files.items():
        pq.write_table(content, logs / table / f"{name}.parquet")
    return Prepared(folder / "data", prepare(logs, folder / "data", partitions=1))


def twice(**columns: Any) -> pa.Table:
    """An impression of each split, two times, and further columns of six values."""
    rows = [row for row in [("u", "i", at(0), 1), *LATER] for _ in range(2)]
    return pa.table({**shown(rows), **columns})


@pytest.mark.parametrize(
    "tells_apart",
    [
        pa.array(range(6)),
        pa.array([0.5, 1, 2, 3, 4, 5], pa.float32()),
        pa.array([f"x{n}" for n in range(6)]).dictionary_encode(),
        pa.array([bytes([200, n]) for n in range(6)], pa.binary()),
        pa.array([bytes([200, n]) for n in range(6)], pa.binary(2)),
        pa.array([bytes([200, n]) for n in range(6)], pa.large_binary()),
        pa.array([Decimal(n) / 4 for n in range(6)], pa.decimal128(9, 2)),
        pa.array(range(6), pa.duration("ns")),
        pa.array(range(6), pa.time64("ns")),
        pa.array(range(6), pa.timestamp("ns", tz="Asia/Tokyo")),
        pa.array(np.arange(6, dtype=np.float16)),
        pa.array([{"a": n, "b": None} for n in range(6)]),
        pa.array([[{"a": [n]}] for n in range(6)]),
        pa.array([[("k", n)] for n in range(6)], pa.map_(pa.string(), pa.int64())),
        pa.array([[1, n] for n in range(6)], pa.list_(pa.int64(), 2)),
        pa.array([[], [1], None, [1, 1], [2], [None]], pa.large_list(pa.int64())),
        pa.array([bytes([n] * 16) for n in range(6)], pa.binary(16)).cast(pa.uuid()),
        pa.array([str(n) for n in range(6)], pa.json_()),
    ],
    ids=lambda values: str(values.type),
)
def test_unnamed_columns_of_any_type_make_rows_different(
    tmp_path: Path, tells_apart: pa.Array
) -> None:
    alike = tells_apart.take(pa.array([0, 0, 2, 3, 4, 5]))
    for name, column, duplicates in (("apart", tells_apart, 0), ("alike", alike, 1)):
        (tmp_path / name).mkdir()
        one = of_files(
            tmp_path / name, a=twice(other=column), b=pa.table(shown([("v", "i", at(0), 0)]))
        )
        assert one.manifest["impressions"]["duplicates"] == duplicates
        assert one.manifest["tables"]["impressions"]["rows"] == 7


def test_text_that_is_not_utf8_is_allowed_in_unused_columns(tmp_path: Path) -> None:
    raw = pa.array([b"\xe9", b"\xe9", b"\xea", b"", b"x", b"y"])
    text = pa.Array.from_buffers(pa.string(), 6, raw.buffers())
    nested = pa.StructArray.from_arrays([text], ["t"])
    assert (
        of_files(tmp_path, a=twice(text=text, nested=nested)).manifest["impressions"]["duplicates"]
        == 1
    )


def test_a_file_without_the_column_changes_nothing_of_the_others_rows(tmp_path: Path) -> None:
    older = pa.table(
        shown([("u", "i", at(0, 3), 0), ("u", "i", at(0, 3), 0)])
    )  # equal in every column that they have
    data = of_files(tmp_path, a=twice(imp_id=[f"x{n}" for n in range(6)]), b=older)
    assert data.manifest["impressions"]["duplicates"] == 1
    assert {name: split["rows"] for name, split in data.manifest["splits"].items()} == {
        "train": 3,
        "valid": 2,
        "test": 2,
    }


def test_a_missing_column_of_a_file_counts_as_null(tmp_path: Path) -> None:
    rows = [("u", "i", at(0), 1), *LATER]
    with_page = pa.table({**shown(rows), "page": [None, "p", None]})
    data = of_files(tmp_path, a=with_page, b=pa.table(shown(rows)))
    assert data.manifest["impressions"]["duplicates"] == 2  # all but the row that has a page


def test_equal_rows_of_files_whose_columns_differ_in_order_and_types(tmp_path: Path) -> None:
    rows = [(1, "i", at(0), 1, True, 2), (1, "i", at(1), 0, False, 3), (1, "i", at(2), 0, True, 4)]
    one = pa.table(shown(rows, "flag", "page"))
    other = one.select(["page", "flag", "click", "time_ms", "item_id", "user_id"])
    kinds: dict[str, pa.DataType] = {
        "user_id": pa.string(),
        "page": pa.decimal128(25, 2),
        "flag": pa.int8(),
        "click": pa.bool_(),
    }
    for name, kind in kinds.items():
        other = other.set_column(other.column_names.index(name), name, other[name].cast(kind))
    moments = other["time_ms"].cast(pa.timestamp("ms")).cast(pa.timestamp("us", tz="Europe/Berlin"))
    other = other.set_column(other.column_names.index("time_ms"), "time_ms", moments)
    data = of_files(tmp_path, a=one, b=other)
    assert data.manifest["impressions"]["duplicates"] == 3
    assert data.users() == ["1"]


def test_events_of_several_files_are_equal_to_one_file(tmp_path: Path) -> None:
    schema = PLAIN + "tables: {events: event_log}\n"
    logs = write(tmp_path / "logs", schema, impressions=shown([("u", "i", at(0), 1), *LATER]))
    (logs / "event_log").mkdir()
    event = {
        "user_id": ["u"] * 3,
        "item_id": ["i"] * 3,
        "time_ms": [at(0)] * 3,
        "action": ["view"] * 3,
    }
    pq.write_table(pa.table({**event, "seq": [0, 1, 1]}), logs / "event_log" / "a.parquet")
    pq.write_table(
        pa.table({name: values[:2] for name, values in event.items()}),
        logs / "event_log" / "b.parquet",
    )
    history = prepare(logs, tmp_path / "data")["history"]
    assert (history["events"], history["duplicates"]) == (3, 2)


def test_many_duplicates_log_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("u", f"i{n}", at(0, n % 20), 1) for n in range(40)] + LATER
    for name, repeated in (("few", 2), ("many", 3)):
        (tmp_path / name).mkdir()
        with caplog.at_level(logging.WARNING):
            of_files(tmp_path / name, a=pa.table(shown(rows + rows[:repeated])))
        assert len(caplog.records) == (name == "many")  # 2 of 44 are 4.5 %, 3 of 45 are 6.7 %
    assert "3 of 45 rows (7 %)" in caplog.text and "days" in caplog.text


def test_hashes_depend_on_column_names_and_ignore_nulls() -> None:
    a, b = pa.array([1, 2, None]), pa.array(["x", None, None])
    assert (
        column_hashes({"a": a, "b": b}, 3).tolist() == column_hashes({"b": b, "a": a}, 3).tolist()
    )
    assert column_hashes({"a": a, "b": b}, 3)[1] == column_hashes({"a": a}, 3)[1]
    assert column_hashes({"a": a}, 3)[0] != column_hashes({"b": a}, 3)[0]
    assert column_hashes({"a": a, "b": b}, 3)[2] == column_hashes({}, 3)[2]


@pytest.mark.parametrize("values", [["x", "y", "x"], [1, 2, 1], [b"x", b"y", b"x"]])
@pytest.mark.parametrize("families", [{}, {"a": {"text", "number"}}])
def test_hashes_are_the_same_where_keys_are_known(values: list[Any], families: Any) -> None:
    columns = {"a": pa.array(values), "b": pa.array(["p", None, "p"])}
    chunk = Chunk(columns, np.arange(3), Where("file", 0), families)
    known = chunk_hashes(chunk, {}, {"a": keys_of(columns["a"])})
    assert known.tolist() == chunk_hashes(chunk, {}).tolist()
    assert known[0] == known[2] != known[1]


def test_different_rows_of_a_key_are_numbered_as_they_first_appear() -> None:
    keys = np.array([7, 3, 7, 7, 3, 7], np.uint64)
    rows = np.array([9, 1, 5, 9, 1, 6], np.uint64)
    assert occurrence_numbers(keys, rows).tolist() == [0, 0, 1, 0, 0, 2]
    assert occurrence_numbers(keys[:0], rows[:0]).tolist() == []


def test_a_moment_may_be_a_date_too(tmp_path: Path) -> None:
    days = pa.array([datetime.date(2026, 1, 5 + n) for n in range(3)])
    one = pa.table({**shown([("u", "i", at(0), 1), *LATER]), "day": days})
    other = one.set_column(4, "day", pa.array([str(day) for day in days.to_pylist()]))
    assert of_files(tmp_path, a=one, b=other).manifest["impressions"]["duplicates"] == 3
