"""JSON values to cells: what a request, an event or an overlay says of a column, read as if it stood in a log.

A value that cannot be its column's is refused, where it is a request's own, or counts as missing, where it was stored before. Knows no
vocabulary and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from hemix.data.cells import Cell, Where, columns_of, read_cell
from hemix.data.encode import level_features
from hemix.data.texts import text_of
from hemix.schema import Categorical, Feature, Schema, Vector
from hemix.serving.checks import FieldChecks

__all__ = ["RawReader", "Refuse", "arrow_kind", "rows_of"]

Refuse = Callable[[int, str, str], None]
"""(row, column, sentence): what becomes of a value that does not fit; raises, or returns and the value is missing"""

_WHERE = Where("request")


class RawReader:
    """Reads the columns of one level, or of events' fields."""

    def __init__(self, schema: Schema, level: str, checks: FieldChecks) -> None:
        self._checks = checks
        self._level = {"cross": "candidate", "item": "candidate"}.get(level, level)
        self._features = level_features(schema, level)
        self.columns = frozenset(c for n, f in self._features.items() for c in columns_of(n, f))
        """All raw columns of the level"""

    def cells(self, rows: int, column: Callable[[str], Sequence[Any]], refuse: Refuse | None = None) -> dict[str, Cell | None]:
        """The cells of every feature. ``column``: a raw column's ``rows`` JSON values by its name, None where missing."""
        found: dict[str, Cell | None] = {}
        values: dict[str, Sequence[Any]] = {}
        for name, feature in self._features.items():
            columns = {}
            for raw in columns_of(name, feature):
                if raw not in values:
                    values[raw] = column(raw)
                columns[raw] = self._array(feature, raw, values[raw], refuse)
            found[name] = read_cell(name, feature, columns, rows, _WHERE)
        return found

    def number(self, column: str, value: Any, row: int, refuse: Refuse | None = None) -> float:
        """A number that no feature reads, such as a column of the score expression; NaN where missing."""
        if value is None or self._refused(row, column, value, refuse) or not isinstance(value, int | float):
            return math.nan
        return float(value)

    def _array(self, feature: Feature, column: str, values: Sequence[Any], refuse: Refuse | None) -> pa.Array:
        kind = arrow_kind(feature)
        if isinstance(feature, Categorical) and not feature.multi:
            try:
                return pa.array(values, kind)  # text as it is nearly always
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                pass
        usable = [
            None if value is None or self._refused(row, column, value, refuse) else _plain(feature, value)
            for row, value in enumerate(values)
        ]
        return pa.array(usable, kind)

    def _refused(self, row: int, column: str, value: Any, refuse: Refuse | None) -> bool:
        problem = self._checks.problem(self._level, {column: value})
        if problem is not None and refuse is not None:
            refuse(row, *problem)
        return problem is not None


def rows_of(rows: Sequence[Mapping[str, Any]]) -> Callable[[str], Sequence[Any]]:
    """Columns of rows that are mappings."""
    return lambda column: [row.get(column) for row in rows]


def arrow_kind(feature: Feature) -> pa.DataType:
    """The type of a feature's column, made of JSON values."""
    match feature:
        case Categorical(multi=True):
            return pa.list_(pa.string())
        case Categorical():
            return pa.string()
        case Vector():
            return pa.list_(pa.float64())
    return pa.float64()


def _plain(feature: Feature, value: Any) -> Any:
    match feature:
        case Categorical(multi=True):
            return [None if part is None else text_of(part) for part in value]
        case Categorical():
            return text_of(value)
        case Vector():
            return [float(part) for part in value]
    return float(value)
