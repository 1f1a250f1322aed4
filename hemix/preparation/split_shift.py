"""Shift a split by whole days, for evaluation on several test periods of the same logs."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.clock import local_text
from hemix.errors import DataError, SchemaError, UsageError
from hemix.preparation.date_texts import compact_day
from hemix.preparation.log_table import LogTable
from hemix.preparation.logs import open_logs
from hemix.preparation.times import times_of
from hemix.schema import Boundary, Clock, Schema, Split

__all__ = ["shift_split"]

_CHUNK_ROWS = 1 << 18
_DAY = re.compile(r"(\d{4}-\d{2}-\d{2}|\d{8})(?!\d)")
"""The date at the beginning of a text"""


def shift_split(logs: str | Path, days: int) -> Schema:
    """Move every boundary of a split by local calendar days.

    A split without ``end`` gets one: the day after the log's last day, moved like the others.

    Args:
        logs: The logs folder.
        days: Below 0, for a split so many days earlier.

    Returns:
        The schema of the folder with the moved split.

    Raises:
        UsageError: ``days`` is not below 0, or moves a boundary out of the range of dates.
        SchemaError: A boundary is not a date or time.
        DataError: The split's column has no value, or its last day is the last of all dates.
    """
    if days >= 0:
        raise UsageError(
            f"--shift-days {days}: expected below 0; a later split has no test rows",
            field="--shift-days",
        )
    opened = open_logs(Path(logs), None)
    schema, split = opened.schema, opened.schema.split
    by_clock = split.column is None or split.column == schema.clock.column
    column = split.column or schema.clock.column
    kind = opened.impressions.arrow_schema.field(column).type

    def move(name: str, value: Boundary) -> Boundary:
        try:
            moved = (
                _clock_moved(value, days, schema.clock) if by_clock else _moved(value, days, kind)
            )
        except OverflowError as error:
            raise UsageError(
                f"--shift-days {days}: split.{name}: {value!r} would lie before all dates",
                field="--shift-days",
            ) from error
        if moved is None:
            raise SchemaError(
                f"split.{name}: {value!r} of column {column!r} is not a day",
                field=f"split.{name}",
                hint="--shift-days needs a split by time",
            )
        return moved

    moved = {name: move(name, value) for name, value in split.boundaries.items()}
    if split.end is None:
        last = _last_day(opened.impressions, schema, column, by_clock=by_clock)
        if last is None or last == date.max:
            raise DataError(
                f"{opened.impressions.path}: column {column!r} runs to the end of all dates, so "
                "the end of the split is unknown",
                field="split.end",
                hint="set split.end",
            )
        after = last + timedelta(days=1)
        moved["end"] = move("end", _written(after, split.test, schema.clock, by_clock=by_clock))
    moved_split = Split.model_validate({"column": split.column, **moved})
    return schema.model_copy(update={"split": moved_split})


def _clock_moved(value: Boundary, days: int, clock: Clock) -> Boundary | None:
    """A boundary on the clock, moved; None if it is not a time."""
    if isinstance(value, str):
        return _time_moved(value, days)
    try:
        moment = datetime.fromtimestamp(value / clock.per_second, tz=ZoneInfo(clock.timezone))
    except (ValueError, OverflowError, OSError):
        return None
    local = moment.replace(tzinfo=None, fold=0) + timedelta(days=days)
    seconds = round(local.replace(tzinfo=moment.tzinfo).timestamp() - moment.timestamp())
    return value + seconds * clock.per_second


def _moved(value: Boundary, days: int, kind: pa.DataType) -> Boundary | None:
    """A boundary on a column of this type, moved; None if it is not a day."""
    if isinstance(value, str):
        return _text_moved(value, days) if pa.types.is_string(kind) else _time_moved(value, days)
    day = compact_day(value)
    return None if day is None else int((day + timedelta(days=days)).strftime("%Y%m%d"))


def _time_moved(value: str, days: int) -> str | None:
    try:
        moved = datetime.fromisoformat(value) + timedelta(days=days)
    except ValueError:
        return None
    if len(value) <= 10 and moved.time() == datetime.min.time():
        return moved.date().isoformat()
    return moved.isoformat(sep="T" if "T" in value else " ")


def _text_moved(value: str, days: int) -> str | None:
    """Text with its date moved; the rest stays, so that it still has the column's format."""
    day = _day_of(value)
    match = _DAY.match(value)
    if day is None or match is None:
        return None
    date_format = "%Y-%m-%d" if "-" in match[1] else "%Y%m%d"
    return (day + timedelta(days=days)).strftime(date_format) + value[match.end() :]


def _day_of(text: str) -> date | None:
    match = _DAY.match(text)
    try:
        return None if match is None else date.fromisoformat(match[1])
    except ValueError:
        return None


def _last_day(impressions: LogTable, schema: Schema, column: str, *, by_clock: bool) -> date | None:
    """The last day of the log; None if it is beyond all dates."""
    zone, last = schema.clock.timezone, None
    for chunk in impressions.chunks([column], _CHUNK_ROWS):
        values: pa.Array = chunk.columns[column]
        if by_clock:
            values = pa.array(times_of(column, values, schema.clock, chunk.where, is_clock=True))
        elif pa.types.is_timestamp(values.type):
            zone = "UTC" if values.type.tz is None else schema.clock.timezone
            values = pa.array(_milliseconds(values))
        highest = pc.max(values).as_py()
        last = highest if last is None else last if highest is None else max(last, highest)
    if last is None:
        raise DataError(f"{impressions.path}: column {column!r} has no value")
    if by_clock or pa.types.is_timestamp(impressions.arrow_schema.field(column).type):
        return _day_of(local_text(last, zone))
    day = (
        last
        if isinstance(last, date)
        else compact_day(last)
        if isinstance(last, int)
        else _day_of(str(last))
    )
    if day is None:
        raise SchemaError(
            f"split.column: {column!r} holds {last!r}, which is not a day",
            field="split.column",
            hint="--shift-days needs a split by time",
        )
    return day


def _milliseconds(values: pa.Array) -> Any:
    known = values.drop_null()
    ticks = known.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return (
        ticks // {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[values.type.unit]
    ).astype(np.int64) * 1000


def _written(day: date, like: Boundary, clock: Clock, *, by_clock: bool) -> Boundary:
    """A day in the format of the boundary ``like``: a date, a compact day, or a clock number."""
    if not isinstance(like, str) and by_clock:
        begins = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(clock.timezone))
        return round(begins.timestamp()) * clock.per_second
    if isinstance(like, int | float):
        return int(day.strftime("%Y%m%d"))
    return day.isoformat() if "-" in like else day.strftime("%Y%m%d")
