"""Convert a column of times to milliseconds UTC and check every value.

Columns are numbers in the clock's unit, timestamps or dates.
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
    """Return the expected types if a column of this type cannot hold times, else None."""
    t = pa.types
    if t.is_float16(kind) or t.is_float32(kind):
        return (
            "a whole number, a double or a timestamp (a 32-bit float rounds seconds to two minutes)"
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
    column: str, values: pa.Array, clock: Clock, where: Where, *, is_clock: bool = False
) -> Array:
    """Convert times to milliseconds UTC.

    Args:
        column: Name of the column, for messages.
        values: Numbers in the clock's unit, timestamps (naive ones are UTC), or dates, which begin
            at midnight of the clock's zone.
        clock: The schema's clock.
        where: File and first row, for messages.
        is_clock: Whether this is the clock column of the impressions. If so, a wrong unit is
            mended by ``clock.unit``, else by converting the column.

    Returns:
        int64 [rows]; TIMELESS_MS for null.

    Raises:
        DataError: A time is before 1990 or after 2100, so its unit is probably wrong.
    """
    kind, unit = values.type, clock.unit
    null = values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date(kind):
        days = _whole(
            column, values.cast(pa.date32()).cast(pa.int32()), "day", null, _no_date, where
        )
        time_ms = date_start_ms(days, clock.timezone)
    elif pa.types.is_timestamp(kind):
        raw = _whole(
            column,
            values.cast(pa.int64()),
            kind.unit,
            null,
            partial(_no_timestamp, kind.unit),
            where,
        )
        time_ms = _scaled(raw, kind.unit)
    elif pa.types.is_integer(kind):
        raw = _whole(column, values, unit, null, partial(_unit_problem, unit, is_clock), where)
        time_ms = _scaled(raw, unit)
    else:
        raw = numbers_of(column, values, where)
        in_ms = np.where(null, EARLIEST_MS, raw * (_NS[unit] / _NS["ms"]))
        _refuse(
            column,
            ~((in_ms >= EARLIEST_MS) & (in_ms < LATEST_MS)),
            raw,
            partial(_unit_problem, unit, is_clock),
            where,
        )
        time_ms = np.round(in_ms).astype(np.int64)
    return np.where(null, np.int64(TIMELESS_MS), time_ms)


def _whole(
    column: str,
    values: pa.Array,
    unit: str,
    null: Array,
    problem: Callable[[Any], str],
    where: Where,
) -> Array:
    """int64 [rows]: times in their unit, checked to lie between 1990 and 2100."""
    raw = (values.fill_null(0) if values.null_count else values).to_numpy(zero_copy_only=False)
    earliest, latest = (limit * _NS["ms"] // _NS[unit] for limit in (EARLIEST_MS, LATEST_MS))
    if raw.dtype != np.uint64:
        raw = raw.astype(np.int64)
    _refuse(column, ~null & ((raw < earliest) | (raw >= latest)), raw, problem, where)
    return np.where(null, earliest, raw).astype(np.int64)


def _scaled(raw: Array, unit: str) -> Array:
    """Milliseconds, rounded down."""
    return (
        raw * (_NS[unit] // _NS["ms"])
        if _NS[unit] >= _NS["ms"]
        else raw // (_NS["ms"] // _NS[unit])
    )


def _refuse(
    column: str, outside: Array, raw: Array, problem: Callable[[Any], str], where: Where
) -> None:
    if outside.any():
        row = int(np.argmax(outside))
        raise where.error(row, column, problem(raw[row].item()))


def _no_date(days: int) -> str:
    try:
        value = (date(1970, 1, 1) + timedelta(days=days)).isoformat()
    except OverflowError:
        value = f"day {days}"
    return f"expected a date between 1990 and 2100, found {value}"


def _no_timestamp(unit: str, value: int) -> str:
    return (
        f"expected a time between 1990 and 2100, found a timestamp of {value} "
        f"{unit} since 1970, which {_would_be(value, unit)}; check the unit of the timestamps"
    )


def _unit_problem(unit: str, is_clock: bool, value: float) -> str:
    number = f"{value:.15g}"
    ms = {name: value * (_NS[name] / _NS["ms"]) for name in _NAMES}
    fits = next((name for name, time_ms in ms.items() if EARLIEST_MS <= time_ms < LATEST_MS), None)
    would_be = _would_be(value, unit)
    if fits is None:
        return f"expected a time between 1990 and 2100 in {unit}, found {number}, which {would_be}"
    advice = (
        f"set clock.unit: {fits}"
        if is_clock
        else f"clock.unit ({unit}) is the unit of all tables: write the column in {unit}, or as "
        "timestamps"
    )
    return f"looks like {_NAMES[fits]}: {number} in {_NAMES[unit]} {would_be}; {advice}"


def _would_be(value: float, unit: str) -> str:
    try:
        return datetime.fromtimestamp(value * _NS[unit] / _NS["s"], tz=UTC).strftime(
            "would be %Y-%m-%d"
        )
    except (OverflowError, ValueError, OSError):
        return "is beyond all dates"
