"""Features assembled from events: for every column the value of the newest event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from hemix.serving.types import Event, LiveFeatures

__all__ = ["FeatureColumns", "set_columns", "to_features", "to_json"]

FeatureColumns: TypeAlias = dict[str, tuple[int, Any]]
"""Column -> time (ms UTC) and value of the newest event that named it."""


def set_columns(columns: FeatureColumns, event: Event, max_columns: int) -> None:
    """Update ``columns`` with the fields of a ``user`` or ``item`` event.

    A column keeps its value where a newer event (by event time) has set it; at equal times the
    later arrival wins.

    Args:
        columns: Current columns, changed in place.
        event: The event with the new values.
        max_columns: Number of columns to keep. Those with the oldest event times are dropped, at
            equal times the first by name.
    """
    for name, value in event.fields.items():
        if name not in columns or columns[name][0] <= event.time_ms:
            columns[name] = (event.time_ms, value)
    excess = len(columns) - max_columns
    if excess > 0:
        for name in sorted(columns, key=lambda name: (columns[name][0], name))[:excess]:
            del columns[name]


def to_features(revision: int, columns: Mapping[str, tuple[int, Any]]) -> LiveFeatures:
    """Return the current values of columns.

    Args:
        revision: Revision of the last change.
        columns: Time (ms UTC) and value by column.

    Returns:
        The features; empty and of revision 0 without columns.
    """
    if not columns:
        return LiveFeatures()
    return LiveFeatures(
        revision,
        {name: value for name, (_, value) in columns.items()},
        max(time_ms for time_ms, _ in columns.values()),
    )


def to_json(value: object) -> str:
    """Return compact ASCII JSON.

    Raises:
        ValueError: The value contains NaN or infinity, which JSON cannot hold.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
