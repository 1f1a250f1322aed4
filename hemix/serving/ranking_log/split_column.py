"""The value of the split's column in a training row: the request's time, formatted like the split's
boundaries.

Boundaries may be days, hours or months, times with or without seconds and offset, or numbers since
1970. Other boundaries, such as partition numbers, need a value in the request's context.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from functools import partial
from zoneinfo import ZoneInfo

from hemix.data.clock import EARLIEST_MS, LATEST_MS
from hemix.moments import offset_of
from hemix.schema import Boundary, Schema

__all__ = ["SplitColumnFormat"]

_DAYS = ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%G-W%V-%u")
_HOURS = ("%Y-%m-%d %H", "%Y-%m-%d-%H", "%Y-%m-%dT%H", "%Y%m%d%H")
_MONTHS = ("%Y-%m", "%Y%m", "%Y/%m")
_CALENDAR = (*_DAYS, *_HOURS, *_MONTHS)
_ISO_TIME = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d(?P<minutes>:\d\d)?(?P<seconds>:\d\d)?"
    r"([.,](?P<fraction>\d{1,9}))?(Z|[+-]\d\d(:?\d\d)?)?)?"
)
_UNITS_PER_SECOND = (1, 1_000, 1_000_000, 1_000_000_000)

_Formatter = Callable[[int], str | float]


class SplitColumnFormat:
    """Formats times like the boundaries of a schema's split."""

    def __init__(self, schema: Schema) -> None:
        boundaries = [
            boundary
            for boundary in schema.split.boundaries.values()
            if not (isinstance(boundary, float) and math.isinf(boundary))
        ]
        zone = ZoneInfo(schema.clock.timezone)
        formatters = (
            _calendar_formatter(boundaries, zone),
            _iso_formatter(boundaries, zone),
            _number_formatter(boundaries),
        )
        self._formatter = next((each for each in formatters if each is not None), None)
        self._as_text = isinstance(schema.split.valid, str)

    def value(self, time_ms: int) -> str | float | None:
        """Return the value for a request at ``time_ms``; None where boundaries are no times."""
        if self._formatter is None:
            return None
        value = self._formatter(time_ms)
        return str(value) if self._as_text else float(value)


def _calendar_formatter(boundaries: Sequence[Boundary], zone: tzinfo) -> _Formatter | None:
    """Return a formatter where all boundaries are days, hours or months of one format."""
    for form in _CALENDAR:
        if all(_has_format(boundary, form) for boundary in boundaries):
            return partial(_format_local, form, zone)
    return None


def _has_format(boundary: Boundary, form: str) -> bool:
    whole = isinstance(boundary, float) and boundary.is_integer()
    text = str(int(boundary)) if whole else str(boundary)
    try:
        moment = datetime.strptime(text, form)
    except ValueError:
        return False
    return moment.strftime(form) == text and 1970 <= moment.year < 2100


def _iso_formatter(boundaries: Sequence[Boundary], zone: tzinfo) -> _Formatter | None:
    """Return a formatter for ISO 8601, with the most precise boundary's precision and offset."""
    if not all(isinstance(each, str) and _ISO_TIME.fullmatch(each) for each in boundaries):
        return None
    texts = [str(boundary) for boundary in boundaries]
    try:
        longest = max(texts, key=len)
        zones = (datetime.fromisoformat(text).tzinfo for text in texts)
        offset = next((each for each in zones if each is not None), None)
    except ValueError:
        return None
    match = _ISO_TIME.fullmatch(longest)
    assert match is not None
    precision = "seconds" if match["seconds"] else "minutes" if match["minutes"] else "hours"
    fraction_digits = len(match["fraction"] or "")
    offset_text = next((text for text in map(_offset_text, texts) if text), "")

    def format_time(time_ms: int) -> str:
        moment = _local(time_ms, offset or zone).replace(tzinfo=None)
        text = moment.isoformat(longest[10], precision)
        fraction = f".{time_ms % 1000:03d}000000"[: fraction_digits + 1] if fraction_digits else ""
        return text + fraction + offset_text

    return format_time


def _offset_text(boundary: str) -> str:
    """Return the offset at the end of a time as it is written; ``Z`` for UTC."""
    offset = offset_of(boundary) or ""
    return "Z" if offset and not offset.strip("+-0:") else offset


def _number_formatter(boundaries: Sequence[Boundary]) -> _Formatter | None:
    """Return a formatter for numbers since 1970 UTC, in the first plausible unit."""
    try:
        numbers = [float(boundary) for boundary in boundaries]
    except ValueError:
        return None
    for units in _UNITS_PER_SECOND:
        if all(EARLIEST_MS <= number * 1000 / units < LATEST_MS for number in numbers):
            return partial(_count_units, units)
    return None


def _format_local(form: str, zone: tzinfo, time_ms: int) -> str:
    return _local(time_ms, zone).strftime(form)


def _count_units(units: int, time_ms: int) -> int:
    return time_ms * units // 1000


def _local(time_ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, tz=zone)
