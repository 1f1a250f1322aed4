"""What a served row holds in the split's column: the day, hour or month of its request, written as the split's boundaries are.

A boundary that is no time, such as the number of a part, says nothing of a request; then the request's context has to. Knows no file.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from hemix.schema import Boundary, Schema

__all__ = ["SplitTime"]

_DAYS = ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%G-W%V-%u")
_HOURS = ("%Y-%m-%d %H", "%Y-%m-%d-%H", "%Y-%m-%dT%H", "%Y%m%d%H")
_MOMENTS = ("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
_MONTHS = ("%Y-%m", "%Y%m", "%Y/%m")
_FORMATS = (*_DAYS, *_HOURS, *_MOMENTS, *_MONTHS)


class SplitTime:
    """What the split's column holds of times, by the form of the boundaries."""

    def __init__(self, schema: Schema) -> None:
        split = schema.split
        marks = [mark for mark in (split.start, split.valid, split.test, split.end) if mark is not None]
        self._zone: tzinfo = ZoneInfo(schema.clock.timezone)
        self._format = next((f for f in _FORMATS if all(_is_written(mark, f) for mark in marks)), None)
        if self._format is None:  # times written in different ways
            moments = [_moment(mark) for mark in marks]
            offsets = {None if moment is None else moment.tzinfo for moment in moments}
            if None not in moments:
                separator = next((mark[10] for mark in marks if isinstance(mark, str) and mark[10:11] in ("T", " ")), "T")
                self._format = f"%Y-%m-%d{separator}%H:%M:%S"
            if None not in offsets:
                self._zone, self._format = UTC, f"{self._format}Z"
        self._as_text = isinstance(split.valid, str)

    def value(self, time_ms: int) -> str | float | None:
        """Of a request at this time; None where the boundaries are no times."""
        if self._format is None:
            return None
        text = datetime.fromtimestamp(time_ms / 1000, tz=self._zone).strftime(self._format)
        return text if self._as_text else float(text)


def _is_written(mark: Boundary, form: str) -> bool:
    written = str(int(mark)) if isinstance(mark, float) and mark.is_integer() else str(mark)
    try:
        return datetime.strptime(written, form).strftime(form) == written
    except ValueError:
        return False


def _moment(mark: Boundary) -> datetime | None:
    try:
        return datetime.fromisoformat(mark) if isinstance(mark, str) else None
    except ValueError:
        return None
