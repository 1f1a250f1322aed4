"""Features that arrived in pieces: of every column the value of the newest event.

Knows no store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from hemix.serving.types import Event, Features

__all__ = ["Columns", "as_features", "as_json", "set_columns"]

Columns: TypeAlias = dict[str, tuple[int, Any]]
"""Column -> time (ms UTC) and value of the newest event that named it."""


def set_columns(columns: Columns, event: Event, most: int) -> None:
    """Take over what a ``user`` or ``item`` event says, unless a newer event said otherwise; at
    equal times the later arrival holds. Of more than ``most`` columns those go whose events are the
    oldest, at equal times the first by name.
    """
    for name, value in event.fields.items():
        if name not in columns or columns[name][0] <= event.time_ms:
            columns[name] = (event.time_ms, value)
    if len(columns) > most:
        for name in sorted(columns, key=lambda name: (columns[name][0], name))[
            : len(columns) - most
        ]:
            del columns[name]


def as_features(revision: int, columns: Mapping[str, tuple[int, Any]]) -> Features:
    """The current values; empty and of revision 0 where no event named a column."""
    if not columns:
        return Features()
    return Features(
        revision,
        {name: value for name, (_, value) in columns.items()},
        max(t for t, _ in columns.values()),
    )


def as_json(value: object) -> str:
    """Compact JSON, plain ASCII. Raises ValueError for NaN and infinity, which are none."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
