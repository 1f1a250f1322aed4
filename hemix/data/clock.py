"""Local times, local days and calendar fields of times in milliseconds UTC.

The offset of a zone is looked up once per distinct day, and on a day on which it changes once per
quarter of an hour. A few zones changed theirs within a quarter, such as St. John's until 2011;
times of such a quarter are looked up one by one.
Arrow's ``local_timestamp`` reads the system's time zones alone; ``zoneinfo`` has those of tzdata on
machines without them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from hemix.data.arrow import pa
from hemix.data.keys import distinct
from hemix.data.spec import TIMELESS_MS
from hemix.moments import moment_ms

__all__ = [
    "EARLIEST_MS",
    "LATEST_MS",
    "calendar_field",
    "date_start_ms",
    "day_start_ms",
    "local_day",
    "local_ms",
    "local_text",
    "moment_ms",
]

Array = npt.NDArray[Any]

EARLIEST_MS = 631_152_000_000
"""1990-01-01 UTC. An earlier time is probably in another unit."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01 UTC. A later time is probably in another unit."""

_QUARTER_MS = 900_000
_HOUR_MS = 3_600_000
_DAY_MS = 86_400_000
_CHANGES = 7 * _DAY_MS
"""Marks a day or a quarter in which the offset changes; no zone has this offset"""
_FEW = 32
"""For at most so many values, one look-up each is faster than finding distinct values"""


@lru_cache(maxsize=1 << 16)
def _day_offset_ms(day: int, timezone: str) -> int:
    """The offset on a UTC day; _CHANGES if it changes on that day."""
    return _offset_within(day * _DAY_MS, _DAY_MS, timezone)


@lru_cache(maxsize=1 << 16)
def _quarter_offset_ms(quarter: int, timezone: str) -> int:
    """The offset in a quarter of an hour; _CHANGES if it changes within the quarter."""
    return _offset_within(quarter * _QUARTER_MS, _QUARTER_MS, timezone)


def _offset_within(begin_ms: int, length_ms: int, timezone: str) -> int:
    first, last = (_offset_ms(begin_ms + within, timezone) for within in (0, length_ms - 1))
    return first if first == last else _CHANGES


def _offset_ms(time_ms: int, timezone: str) -> int:
    offset = datetime.fromtimestamp(time_ms // 1000, tz=ZoneInfo(timezone)).utcoffset()
    assert offset is not None
    return round(offset.total_seconds() * 1000)


@lru_cache(maxsize=1 << 16)
def _day_start_ms(day: int, timezone: str) -> int:
    return moment_ms((date(1970, 1, 1) + timedelta(days=day)).isoformat(), timezone)


def local_ms(time_ms: Array, timezone: str) -> Array:
    """Convert times to milliseconds on the local clock.

    Args:
        time_ms: int64 [rows], UTC. TIMELESS_MS stays.
        timezone: IANA name.

    Returns:
        int64 [rows].
    """
    time_ms = np.asarray(time_ms, dtype=np.int64)
    if timezone == "UTC" or time_ms.size == 0:
        return time_ms
    timed = time_ms != TIMELESS_MS
    known_ms = np.where(timed, time_ms, EARLIEST_MS)
    offsets = _of_each(_day_offset_ms, known_ms // _DAY_MS, timezone)
    changing = np.flatnonzero(offsets == _CHANGES)
    quarters = known_ms[changing] // _QUARTER_MS
    offsets[changing] = _of_each(_quarter_offset_ms, quarters, timezone)
    for row in np.flatnonzero(offsets == _CHANGES).tolist():
        offsets[row] = _offset_ms(int(time_ms[row]), timezone)
    return np.where(timed, time_ms + offsets, time_ms)


def local_day(time_ms: Array, timezone: str) -> Array:
    """Return the local day of each time.

    Args:
        time_ms: int64 [rows], UTC.
        timezone: IANA name.

    Returns:
        int64 [rows], days since 1970-01-01.
    """
    days: Array = local_ms(time_ms, timezone) // _DAY_MS
    return days


def day_start_ms(time_ms: Array, timezone: str) -> Array:
    """Return the start of the local day of each time.

    Args:
        time_ms: int64 [rows], UTC. TIMELESS_MS stays.
        timezone: IANA name.

    Returns:
        int64 [rows], ms UTC.
    """
    local = local_ms(time_ms, timezone)
    if timezone == "UTC" or local.size == 0:
        utc: Array = np.where(local == TIMELESS_MS, local, local - local % _DAY_MS)
        return utc
    timed = local != TIMELESS_MS
    return np.where(
        timed, _of_each(_day_start_ms, np.where(timed, local // _DAY_MS, 0), timezone), local
    )


def date_start_ms(days: Array, timezone: str) -> Array:
    """Return the start of dates in a zone.

    Args:
        days: int [rows], days since 1970-01-01.
        timezone: IANA name.

    Returns:
        int64 [rows], ms UTC.
    """
    return _of_each(_day_start_ms, np.asarray(days, dtype=np.int64), timezone)


def _of_each(function: Callable[[int, str], int], values: Array, timezone: str) -> Array:
    """int64 [rows]: a function of every value, called once per distinct value if they are many."""
    if len(values) <= _FEW:
        return np.array([function(value, timezone) for value in values.tolist()], dtype=np.int64)
    unique, codes = distinct(pa.array(values))
    return np.array(
        [function(value, timezone) for value in unique.to_numpy().tolist()], dtype=np.int64
    )[codes]


def calendar_field(field: str, time_ms: Array, timezone: str) -> Array:
    """Return a calendar field of the local times.

    Args:
        field: ``hour`` (0 to 23), ``weekday`` (0 to 6, Monday is 0) or ``hour_of_week`` (0 to 167).
        time_ms: int64 [rows], UTC.
        timezone: IANA name.

    Returns:
        int64 [rows]; -1 for TIMELESS_MS.
    """
    local = local_ms(time_ms, timezone)
    hour = local % _DAY_MS // _HOUR_MS
    weekday = (local // _DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    value = {"hour": hour, "weekday": weekday, "hour_of_week": weekday * 24 + hour}[field]
    return np.where(local == TIMELESS_MS, -1, value)


def local_text(time_ms: int, timezone: str) -> str:
    """Format a time as local time for people, such as ``2026-01-15 06:00:00``.

    Args:
        time_ms: UTC.
        timezone: IANA name.
    """
    try:
        return (
            datetime.fromtimestamp(time_ms / 1000, tz=UTC)
            .astimezone(ZoneInfo(timezone))
            .strftime("%Y-%m-%d %H:%M:%S")
        )
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
