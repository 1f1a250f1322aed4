"""A column of times to milliseconds UTC: numbers in the clock's unit, timestamps and dates, each
value checked.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.clock import EARLIEST_MS, LATEST_MS, date_start_ms
from hemix.data.raw_columns import Where, is_number, numbers_of
from hemix.data.spec import TIMELESS_MS
from hemix.schema import Clock

__all__ = ["time_type_problem", "times_of"]

Array = npt.NDArray[Any]

_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1, "day": 86_400_000_000_000}
"""Nanoseconds of a unit"""
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def time_type_problem(kind: pa.DataType) -> str | None:
    """What was expected where a column of this type cannot hold times, else None."""
    t = pa.types
    if t.is_float16(kind) or t.is_float32(kind):
        return (
            "a whole number, a double or a timestamp (a float of 32 bits keeps seconds to two "
            "minutes only)"
        )
    if t.is_timestamp(kind) or t.is_date(kind) or (is_number(kind) and not t.is_boolean(kind)):
        return None
    text = t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind)
    return "a number or a timestamp" + (
        "; cast the text to a timestamp (SQL: CAST(... AS TIMESTAMP), pandas: to_datetime)"
        if text
        else ""
    )


def times_of(
    column: str, values: pa.Array, clock: Clock, where: Where, *, own: bool = False
) -> Array:
    """int64 [rows], ms UTC; null is TIMELESS_MS.

    Times outside 1990 to 2100 are refused: they are in another unit.

    Args:
        column: its name, for messages. values: numbers in the clock's unit; timestamps in their own
        (a naive one is UTC); or dates, which begin at midnight in the
            clock's zone.
        clock: the schema's. where: file and first row, for messages. own: these are the
        impressions' own times, which ``clock.unit`` is about; other columns have to follow it.
    """
    kind, unit = values.type, clock.unit
    null = values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date(kind):
        days = _whole(
            values.cast(pa.date32()).cast(pa.int32()), "day", null, partial(_no_date, column), where
        )
        time_ms = date_start_ms(days, clock.timezone)
    elif pa.types.is_timestamp(kind):
        raw = _whole(
            values.cast(pa.int64()),
            kind.unit,
            null,
            partial(_no_timestamp, column, kind.unit),
            where,
        )
        time_ms = _scaled(raw, kind.unit)
    elif pa.types.is_integer(kind):
        raw = _whole(values, unit, null, partial(_unit_problem, column, unit, own), where)
        time_ms = _scaled(raw, unit)
    else:
        raw = numbers_of(column, values, where)
        in_ms = np.where(null, EARLIEST_MS, raw * (_NS[unit] / _NS["ms"]))
        _refuse(
            ~((in_ms >= EARLIEST_MS) & (in_ms < LATEST_MS)),
            raw,
            partial(_unit_problem, column, unit, own),
            where,
        )
        time_ms = np.round(in_ms).astype(np.int64)
    return np.where(null, np.int64(TIMELESS_MS), time_ms)


def _whole(
    values: pa.Array, unit: str, null: Array, problem: Callable[[Any], str], where: Where
) -> Array:
    """int64 [rows], each within 1990 to 2100 in its unit."""
    raw = (values.fill_null(0) if values.null_count else values).to_numpy(zero_copy_only=False)
    earliest, latest = (limit * _NS["ms"] // _NS[unit] for limit in (EARLIEST_MS, LATEST_MS))
    if raw.dtype != np.uint64:
        raw = raw.astype(np.int64)
    _refuse(~null & ((raw < earliest) | (raw >= latest)), raw, problem, where)
    return np.where(null, earliest, raw).astype(np.int64)


def _scaled(raw: Array, unit: str) -> Array:
    """Milliseconds; what is finer is cut off."""
    return (
        raw * (_NS[unit] // _NS["ms"])
        if _NS[unit] >= _NS["ms"]
        else raw // (_NS["ms"] // _NS[unit])
    )


def _refuse(outside: Array, raw: Array, problem: Callable[[Any], str], where: Where) -> None:
    if outside.any():
        row = int(np.argmax(outside))
        raise where.error(row, problem(raw[row].item()))


def _no_date(column: str, days: int) -> str:
    try:
        found = (date(1970, 1, 1) + timedelta(days=days)).isoformat()
    except OverflowError:
        found = f"day {days}"
    return f"column {column!r}: expected a date between 1990 and 2100, found {found}"


def _no_timestamp(column: str, unit: str, value: int) -> str:
    return (
        f"column {column!r}: expected a time between 1990 and 2100, found a timestamp of {value} "
        f"{unit} since 1970, which "
        f"{_would_be(value, unit)}; was it made with another unit?"
    )


def _unit_problem(column: str, unit: str, own: bool, value: float) -> str:
    found = f"{value:.15g}"
    ms = {name: value * (_NS[name] / _NS["ms"]) for name in _NAMES}
    fits = next((name for name, time_ms in ms.items() if EARLIEST_MS <= time_ms < LATEST_MS), None)
    would_be = _would_be(value, unit)
    if fits is None:
        return (
            f"column {column!r}: expected a time between 1990 and 2100 in {unit}, found {found}, "
            f"which {would_be}"
        )
    advice = (
        f"set clock.unit: {fits}"
        if own
        else f"one clock.unit ({unit}) holds for all tables: write it in {unit}, or as a timestamp"
    )
    return (
        f"column {column!r} looks like {_NAMES[fits]}: {found} in {_NAMES[unit]} {would_be}; "
        f"{advice}"
    )


def _would_be(value: float, unit: str) -> str:
    try:
        return datetime.fromtimestamp(value * _NS[unit] / _NS["s"], tz=UTC).strftime(
            "would be %Y-%m-%d"
        )
    except (OverflowError, ValueError, OSError):
        return "is beyond all dates"
