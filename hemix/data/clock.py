"""Times: the clock column to milliseconds UTC, local time, and the calendar fields of local time.

Local offsets are looked up once per distinct quarter of an hour. A few zones have changed theirs
within one (St. John's and Moncton did at 00:01 local time until 2011 and 2006): times of such a
quarter are looked up one by one. This module knows no table and no feature.
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
"""1990-01-01 UTC: an earlier time is a wrong unit."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01 UTC: a later time is a wrong unit."""

_QUARTER_MS = 900_000
_HOUR_MS = 3_600_000
_DAY_MS = 86_400_000
_CHANGES = 7 * _DAY_MS
"""No zone's offset"""
_FEW = 32
"""Up to so many values, asking for each is faster than finding the distinct ones"""


@lru_cache(maxsize=1 << 18)
def _quarter_offset_ms(quarter: int, timezone: str) -> int:
    """The offset in a quarter of an hour, _CHANGES where it changes within."""
    first, last = (
        _offset_ms(quarter * _QUARTER_MS + within, timezone) for within in (0, _QUARTER_MS - 1)
    )
    return first if first == last else _CHANGES


def _offset_ms(time_ms: int, timezone: str) -> int:
    offset = datetime.fromtimestamp(time_ms // 1000, tz=ZoneInfo(timezone)).utcoffset()
    assert offset is not None
    return round(offset.total_seconds() * 1000)


@lru_cache(maxsize=1 << 16)
def _day_start_ms(day: int, timezone: str) -> int:
    return moment_ms((date(1970, 1, 1) + timedelta(days=day)).isoformat(), timezone)


def local_ms(time_ms: Array, timezone: str) -> Array:
    """int64 [rows]: milliseconds UTC -> milliseconds on the local wall clock; TIMELESS_MS stays."""
    time_ms = np.asarray(time_ms, dtype=np.int64)
    if timezone == "UTC" or time_ms.size == 0:
        return time_ms
    timed = time_ms != TIMELESS_MS
    quarters = np.where(timed, time_ms // _QUARTER_MS, EARLIEST_MS // _QUARTER_MS)
    offsets = _of_each(_quarter_offset_ms, quarters, timezone)
    for row in np.flatnonzero(offsets == _CHANGES).tolist():
        offsets[row] = _offset_ms(int(time_ms[row]), timezone)
    return np.where(timed, time_ms + offsets, time_ms)


def local_day(time_ms: Array, timezone: str) -> Array:
    """int64 [rows]: the number of each time's local day, counted from 1970-01-01."""
    days: Array = local_ms(time_ms, timezone) // _DAY_MS
    return days


def day_start_ms(time_ms: Array, timezone: str) -> Array:
    """int64 [rows]: the moment (ms UTC) at which the local day of each time began; TIMELESS_MS
    stays.
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
    """int64 [rows]: the moment (ms UTC) at which dates begin in the zone; ``days`` int [rows]
    counts from 1970-01-01.
    """
    return _of_each(_day_start_ms, np.asarray(days, dtype=np.int64), timezone)


def _of_each(function: Callable[[int, str], int], values: Array, timezone: str) -> Array:
    """int64 [rows]: a function of every value; asked once for each distinct one where they are
    many.
    """
    if len(values) <= _FEW:
        return np.array([function(value, timezone) for value in values.tolist()], dtype=np.int64)
    found, codes = distinct(pa.array(values))
    return np.array(
        [function(value, timezone) for value in found.to_numpy().tolist()], dtype=np.int64
    )[codes]


def calendar_field(field: str, time_ms: Array, timezone: str) -> Array:
    """int64 [rows]: hour 0..23, weekday 0..6 (Monday is 0) or hour_of_week 0..167 of the local
    time; -1 for TIMELESS_MS.
    """
    local = local_ms(time_ms, timezone)
    hour = local % _DAY_MS // _HOUR_MS
    weekday = (local // _DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    value = {"hour": hour, "weekday": weekday, "hour_of_week": weekday * 24 + hour}[field]
    return np.where(local == TIMELESS_MS, -1, value)


def local_text(time_ms: int, timezone: str) -> str:
    """A time for people: ``2026-01-15 06:00:00`` in local time."""
    try:
        return (
            datetime.fromtimestamp(time_ms / 1000, tz=UTC)
            .astimezone(ZoneInfo(timezone))
            .strftime("%Y-%m-%d %H:%M:%S")
        )
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
