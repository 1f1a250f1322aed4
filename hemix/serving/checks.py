"""Values of requests against the schema's columns, before they come near a store or a model.

A value that passes can be encoded; a column that the schema does not name is left aside, or refused in strict mode. Knows no
vocabulary: a value that was never seen is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hemix.data.cells import MOST_NUMBER, columns_of
from hemix.data.encode import level_features
from hemix.schema import Categorical, Coordinates, Feature, Numeric, Schema, Vector

__all__ = ["FieldChecks", "position_of"]

_MOST = 1e300
"""What a category may be called"""
_MOST_POSITION = 2**53
"""Up to here every whole number is a float too"""

_DEGREES = (90.0, 180.0)
"""Of latitude and longitude, either way"""

Check = Callable[[Any], str | None]
"""What was expected where a value does not fit, else None."""


class FieldChecks:
    """The checks of one schema."""

    def __init__(self, schema: Schema, *, strict: bool = False) -> None:
        self._strict = strict
        features = {level: level_features(schema, level) for level in ("user", "context", "item", "cross", "event")}
        levels = {level: _checks(named) for level, named in features.items()}
        for name in schema.score_expression.names:
            if name not in schema.outputs:
                levels["item"].setdefault(name, []).append(_number)
        self._columns = {
            "user": levels["user"],
            "context": levels["context"],
            "item": levels["item"],
            "candidate": _merged(levels["item"], levels["cross"]),
            "event": levels["event"],
        }
        if schema.roles.bias is not None:  # where an impression stood, for training rows
            position = levels["event"].setdefault(schema.roles.bias.column, [])
            if not position or schema.history_source == "impressions":  # else a field of the events table, of the same name
                position.append(_position)
        if schema.split.column not in (None, schema.clock.column):  # for training rows too, which say in whose split they are
            self._columns["context"].setdefault(str(schema.split.column), [])
        shapes = {level: _shapes(named) for level, named in features.items()}
        self.shapes = {**shapes, "candidate": {**shapes["item"], **shapes["cross"]}}
        """By level, a JSON schema of every column that a feature reads"""

    def reads(self, level: str, column: str) -> bool:
        """Whether the schema has a column of this name. ``level``: as of :meth:`problem`."""
        return column in self._columns[level]

    def problem(self, level: str, fields: Mapping[str, Any]) -> tuple[str, str] | None:
        """(column, sentence) of the first value that does not fit, or None. ``level``: user, item, event (fields of an event), context,
        candidate (item and cross columns)."""
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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_POSITION or value != int(value):
        return None
    return int(value)


def _checks(features: Mapping[str, Feature]) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = {}
    for name, feature in features.items():
        for place, column in enumerate(columns_of(name, feature)):
            found.setdefault(column, []).append(_check(feature, place))
    return found


def _shapes(features: Mapping[str, Feature]) -> dict[str, dict[str, Any]]:
    return {
        column: _shape(feature, place)
        for name, feature in features.items()
        for place, column in enumerate(columns_of(name, feature))
    }


def _shape(feature: Feature, place: int) -> dict[str, Any]:
    value = {"type": ["string", "number", "boolean", "null"]}
    match feature:
        case Categorical(multi=True):
            return {"type": ["array", "null"], "items": value}
        case Categorical():
            return value
        case Vector(size=size):
            return {"type": ["array", "null"], "items": {"type": "number"}, "minItems": size, "maxItems": size}
        case Coordinates():
            limit = _DEGREES[place]
            return {"type": ["number", "null"], "minimum": -limit, "maximum": limit}
    return {"type": ["number", "null"]}


def _merged(a: dict[str, list[Check]], b: dict[str, list[Check]]) -> dict[str, list[Check]]:
    return {column: a.get(column, []) + b.get(column, []) for column in {**a, **b}}


def _check(feature: Feature, place: int) -> Check:
    match feature:
        case Categorical(multi=True):
            return _list
        case Categorical():
            return _scalar
        case Numeric():
            return _number
        case Vector(size=size):
            return lambda value: _vector(value, size)
        case Coordinates():
            limit = _DEGREES[place]
            return lambda value: _degrees(value, limit)
    raise AssertionError(f"{feature.type} reads no column")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < _MOST  # no math.isfinite: it refuses large integers


def _scalar(value: Any) -> str | None:
    return None if isinstance(value, str) or _is_number(value) else "a string, a number or a boolean"


def _list(value: Any) -> str | None:
    if isinstance(value, list) and all(part is None or _scalar(part) is None for part in value):
        kinds = {float if type(part) is int else type(part) for part in value if part is not None}
        if len(kinds) <= 1:  # 1 among floats is what JavaScript makes of 1.0
            return None
    return "a list of strings, of numbers or of booleans"


def _number(value: Any) -> str | None:
    return None if _is_number(value) and abs(value) <= MOST_NUMBER else f"a finite number up to {MOST_NUMBER:g}"


def _position(value: Any) -> str | None:
    return None if position_of(value) is not None else "a whole number of at least 0"


def _vector(value: Any, size: int) -> str | None:
    fits = isinstance(value, list) and len(value) == size and all(_number(v) is None for v in value)
    return None if fits else f"a list of {size} numbers up to {MOST_NUMBER:g}"


def _degrees(value: Any, limit: float) -> str | None:
    return None if _is_number(value) and abs(value) <= limit else f"degrees from -{limit:g} to {limit:g}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
