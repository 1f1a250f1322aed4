"""Parsing of JSON values to raw columns, as if they stood in a log.

An invalid value of a request is refused; an invalid value that was stored earlier counts as
missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hemix.data.levels import level_features
from hemix.data.raw_columns import RawColumn, Where
from hemix.schema import Schema
from hemix.serving.field_validation import FieldValidator

__all__ = ["ColumnParser", "OnInvalid", "columns_of"]

OnInvalid = Callable[[int, str, str], None]
"""(row, column, message) of an invalid value; raises, or returns and the value counts as missing"""

_WHERE = Where("request")


class ColumnParser:
    """Parses the columns of one level, or the fields of events."""

    def __init__(self, schema: Schema, level: str, validator: FieldValidator) -> None:
        """Set up the columns.

        Args:
            schema: The schema.
            level: ``user``, ``item``, ``context``, ``cross`` or ``event``.
            validator: Validates the values.
        """
        self._validator = validator
        self._level = {"cross": "candidate", "item": "candidate"}.get(level, level)
        self._features = level_features(schema, level)
        self.columns = frozenset(
            column for name, feature in self._features.items() for column in feature.columns(name)
        )
        """All raw columns of the level"""

    def parse(
        self,
        rows: int,
        values_of: Callable[[str], Sequence[Any]],
        on_invalid: OnInvalid | None = None,
    ) -> dict[str, RawColumn | None]:
        """Parse the raw column of every feature.

        Args:
            rows: Number of rows.
            values_of: Returns a column's JSON values by its name, one per row, None where missing.
            on_invalid: Called for an invalid value.

        Returns:
            The raw column by feature; None for a computed feature.
        """
        raw: dict[str, RawColumn | None] = {}
        values: dict[str, Sequence[Any]] = {}
        for name, feature in self._features.items():
            columns = {}
            for column in feature.columns(name):
                if column not in values:
                    values[column] = values_of(column)
                is_valid = self._is_valid_in(column, on_invalid)
                columns[column] = feature.json_column(values[column], is_valid)
            raw[name] = feature.read(name, columns, rows, _WHERE)
        return raw

    def number(
        self, column: str, value: Any, row: int, on_invalid: OnInvalid | None = None
    ) -> float:
        """Parse a number that no feature reads, such as a column of the score expression.

        Args:
            column: Name of the column.
            value: JSON value.
            row: Index of the row, for ``on_invalid``.
            on_invalid: Called for an invalid value.

        Returns:
            The number; NaN where it is missing.
        """
        if value is None or not self._is_valid(row, column, value, on_invalid):
            return math.nan
        return float(value) if isinstance(value, int | float) else math.nan

    def _is_valid_in(self, column: str, on_invalid: OnInvalid | None) -> Callable[[int, Any], bool]:
        return lambda row, value: self._is_valid(row, column, value, on_invalid)

    def _is_valid(self, row: int, column: str, value: Any, on_invalid: OnInvalid | None) -> bool:
        problem = self._validator.problem(self._level, {column: value})
        if problem is not None and on_invalid is not None:
            on_invalid(row, *problem)
        return problem is None


def columns_of(rows: Sequence[Mapping[str, Any]]) -> Callable[[str], Sequence[Any]]:
    """Return a function from a column's name to its values in rows that are mappings."""
    return lambda column: [row.get(column) for row in rows]
