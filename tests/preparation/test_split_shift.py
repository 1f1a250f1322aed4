"""Rolling origins: which days a moved split holds, and what cannot be moved."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from hemix.errors import DataError, SchemaError, UsageError
from hemix.preparation import prepare, shift_split
from tests.data.small import at, shown, write
from tests.refusals import raises

FIVE_DAYS = shown(
    [("u", "i", at(day, hour), (day + hour) % 2) for day in range(5) for hour in (1, 23)]
)
BY_CLOCK = "name: s\nlabels: {click: {}}\nsplit: {valid: 2026-01-08, test: 2026-01-09}"


def logs(folder: Path, schema: str = BY_CLOCK, **columns: list[object]) -> Path:
    return write(folder / "logs", schema, impressions={**FIVE_DAYS, **columns})


def test_a_split_by_the_clock(tmp_path: Path) -> None:
    """Monday 5 to Friday 9: test is Friday; a day earlier it is Thursday, and ends with it."""
    folder = logs(tmp_path)
    schema = shift_split(folder, -1)
    assert schema.split.model_dump() == {
        "column": None,
        "start": None,
        "valid": "2026-01-07",
        "test": "2026-01-08",
        "end": "2026-01-09",
    }
    rows = {
        name: split["rows"]
        for name, split in prepare(folder, tmp_path / "moved", schema=schema)["splits"].items()
    }
    assert rows == {"train": 4, "valid": 2, "test": 2}
    whole = {
        name: split["rows"] for name, split in prepare(folder, tmp_path / "whole")["splits"].items()
    }
    assert whole == {"train": 6, "valid": 2, "test": 2}


def test_a_split_by_compact_days(tmp_path: Path) -> None:
    """20260301 less two days is 20260227: the calendar's days, not the number's."""
    days = [20260227, 20260228, 20260301, 20260302, 20260303]
    folder = logs(
        tmp_path,
        "name: s\nlabels: {click: {}}\nsplit: {column: date, valid: 20260301, test: 20260302}",
        date=[day for day in days for _ in range(2)],
    )
    split = shift_split(folder, -2).split
    assert (split.valid, split.test, split.end) == (20260227, 20260228, 20260302)


def test_a_date_column_and_a_given_end(tmp_path: Path) -> None:
    days = [f"2026-01-0{5 + day}" for day in range(5) for _ in range(2)]
    folder = logs(
        tmp_path,
        "name: s\nlabels: {click: {}}\nsplit: {column: day, start: 2026-01-05, valid: 2026-01-07, "
        "test: 2026-01-08, end: 2026-01-09}",
        day=days,
    )
    split = shift_split(folder, -1).split
    assert (split.start, split.valid, split.test, split.end) == (
        "2026-01-04",
        "2026-01-06",
        "2026-01-07",
        "2026-01-08",
    )


def test_a_time_keeps_its_hour_and_a_number_its_local_hour(tmp_path: Path) -> None:
    folder = logs(
        tmp_path,
        BY_CLOCK.replace("2026-01-08,", "2026-01-08 06:00,").replace(
            "2026-01-09}", "2026-01-09 06:00}"
        ),
    )
    assert shift_split(folder, -1).split.valid == "2026-01-07 06:00:00"
    numbers = f"name: s\nlabels: {{click: {{}}}}\nsplit: {{valid: {at(3)}, test: {at(4)}}}"
    (folder / "schema.yaml").write_text(numbers)
    split = shift_split(folder, -1).split
    assert (split.valid, split.test, split.end) == (at(2), at(3), at(4))


def test_only_a_split_by_time_can_be_shifted(tmp_path: Path) -> None:
    fold = "name: s\nlabels: {click: {}}\nsplit: {column: fold, valid: 3, test: 4}"
    folder = logs(tmp_path, fold, fold=[day for day in range(5) for _ in range(2)])
    with raises(SchemaError, 3, "'fold'", field="split.valid"):
        shift_split(folder, -1)
    with raises(UsageError, 2, field="--shift-days"):
        shift_split(folder, 2)


def test_timestamps(tmp_path: Path) -> None:
    times = pa.array(
        [at(day, hour) for day in range(5) for hour in (1, 23)], pa.timestamp("ms", "UTC")
    )
    folder = logs(tmp_path, time_ms=times)  # type: ignore[arg-type]
    assert shift_split(folder, -1).split.end == "2026-01-09"


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.string()])
def test_a_log_that_ends_at_the_last_date_needs_an_end(tmp_path: Path, kind: pa.DataType) -> None:
    """9999-12-31 for "for ever": the day after it is no date."""
    days = pa.array(["2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08", "9999-12-31"] * 2)
    schema = (
        "name: s\nlabels: {click: {}}\nsplit: {column: day, valid: 2026-01-07, test: 2026-01-08}"
    )
    with raises(DataError, "'day'", field="split.end"):
        shift_split(logs(tmp_path, schema, day=days.cast(kind)), -1)


def test_tables_of_a_catalog_are_refused(tmp_path: Path) -> None:
    folder = logs(tmp_path, BY_CLOCK + "\ntables: {impressions: 'spark://lake.shown'}")
    with raises(SchemaError, "--shift-days", field="tables.impressions"):
        shift_split(folder, -1)
