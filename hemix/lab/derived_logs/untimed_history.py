"""A log whose histories have no times: only the order of a user's events is known.

Events are those before the first impression, so that no event of the logged days is visible to
requests before it. There is no real-time part.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from hemix.lab.derived_logs.derivation import Derivation
from hemix.lab.derived_logs.source import Rows, Source
from hemix.schema import Schema

__all__ = ["UntimedHistory"]


class UntimedHistory(Derivation):
    """A log in which a user's past is a list of items, the newest last."""

    summary = "histories without times"

    def read(self, source: Source) -> None:
        """Find the first impression."""
        self._clock = source.logs.event_clock
        self._begin_ms = source.first_time_ms()

    def schema(self, schema: Schema) -> dict[str, Any]:
        """Drop the event fields that are computed from the time."""
        content = super().schema(schema)
        fields = content.get("history", {}).get("fields", {})
        for name, field in schema.history.fields.items():
            if not field.columns(name):
                del fields[name]
        return content

    def events(self, rows: Rows) -> Rows:
        """Drop later events, and the times of the others."""
        past = rows.select(rows.time_ms < self._begin_ms)
        kind = past.table.schema.field(self._clock).type
        return past.with_column(self._clock, pa.nulls(past.table.num_rows, kind))
