"""Times: the clock column to milliseconds UTC, local time, and the parts of a local day.

Local offsets are looked up once per distinct quarter of an hour: no zone has changed its offset off a quarter since 1990.
This module knows no table and no feature.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import distinct
from hemix.data.spec import TIMELESS_MS

__all__ = ["EARLIEST_MS", "LATEST_MS", "clock_part", "day_start_ms", "local_day", "local_ms", "local_text", "moment_ms"]

Array = npt.NDArray[Any]

EARLIEST_MS = 631_152_000_000
"""1990-01-01 UTC: an earlier time is a wrong unit."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01 UTC: a later time is a wrong unit."""

_QUARTER_MS = 900_000
_HOUR_MS = 3_600_000
_DAY_MS = 86_400_000
_FEW = 32
"""Up to so many values, asking for each is faster than finding the distinct ones"""


@lru_cache(maxsize=1 << 18)
def _offset_ms(quarter: int, timezone: str) -> int:
    moment = datetime.fromtimestamp(quarter * (_QUARTER_MS // 1000), tz=ZoneInfo(timezone))
    offset = moment.utcoffset()
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
    return np.where(timed, time_ms + _of_each(_offset_ms, quarters, timezone), time_ms)


def local_day(time_ms: Array, timezone: str) -> Array:
    """int64 [rows]: the number of each time's local day, counted from 1970-01-01."""
    days: Array = local_ms(time_ms, timezone) // _DAY_MS
    return days


def day_start_ms(time_ms: Array, timezone: str) -> Array:
    """int64 [rows]: the moment (ms UTC) at which the local day of each time began; TIMELESS_MS stays."""
    local = local_ms(time_ms, timezone)
    if timezone == "UTC" or local.size == 0:
        utc: Array = np.where(local == TIMELESS_MS, local, local - local % _DAY_MS)
        return utc
    timed = local != TIMELESS_MS
    return np.where(timed, _of_each(_day_start_ms, np.where(timed, local // _DAY_MS, 0), timezone), local)


def _of_each(function: Callable[[int, str], int], values: Array, timezone: str) -> Array:
    """int64 [rows]: a function of every value; asked once for each distinct one where they are many."""
    if len(values) <= _FEW:
        return np.array([function(value, timezone) for value in values.tolist()], dtype=np.int64)
    found, codes = distinct(pa.array(values))
    return np.array([function(value, timezone) for value in found.to_numpy().tolist()], dtype=np.int64)[codes]


def clock_part(part: str, time_ms: Array, timezone: str) -> Array:
    """int64 [rows]: hour 0..23, weekday 0..6 (Monday is 0) or hour_of_week 0..167 of the local time; -1 for TIMELESS_MS."""
    local = local_ms(time_ms, timezone)
    hour = local % _DAY_MS // _HOUR_MS
    weekday = (local // _DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    value = {"hour": hour, "weekday": weekday, "hour_of_week": weekday * 24 + hour}[part]
    return np.where(local == TIMELESS_MS, -1, value)


def moment_ms(text: str, timezone: str) -> int:
    """A local date or time such as ``2026-01-15`` or ``2026-01-15 06:00`` (or with an offset) in ms UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
    return round(moment.timestamp() * 1000)


def local_text(time_ms: int, timezone: str) -> str:
    """A time for people: ``2026-01-15 06:00:00`` in local time."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, tz=UTC).astimezone(ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
