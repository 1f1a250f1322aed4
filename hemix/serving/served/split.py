"""What a served row holds in the split's column: the time of its request, written as the split's
boundaries are.

Boundaries may be days, hours or months, times with or without seconds and offset, or numbers that
count from 1970. A boundary that is no time, such as the number of a part, says nothing of a
request; then the request's context has to. Knows no file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from hemix.data.clock import EARLIEST_MS, LATEST_MS
from hemix.moments import offset_of
from hemix.schema import Boundary, Schema

__all__ = ["SplitTime"]

_DAYS = ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%G-W%V-%u")
_HOURS = ("%Y-%m-%d %H", "%Y-%m-%d-%H", "%Y-%m-%dT%H", "%Y%m%d%H")
_MONTHS = ("%Y-%m", "%Y%m", "%Y/%m")
_CALENDAR = (*_DAYS, *_HOURS, *_MONTHS)
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([T "
    r"]\d\d(?P<minutes>:\d\d)?(?P<seconds>:\d\d)?([.,](?P<fraction>\d{1,9}))?(Z|[+-]\d\d(:?\d\d)?)?)?"
)
_PER_SECOND = (1, 1_000, 1_000_000, 1_000_000_000)

_Write = Callable[[int], str | float]


class SplitTime:
    """What the split's column holds of times, by the form of the boundaries."""

    def __init__(self, schema: Schema) -> None:
        marks = [
            mark
            for mark in schema.split.boundaries.values()
            if not (isinstance(mark, float) and math.isinf(mark))
        ]
        zone = ZoneInfo(schema.clock.timezone)
        forms = (_calendar(marks, zone), _moments(marks, zone), _counts(marks))
        self._write = next((form for form in forms if form is not None), None)
        self._as_text = isinstance(schema.split.valid, str)

    def value(self, time_ms: int) -> str | float | None:
        """Of a request at this time; None where the boundaries are no times."""
        if self._write is None:
            return None
        return str(self._write(time_ms)) if self._as_text else float(self._write(time_ms))


def _calendar(marks: Sequence[Boundary], zone: tzinfo) -> _Write | None:
    """All of one form: a day, an hour or a month."""
    form = next(
        (form for form in _CALENDAR if all(_is_written(mark, form) for mark in marks)), None
    )
    return None if form is None else lambda time_ms: _local(time_ms, zone).strftime(form)


def _is_written(mark: Boundary, form: str) -> bool:
    written = str(int(mark)) if isinstance(mark, float) and mark.is_integer() else str(mark)
    try:
        moment = datetime.strptime(written, form)
    except ValueError:
        return False
    return moment.strftime(form) == written and 1970 <= moment.year < 2100


def _moments(marks: Sequence[Boundary], zone: tzinfo) -> _Write | None:
    """Days and times in ISO 8601, written in the form of the most precise one, with its offset."""
    if not all(isinstance(mark, str) and _MOMENT.fullmatch(mark) for mark in marks):
        return None
    try:
        longest = max(map(str, marks), key=len)
        offset = next(
            (at for mark in marks if (at := datetime.fromisoformat(str(mark)).tzinfo) is not None),
            None,
        )
    except ValueError:
        return None
    parts = _MOMENT.fullmatch(longest)
    assert parts is not None
    precision = "seconds" if parts["seconds"] else "minutes" if parts["minutes"] else "hours"
    fraction, written = (
        len(parts["fraction"] or ""),
        next((end for mark in marks if (end := _offset(str(mark)))), ""),
    )

    def write(time_ms: int) -> str:
        moment = _local(time_ms, offset or zone).replace(tzinfo=None)
        text = moment.isoformat(longest[10], precision)
        digits = f".{time_ms % 1000:03d}000000"[: fraction + 1] if fraction else ""
        return text + digits + written

    return write


def _offset(mark: str) -> str:
    """The offset at the end of a time, as it is written; ``Z`` for UTC."""
    written = offset_of(mark) or ""
    return "Z" if written and not written.strip("+-0:") else written


def _counts(marks: Sequence[Boundary]) -> _Write | None:
    """Numbers since 1970 UTC, in the first unit in which all are times of our days."""
    try:
        numbers = [float(mark) for mark in marks]
    except ValueError:
        return None
    for per_second in _PER_SECOND:
        if all(EARLIEST_MS <= number * 1000 / per_second < LATEST_MS for number in numbers):
            return lambda time_ms, per=per_second: time_ms * per // 1000  # type: ignore[misc]
    return None


def _local(time_ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, tz=zone)
