"""Values of requests against the schema's columns, before they come near a store or a model.

A value that passes can be encoded; a column that the schema does not name is left aside, or refused
in strict mode. Knows no vocabulary: a value that was never seen is no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hemix.data.levels import level_features
from hemix.features.base import FeatureType, JsonCheck
from hemix.features.json_values import number_problem
from hemix.schema import Schema

__all__ = ["FieldChecks", "position_of"]

_MOST_POSITION = 2**53
"""Up to here every whole number is a float too"""


class FieldChecks:
    """The checks of one schema."""

    def __init__(self, schema: Schema, *, strict: bool = False) -> None:
        self._strict = strict
        features = {
            level: level_features(schema, level)
            for level in ("user", "context", "item", "cross", "event")
        }
        levels = {level: _checks(named) for level, named in features.items()}
        for name in schema.score_expression.names:
            if name not in schema.outputs:
                levels["item"].setdefault(name, []).append(number_problem)
        self._columns = {
            "user": levels["user"],
            "context": levels["context"],
            "item": levels["item"],
            "candidate": _merged(levels["item"], levels["cross"]),
            "event": levels["event"],
        }
        if schema.roles.bias is not None:  # where an impression stood, for training rows
            position = levels["event"].setdefault(schema.roles.bias.column, [])
            if (
                not position or schema.history_source == "impressions"
            ):  # else a field of the events table, of the same name
                position.append(_position)
        if schema.split.column not in (
            None,
            schema.clock.column,
        ):  # for training rows too, which say in whose split they are
            self._columns["context"].setdefault(str(schema.split.column), [])
        shapes = {level: _shapes(named) for level, named in features.items()}
        self.shapes = {**shapes, "candidate": {**shapes["item"], **shapes["cross"]}}
        """By level, a JSON schema of every column that a feature reads"""

    def reads(self, level: str, column: str) -> bool:
        """Whether the schema has a column of this name. ``level``: as of :meth:`problem`."""
        return column in self._columns[level]

    def problem(self, level: str, fields: Mapping[str, Any]) -> tuple[str, str] | None:
        """(column, sentence) of the first value that does not fit, or None.

        ``level``: user, item, event (fields of an event), context, candidate (item and cross
        columns).
        """
        columns = self._columns[level]
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


def position_of(value: Any) -> int | None:
    """The position that a JSON value says: a whole number of at least 0 (2.0 is one); None where it
    says none."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= _MOST_POSITION
        or value != int(value)
    ):
        return None
    return int(value)


def _checks(features: Mapping[str, FeatureType]) -> dict[str, list[JsonCheck]]:
    checks: dict[str, list[JsonCheck]] = {}
    for name, feature in features.items():
        for position, column in enumerate(feature.columns(name)):
            checks.setdefault(column, []).append(feature.json_check(position))
    return checks


def _shapes(features: Mapping[str, FeatureType]) -> dict[str, dict[str, Any]]:
    return {
        column: feature.json_schema(position)
        for name, feature in features.items()
        for position, column in enumerate(feature.columns(name))
    }


def _merged(
    a: dict[str, list[JsonCheck]], b: dict[str, list[JsonCheck]]
) -> dict[str, list[JsonCheck]]:
    return {column: a.get(column, []) + b.get(column, []) for column in {**a, **b}}


def _position(value: Any) -> str | None:
    return None if position_of(value) is not None else "a whole number of at least 0"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
