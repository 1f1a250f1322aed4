"""JSON values to raw columns: what a request, an event or an overlay says of a column, read as if
it stood in a log.

A value that cannot be its column's is refused, where it is a request's own, or counts as missing,
where it was stored before. Knows no vocabulary and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hemix.data.levels import level_features
from hemix.data.raw_columns import RawColumn, Where
from hemix.schema import Schema
from hemix.serving.checks import FieldChecks

__all__ = ["RawReader", "Refuse", "rows_of"]

Refuse = Callable[[int, str, str], None]
"""(row, column, sentence): what becomes of a value that does not fit; raises, or returns and the
value is missing
"""

_WHERE = Where("request")


class RawReader:
    """Reads the columns of one level, or of events' fields."""

    def __init__(self, schema: Schema, level: str, checks: FieldChecks) -> None:
        self._checks = checks
        self._level = {"cross": "candidate", "item": "candidate"}.get(level, level)
        self._features = level_features(schema, level)
        self.columns = frozenset(c for n, f in self._features.items() for c in f.columns(n))
        """All raw columns of the level"""

    def read(
        self, rows: int, column: Callable[[str], Sequence[Any]], refuse: Refuse | None = None
    ) -> dict[str, RawColumn | None]:
        """Read the raw column of every feature.

        Args:
            rows: How many rows.
            column: Gives a column's ``rows`` JSON values by its name, None where missing.
            refuse: Called for a value that does not fit; it raises, or the value counts as missing.

        Returns:
            By feature; None for a computed one.
        """
        raw: dict[str, RawColumn | None] = {}
        values: dict[str, Sequence[Any]] = {}
        for name, feature in self._features.items():
            columns = {}
            for source in feature.columns(name):
                if source not in values:
                    values[source] = column(source)
                columns[source] = feature.json_column(values[source], self._fits(source, refuse))
            raw[name] = feature.read(name, columns, rows, _WHERE)
        return raw

    def _fits(self, column: str, refuse: Refuse | None) -> Callable[[int, Any], bool]:
        return lambda row, value: not self._refused(row, column, value, refuse)

    def number(self, column: str, value: Any, row: int, refuse: Refuse | None = None) -> float:
        """A number that no feature reads, such as a column of the score expression; NaN where
        missing.
        """
        if (
            value is None
            or self._refused(row, column, value, refuse)
            or not isinstance(value, int | float)
        ):
            return math.nan
        return float(value)

    def _refused(self, row: int, column: str, value: Any, refuse: Refuse | None) -> bool:
        problem = self._checks.problem(self._level, {column: value})
        if problem is not None and refuse is not None:
            refuse(row, *problem)
        return problem is not None


def rows_of(rows: Sequence[Mapping[str, Any]]) -> Callable[[str], Sequence[Any]]:
    """Columns of rows that are mappings."""
    return lambda column: [row.get(column) for row in rows]
