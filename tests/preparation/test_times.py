"""Columns of times: units, timestamps, dates, and what is too coarse or no time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hemix.backfill import logged_events
from hemix.data.raw_columns import Where
from hemix.data.spec import TIMELESS_MS
from hemix.errors import DataError
from hemix.preparation.logs import open_logs
from hemix.preparation.times import times_of
from hemix.schema import Clock
from tests.data.small import ONE_EACH, PLAIN, at, prepared, shown, write
from tests.refusals import raises

MONDAY = datetime(2026, 1, 5)
SHANGHAI = Clock(timezone="Asia/Shanghai")


def ms(values: pa.Array, clock: Clock = Clock()) -> list[int]:  # noqa: B008
    result: list[int] = times_of("t", values, clock, Where("FILE")).tolist()
    return result


@pytest.mark.parametrize(("unit", "per_ms"), [("s", 1e-3), ("ms", 1), ("us", 1e3), ("ns", 1e6)])
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(38, 3)])
def test_numbers_in_the_unit_of_the_clock(unit: str, per_ms: float, kind: pa.DataType) -> None:
    clock = Clock.model_validate({"unit": unit})
    number = round(at(0, 1) * per_ms)
    written = (
        Decimal(number)
        if pa.types.is_decimal(kind)
        else float(number)
        if pa.types.is_floating(kind)
        else number
    )
    values = pa.array([written, None], kind)
    assert ms(values, clock) == [at(0, 1), TIMELESS_MS]


def test_fractions_of_a_second() -> None:
    clock = Clock(unit="s")
    assert ms(pa.array([at(0) / 1000 + 0.25]), clock) == [at(0) + 250]
    assert ms(pa.array([Decimal(at(0)) / 1000 + Decimal("0.125")]), clock) == [at(0) + 125]
    assert ms(pa.array([at(0) * 1_000_000 + 999_999]), Clock(unit="ns")) == [at(0)]  # cut off


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Shanghai"])
@pytest.mark.parametrize("clock", [Clock(unit="s"), SHANGHAI])
def test_timestamps_are_in_their_own_unit_and_naive_ones_utc(
    unit: str, zone: str | None, clock: Clock
) -> None:
    values = (
        pa.array([at(0, 6) // 1000, None], pa.int64())
        .cast(pa.timestamp("s"))
        .cast(pa.timestamp(unit))
        .cast(pa.timestamp(unit, zone))
    )
    assert ms(values, clock) == [at(0, 6), TIMELESS_MS]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates_begin_at_local_midnight(kind: pa.DataType) -> None:
    values = pa.array([date(2026, 1, 5), None], kind)
    assert ms(values) == [at(0), TIMELESS_MS]
    assert ms(values, SHANGHAI) == [at(-1, 16), TIMELESS_MS]


@pytest.mark.parametrize(
    ("values", "clock", "words"),
    [
        (pa.array([at(0), at(0) * 10**6]), Clock(), ["row 1", "looks like nanoseconds"]),
        (pa.array([at(0) * 10**6, at(0)]), Clock(unit="ns"), ["row 1", "looks like milliseconds"]),
        (
            pa.array([at(0) // 1000, 2**62]),
            Clock(unit="s"),
            ["row 1", "beyond all dates"],
        ),  # as ms it would overflow
        (pa.array([at(0), 2**64 - 1], pa.uint64()), Clock(), ["row 1"]),
        (pa.array([float(at(0)), 1e300]), Clock(), ["row 1", "beyond all dates"]),
        (pa.array([date(2026, 1, 5), date(1970, 1, 1)]), Clock(), ["row 1", "1970-01-01"]),
        (pa.array([MONDAY, datetime(1970, 1, 21)]), Clock(), ["row 1", "would be 1970-01-21"]),
    ],
)
def test_times_outside_1990_to_2100(values: pa.Array, clock: Clock, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        ms(values, clock)
    assert all(word in str(error.value) for word in words) and "'t'" in str(error.value)


TABLES = PLAIN + "tables: {events: events.parquet, items: items.parquet}\nvalid_from: since\n"
LABEL = TABLES.replace("click: {}", "click: {available_at: known}")


def tables(**changed: Any) -> dict[str, Any]:
    """Tables in which one column of times is replaced: clock, known, event or since."""
    shown_at = changed.get("clock", ONE_EACH["time_ms"])
    impressions = ONE_EACH | {
        "time_ms": shown_at,
        "known": changed.get("known", pa.nulls(3, pa.int64())),
    }
    events = {
        "user_id": ["u"] * 3,
        "item_id": ["i"] * 3,
        "time_ms": changed.get("event", [at(0)] * 3),
    }
    items = {"item_id": ["i"] * 3, "since": changed.get("since", [at(-3), at(-2), at(-1)])}
    return {"impressions": impressions, "events": events, "items": items}


@pytest.mark.parametrize(
    ("column", "key"),
    [
        ("clock", "clock.column"),
        ("known", "labels.click.available_at"),
        ("event", "clock.column"),
        ("since", "valid_from"),
    ],
)
@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: pa.array(["2026-01-05 10:00:00"] * 3), "cast the text"),
        (lambda: pa.array([1.7e9] * 3, pa.float32()), "32-bit float"),
        (lambda: pa.array([True] * 3), "a number or a timestamp"),
        (lambda: pa.array([36_000] * 3, pa.time32("s")), "a number or a timestamp"),
    ],
)
def test_columns_of_types_that_cannot_hold_times_are_refused(
    tmp_path: Path, column: str, key: str, make: Callable[[], pa.Array], word: str
) -> None:
    with pytest.raises(DataError) as error:
        prepared(tmp_path, LABEL, **tables(**{column: make()}))
    message = str(error.value)
    assert f"({key}): expected " in message and word in message and "\n" not in message


@pytest.mark.parametrize(
    ("column", "field"), [("known", "known"), ("event", "time_ms"), ("since", "since")]
)
def test_seconds_in_another_column_of_times(tmp_path: Path, column: str, field: str) -> None:
    with raises(DataError, "row 0", "seconds", "clock.unit (ms)", field=field):
        prepared(tmp_path, LABEL, **tables(**{column: [at(0) // 1000] * 3}))


def test_dates_as_clock_event_clock_and_valid_from(tmp_path: Path) -> None:
    """In Shanghai the three days begin at 16:00 UTC of the day before."""
    schema = LABEL.replace("tables:", "clock: {timezone: Asia/Shanghai}\ntables:")
    days = pa.array([date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)])
    logs = tables(clock=days, known=days, event=days, since=days)
    data = prepared(tmp_path, schema, **logs)
    assert data("test/time_ms").tolist() == [at(1, 16)]
    assert data("history/time_ms").tolist() == [at(-1, 16), at(0, 16), at(1, 16)]
    assert sorted(data("items/valid_from_ms").tolist())[-3:] == [at(-1, 16), at(0, 16), at(1, 16)]
    ((_, events),) = logged_events(open_logs(tmp_path / "logs", None))
    assert [event.time_ms for event in events] == data("history/time_ms").tolist()


def test_a_clock_of_nanoseconds(tmp_path: Path) -> None:
    rows = shown([("u", "i", at(day, 1) * 10**6 + 1, 1) for day in range(3)])
    data = prepared(tmp_path, PLAIN + "clock: {unit: ns}\n", impressions=rows)
    assert data("train/time_ms").tolist() == [at(0, 1)]
    with raises(DataError, "clock.unit: ns", field="time_ms"):
        open_and_prepare(tmp_path / "other", rows)


def open_and_prepare(folder: Path, rows: dict[str, list[Any]]) -> None:
    folder.mkdir()
    write(folder / "logs", PLAIN, impressions=rows)
    prepared(folder, PLAIN, impressions=rows)
