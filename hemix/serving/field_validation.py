"""Validation of requests before they reach the store or the model.

A valid value can be encoded; values outside the vocabulary are valid. Columns that the schema does
not name are ignored, or refused in strict mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hemix.data.levels import level_features
from hemix.data.spec import TIMELESS_MS
from hemix.errors import RequestError
from hemix.features.base import FeatureType, JsonCheck
from hemix.features.json_values import number_problem
from hemix.schema import Schema
from hemix.serving.types import RankRequest

__all__ = ["FieldValidator", "check_history", "position_of"]

_MAX_POSITION = 2**53
"""Up to here floats represent every integer"""
_MAX_SHOWN = 60


class FieldValidator:
    """Validates the fields of one schema."""

    def __init__(self, schema: Schema, *, strict: bool = False) -> None:
        """Collect the checks of every column.

        Args:
            schema: The schema.
            strict: Refuse columns that the schema does not name.
        """
        self._strict = strict
        features = {
            level: level_features(schema, level)
            for level in ("user", "context", "item", "cross", "event")
        }
        checks = {level: _column_checks(of_level) for level, of_level in features.items()}
        for name in schema.score_columns:
            checks["item"].setdefault(name, []).append(number_problem)
        self._checks = {
            "user": checks["user"],
            "context": checks["context"],
            "item": checks["item"],
            "candidate": _merge(checks["item"], checks["cross"]),
            "event": checks["event"],
        }
        self._add_training_columns(schema)
        shapes = {level: _json_schemas(of_level) for level, of_level in features.items()}
        self.shapes = {**shapes, "candidate": {**shapes["item"], **shapes["cross"]}}
        """By level, the JSON schema of every column that a feature reads"""

    def _add_training_columns(self, schema: Schema) -> None:
        """Accept the position of an impression, and the split's column, for training rows."""
        if schema.roles.bias is not None:
            position = self._checks["event"].setdefault(schema.roles.bias.column, [])
            # a field of the events table may have the same name
            if not position or schema.history_source == "impressions":
                position.append(_position_problem)
        split_column = schema.split.column
        if split_column is not None and split_column != schema.clock.column:
            self._checks["context"].setdefault(split_column, [])

    def reads(self, level: str, column: str) -> bool:
        """Return whether the schema has a column.

        Args:
            level: As for :meth:`problem`.
            column: Name of the column.
        """
        return column in self._checks[level]

    def problem(self, level: str, fields: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return column and message of the first invalid value, or None.

        Args:
            level: ``user``, ``item``, ``event`` (fields of an event), ``context`` or ``candidate``
                (item and cross columns).
            fields: JSON values by column.
        """
        columns = self._checks[level]
        for column, value in fields.items():
            checks = columns.get(column)
            if checks is None:
                if self._strict:
                    return column, f"the schema has no {level} column of this name"
                continue
            if value is None:
                continue
            for check in checks:
                expected = check(value)
                if expected is not None:
                    return column, f"expected {expected}, found {_shown(value)}"
        return None


def check_history(request: RankRequest) -> None:
    """Refuse a request's own history that is out of order or not before the request.

    The real-time history does not begin before the global one ends.

    Raises:
        RequestError: Names the first such event.
    """
    if request.history is None:
        return
    previous = TIMELESS_MS
    for name, events in (
        ("global", request.history.global_),
        ("realtime", request.history.realtime),
    ):
        for i, event in enumerate(events):
            field, time_ms = f"history.{name}[{i}].timestamp", event.time_ms
            if time_ms >= request.time_ms:
                expected = f"expected a time before the request's {request.time_ms}"
                raise RequestError(field, f"{expected}, found {time_ms}")
            if time_ms < previous:
                raise RequestError(
                    field, f"expected events by time, found {time_ms} after {previous}"
                )
            previous = time_ms


def position_of(value: Any) -> int | None:
    """Return the position in a JSON value, a whole number of at least 0 such as 2 or 2.0.

    Returns:
        The position; None for any other value.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= _MAX_POSITION
        or value != int(value)
    ):
        return None
    return int(value)


def _column_checks(features: Mapping[str, FeatureType]) -> dict[str, list[JsonCheck]]:
    checks: dict[str, list[JsonCheck]] = {}
    for name, feature in features.items():
        for index, column in enumerate(feature.columns(name)):
            checks.setdefault(column, []).append(feature.json_check(index))
    return checks


def _json_schemas(features: Mapping[str, FeatureType]) -> dict[str, dict[str, Any]]:
    return {
        column: feature.json_schema(index)
        for name, feature in features.items()
        for index, column in enumerate(feature.columns(name))
    }


def _merge(
    first: dict[str, list[JsonCheck]], second: dict[str, list[JsonCheck]]
) -> dict[str, list[JsonCheck]]:
    return {
        column: first.get(column, []) + second.get(column, []) for column in {**first, **second}
    }


def _position_problem(value: Any) -> str | None:
    return None if position_of(value) is not None else "a whole number of at least 0"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
