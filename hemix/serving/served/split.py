"""What a served row holds in the split's column: the day, hour or month of its request, written as the split's boundaries are.

A boundary that is no time, such as the number of a part, says nothing of a request; then the request's context has to. Knows no file.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from hemix.data.texts import text_of
from hemix.schema import Boundary, Schema

__all__ = ["SplitColumn"]

_DAYS = ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d")
_HOURS = ("%Y-%m-%d %H", "%Y-%m-%d-%H", "%Y-%m-%dT%H", "%Y%m%d%H")
_MOMENTS = ("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
_MONTHS = ("%Y-%m", "%Y%m", "%Y/%m")
_FORMATS = (*_DAYS, *_HOURS, *_MOMENTS, *_MONTHS)


class SplitColumn:
    """The split's column of one schema."""

    def __init__(self, schema: Schema) -> None:
        split = schema.split
        marks = [mark for mark in (split.start, split.valid, split.test, split.end) if mark is not None]
        self._zone = ZoneInfo(schema.clock.timezone)
        self._format = next((f for f in _FORMATS if all(_is_written(mark, f) for mark in marks)), None)
        self.kind = pa.string() if isinstance(marks[0], str) else pa.int64()
        if any(isinstance(mark, float) for mark in marks):
            self.kind = pa.float64()

    def value(self, given: Any, time_ms: int) -> Any:
        """Of a request of this time, whose context gives ``given`` for the column; None where neither is of use."""
        if pa.types.is_string(self.kind):
            if isinstance(given, str | int | float):
                return text_of(given)
        elif isinstance(given, int | float) and (pa.types.is_floating(self.kind) or float(given).is_integer()):
            return float(given) if pa.types.is_floating(self.kind) else int(given)
        if self._format is None:
            return None
        text = datetime.fromtimestamp(time_ms / 1000, tz=self._zone).strftime(self._format)
        return text if pa.types.is_string(self.kind) else int(text)


def _is_written(mark: Boundary, form: str) -> bool:
    if isinstance(mark, float):
        return False
    try:
        return datetime.strptime(str(mark), form).strftime(form) == str(mark)
    except ValueError:
        return False
