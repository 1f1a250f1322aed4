"""Rolling origins: the same logs, split some whole days earlier. Knows the schema's split and the days of its column, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.clock import local_text
from hemix.data.prepare.checks import open_logs
from hemix.data.prepare.columns import times_of
from hemix.data.prepare.reading import Table
from hemix.errors import DataError, SchemaError, UsageError
from hemix.schema import Boundary, Schema, Split

__all__ = ["shift_split"]

_CHUNK_ROWS = 1 << 18


def shift_split(logs: str | Path, days: int) -> Schema:
    """The schema of the folder ``logs`` with every boundary of its split moved by ``days`` (below 0: earlier) local calendar days.

    A split without ``end`` gets one: the day after the log's last, moved like the others, so that test keeps its length. Raises
    UsageError for days that are not below 0, SchemaError where the split is not on time, naming the boundary.
    """
    if days >= 0:
        raise UsageError(f"--shift-days {days}: expected a number below 0: after the log's end there is nothing to test on")
    opened = open_logs(Path(logs), None)
    schema, split = opened.schema, opened.schema.split
    by_clock = split.column is None or split.column == schema.clock.column
    column = split.column or schema.clock.column
    kind = opened.impressions.kind.field(column).type

    def move(name: str, value: Boundary) -> Boundary:
        moved = _moved(value, days, schema, kind, by_clock=by_clock)
        if moved is None:
            raise SchemaError(f"split.{name}: {value!r} of column {column!r} is no day: --shift-days moves splits by time alone")
        return moved

    marks = {name: value for name in ("start", "valid", "test", "end") if (value := getattr(split, name)) is not None}
    moved = {name: move(name, value) for name, value in marks.items()}
    if split.end is None:
        moved["end"] = move("end", _day_after(opened.impressions, schema, column, marks["test"], by_clock=by_clock))
    return schema.model_copy(update={"split": Split.model_validate({"column": split.column, **moved})})


def _moved(value: Boundary, days: int, schema: Schema, kind: pa.DataType, *, by_clock: bool) -> Boundary | None:
    """None where the value is no day."""
    if by_clock and not isinstance(value, str):
        zone, unit = ZoneInfo(schema.clock.timezone), schema.clock.unit_ms
        local = datetime.fromtimestamp(value * unit / 1000, tz=zone).replace(tzinfo=None) + timedelta(days=days)
        return round(local.replace(tzinfo=zone).timestamp() * 1000 / unit)
    if isinstance(value, str):
        return _text_moved(value, days)
    if pa.types.is_integer(kind) and isinstance(value, int):
        day = _compact_day(value)
        return None if day is None else int((day + timedelta(days=days)).strftime("%Y%m%d"))
    return None


def _text_moved(value: str, days: int) -> str | None:
    for parse in (_date, _moment):
        found = parse(value)
        if found is not None:
            moved = found + timedelta(days=days)
            return moved.isoformat() if "T" in value or not isinstance(moved, datetime) else moved.isoformat(sep=" ")
    return None


def _attempt(parse: Callable[[str], Any], value: str) -> Any:
    try:
        return parse(value)
    except ValueError:
        return None


def _date(value: str) -> date | None:
    found: date | None = _attempt(date.fromisoformat, value) if len(value) == 10 else None
    return found


def _moment(value: str) -> datetime | None:
    found: datetime | None = _attempt(datetime.fromisoformat, value) if len(value) > 10 else None
    return found


def _compact_day(value: int) -> date | None:
    """20260131 as a day."""
    found: datetime | None = (
        _attempt(lambda text: datetime.strptime(text, "%Y%m%d"), str(value)) if 10**7 <= value < 10**8 else None
    )
    return None if found is None else found.date()


def _day_after(impressions: Table, schema: Schema, column: str, like: Boundary, *, by_clock: bool) -> Boundary:
    """The day after the last one of the log, written like the boundary ``like``. Raises DataError for a column without values."""
    last: Any = None
    for chunk in impressions.chunks([column], _CHUNK_ROWS):
        values = chunk.columns[column]
        if by_clock:
            times_ms = times_of(column, values, schema.clock.unit, chunk.where, own=True)
            highest = int(times_ms.max()) if len(times_ms) else None
        else:
            highest = pc.max(values).as_py()
        last = highest if last is None else last if highest is None else max(last, highest)
    if last is None:
        raise DataError(f"{impressions.path}: column {column!r} has no value")
    if by_clock:
        text = local_text(last, schema.clock.timezone)[:10]
        after = (date.fromisoformat(text) + timedelta(days=1)).isoformat()
        if isinstance(like, str):
            return after
        moment = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(schema.clock.timezone))
        return round(moment.timestamp() * 1000 / schema.clock.unit_ms)
    if isinstance(last, datetime):
        return (
            (last.date() + timedelta(days=1)).isoformat()
            if len(str(like)) == 10
            else f"{last.date() + timedelta(days=1)} 00:00:00"
        )
    if isinstance(last, date):
        return (last + timedelta(days=1)).isoformat()
    day = _compact_day(last) if isinstance(last, int) else _date(str(last)[:10])
    if day is None:
        raise SchemaError(f"split.column: {column!r} holds {last!r}, which is no day: --shift-days moves splits by time alone")
    after_day = day + timedelta(days=1)
    return int(after_day.strftime("%Y%m%d")) if isinstance(last, int) else after_day.isoformat()
