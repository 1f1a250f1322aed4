"""Dates, times and durations as people write them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator

__all__ = ["DurationMs", "WindowMs", "duration_ms", "duration_text", "moment_ms", "offset_of"]

_MAX_DURATION_MS = 36_525 * 86_400_000
"""A hundred years, so that sums of times and durations fit into 64 bits"""
_OFFSET = re.compile(r"[T ].*?(Z|[+-]\d\d(:?\d\d)?)$")
_DURATION_UNITS_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}


def duration_ms(value: object) -> int:
    """Convert a duration such as ``90s``, ``30min``, ``2h`` or ``7d`` to milliseconds.

    Raises:
        ValueError: It has no unit and is not 0, or is longer than a hundred years.
    """
    if value == 0 and not isinstance(value, bool):
        return 0
    match = (
        re.fullmatch(r"\s*(\d+)\s*(ms|s|min|m|h|d)\s*", value) if isinstance(value, str) else None
    )
    if match is None:
        raise ValueError(f"expected a duration with a unit such as 30min, 2h or 7d, got {value!r}")
    duration = int(match[1]) * _DURATION_UNITS_MS[match[2]]
    if duration > _MAX_DURATION_MS:
        raise ValueError(
            f"expected a duration of at most {_MAX_DURATION_MS // 86_400_000}d, got {value!r}"
        )
    return duration


def duration_text(milliseconds: int) -> str:
    """Return a duration in the largest unit that divides it, such as ``15min``; ``0ms`` for 0."""
    units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)]
    for unit, size in units:
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _window(value: object) -> object:
    return value if value == "day" else duration_ms(value)


DurationMs = Annotated[int, BeforeValidator(duration_ms, json_schema_input_type=int | str)]
WindowMs = Annotated[
    Literal["day"] | int, BeforeValidator(_window, json_schema_input_type=int | str)
]


def moment_ms(text: str, timezone: str) -> int:
    """Convert a date or time such as ``2026-01-15`` or ``2026-01-15 06:00`` to ms UTC.

    Args:
        text: A date or time in ISO 8601, with or without an offset.
        timezone: IANA name of the zone of a text without an offset.

    Raises:
        ValueError: The text is not a date or time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
    try:
        return round(moment.timestamp() * 1000)
    except OverflowError as error:
        raise ValueError(f"{text!r} is beyond all dates") from error


def offset_of(text: str) -> str | None:
    """Return the offset at the end of a time, such as ``Z`` or ``+08:00``; None without one."""
    match = _OFFSET.search(text)
    return None if match is None else match[1]
