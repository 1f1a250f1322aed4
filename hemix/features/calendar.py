"""Calendar fields: the hour, weekday or hour of the week of a request or an event."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from hemix.data.clock import calendar_field
from hemix.data.raw_columns import RawColumn
from hemix.data.spec import FIRST, MISSING
from hemix.features.base import (
    EncodedColumns,
    FeatureType,
    Learned,
    RowContext,
    TensorColumns,
)
from hemix.features.registry import register_feature

__all__ = ["CalendarField"]

_SIZES = {"hour": 24, "weekday": 7, "hour_of_week": 168}


@register_feature
class CalendarField(FeatureType):
    """A field of the local time of the request (context) or of the event (event field).

    The id is 2 + the field; a timeless event has the id of a missing value.
    """

    levels: ClassVar[frozenset[str]] = frozenset({"context", "event"})

    type: Literal["clock"] = "clock"
    part: Literal["hour", "weekday", "hour_of_week"]

    def columns(self, name: str) -> tuple[str, ...]:
        """Return none: it is computed."""
        return ()

    def compute(self, context: RowContext) -> RawColumn:
        """Return int64 [rows], -1 for a timeless event."""
        assert context.time_ms is not None, f"{self.part} needs time_ms"
        return calendar_field(self.part, context.time_ms, context.timezone)

    def tensor_columns(self) -> TensorColumns:
        """Return one id."""
        return TensorColumns(ids=True)

    def table_rows(self, learned: Learned) -> int:
        """Return a row for every value, the unknown and the missing one."""
        return FIRST + _SIZES[self.part]

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        """Append the id.

        Args:
            raw: int [rows], -1 where missing.
            learned: Not used.
            out: Receives ids int32 [rows].
        """
        assert isinstance(raw, np.ndarray)
        out.ids.append(np.where(raw < 0, MISSING, FIRST + raw).astype(np.int32))
