"""Encoded users and items: the run's tables, overridden by live events and by the request.

A user or item that the run does not know has only its raw id and the overriding values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.encode import Encoders
from hemix.data.entities import EntityTable, coordinates_features, key_features
from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import keys_of
from hemix.data.layout import Block
from hemix.data.levels import level_features, level_spec
from hemix.features.base import FeatureType
from hemix.serving.column_parser import ColumnParser, OnInvalid, columns_of
from hemix.serving.field_validation import FieldValidator

__all__ = ["EntityEncoder", "EntityRows"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Level = Literal["user", "item"]
Lists = JaggedArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class EntityRows:
    """Some users or items, encoded."""

    block: Block
    """[n]"""
    coordinates: Array
    """float64 [n, 2 C], degrees; NaN where missing"""
    keys: Array
    """uint64 [n, P]: parts of statistics' keys"""
    raw: Array
    """float64 [n, columns]: the item columns of the score expression"""

    def copy(self) -> EntityRows:
        """Return rows whose arrays can be changed without changing these."""
        block = replace(self.block, ids=self.block.ids.copy(), numbers=self.block.numbers.copy())
        return EntityRows(
            block=block,
            coordinates=self.coordinates.copy(),
            keys=self.keys.copy(),
            raw=self.raw.copy(),
        )


@dataclass(frozen=True)
class _FeatureColumns:
    """Where a feature's values are in :class:`EntityRows`; None where it has none of a kind."""

    raw: tuple[str, ...]
    is_id: bool
    """The feature is the raw id itself."""
    ids: int | None
    numbers: list[int]
    jagged: int | None
    coordinates: slice | None
    key: int | None


@dataclass(frozen=True, kw_only=True)
class _Overrides:
    """New values for some rows."""

    rows: Ints
    """[P]: the overridden rows"""
    unknown: npt.NDArray[np.bool_]
    """[P]: rows that the run does not know"""
    values: Sequence[Mapping[str, Any]]
    """[P]: JSON values by raw column"""

    def changed(self, columns: _FeatureColumns) -> npt.NDArray[np.bool_]:
        """Return bool [P]: rows in which a feature gets new values."""
        if columns.is_id:
            return self.unknown
        named = [any(column in values for column in columns.raw) for values in self.values]
        changed: npt.NDArray[np.bool_] = self.unknown | np.array(named, dtype=bool)
        return changed


class EntityEncoder:
    """Encodes users, or items."""

    def __init__(self, encoders: Encoders, table: EntityTable, validator: FieldValidator) -> None:
        """Set up the columns.

        Args:
            encoders: Encoders of the run.
            table: The run's users or items.
            validator: Validates overriding values.
        """
        schema, level = encoders.schema, table.level
        self._encoders, self._table, self.level = encoders, table, level
        self._id_column = schema.user if level == "user" else schema.item
        self._numbers = encoders.users if level == "user" else encoders.items
        self._parser = ColumnParser(schema, level, validator)
        self._score_columns = schema.score_columns if level == "item" else ()
        self.columns = self._parser.columns | frozenset(self._score_columns)
        """The raw columns that can be overridden"""
        self.coordinates_names = tuple(
            f"{level}.{name}" for name in coordinates_features(schema, level)
        )
        self.key_names = tuple(f"{level}.{name}" for name in key_features(schema, level))
        self._spec = level_spec(schema, level)
        self._features = {
            name: self._columns_of(name, feature)
            for name, feature in level_features(schema, level).items()
        }

    def _columns_of(self, name: str, feature: FeatureType) -> _FeatureColumns:
        spec, key = self._spec, f"{self.level}.{name}"
        columns, coordinates = feature.columns(name), None
        if feature.gives_coordinates:
            first = 2 * self.coordinates_names.index(key)
            coordinates = slice(first, first + 2)
        return _FeatureColumns(
            raw=columns,
            is_id=columns == (self._id_column,),
            ids=spec.names.index(name) if name in spec.names else None,
            numbers=spec.numbers_of(name),
            jagged=spec.jagged_names.index(name) if name in spec.jagged_names else None,
            coordinates=coordinates,
            key=self.key_names.index(key) if key in self.key_names else None,
        )

    def numbers(self, ids: pa.Array) -> Ints:
        """Return int64 [n]: the number of every raw id, text; -1 for an unknown one."""
        return self.numbers_of(keys_of(ids))

    def numbers_of(self, keys: Array) -> Ints:
        """Return int64 [n]: the number of every raw id by its key; -1 for an unknown one."""
        return self._numbers.look_up(keys, -1).astype(np.int64)

    def rows_at(self, numbers: Ints, time_ms: Ints) -> Ints:
        """Return the table's row that was valid for every number at a time.

        Args:
            numbers: int64 [n]; -1 for an unknown user or item.
            time_ms: int64 [n].

        Returns:
            int64 [n]; -1 for -1.
        """
        rows = np.full(len(numbers), -1, dtype=np.int64)
        known = numbers >= 0
        rows[known] = self._table.versions.row_at(numbers[known], time_ms[known])
        return rows

    def encode(
        self,
        ids: Sequence[str],
        rows: Ints,
        overrides: Sequence[Mapping[str, Any]],
        on_invalid: OnInvalid | None = None,
    ) -> EntityRows:
        """Return the features of users or items.

        Args:
            ids: Raw ids [n].
            rows: int64 [n]: rows of the table; -1: none.
            overrides: JSON values by raw column [n], which override the table's.
            on_invalid: Called for an invalid value.
        """
        indices, table = np.maximum(rows, 0), self._table
        encoded = EntityRows(
            block=table.features.select(indices),
            coordinates=table.coordinates.take(indices, axis=0),
            keys=table.keys.take(indices, axis=0),
            raw=table.raw.take(indices, axis=0),
        )
        overridden = np.array(
            [
                i
                for i, (row, values) in enumerate(zip(rows.tolist(), overrides, strict=True))
                if row < 0 or values
            ],
            dtype=np.int64,
        )
        if not len(overridden):
            return encoded
        changes = _Overrides(
            rows=overridden,
            unknown=rows[overridden] < 0,
            values=[overrides[i] for i in overridden],
        )
        return self._override(encoded, [ids[i] for i in overridden], changes, on_invalid)

    def _override(
        self,
        encoded: EntityRows,
        ids: Sequence[str],
        changes: _Overrides,
        on_invalid: OnInvalid | None,
    ) -> EntityRows:
        """Return rows with new values in the features that ``changes`` name."""
        count = len(changes.rows)
        values = [
            {
                **self._other_coordinates(encoded, changes, i),
                **changes.values[i],
                self._id_column: id_,
            }
            for i, id_ in enumerate(ids)
        ]
        raw = self._parser.parse(count, columns_of(values), _at_rows(on_invalid, changes.rows))
        block = self._encoders.block(self.level, raw, count)
        result, jagged = encoded.copy(), list(encoded.block.jagged)
        for name, columns in self._features.items():
            changed = changes.changed(columns)
            if not changed.any():
                continue
            to, source = changes.rows[changed], np.flatnonzero(changed)
            if columns.ids is not None:
                result.block.ids[to, columns.ids] = block.ids[source, columns.ids]
            for column in columns.numbers:
                result.block.numbers[to, column] = block.numbers[source, column]
            if columns.jagged is not None:
                index = columns.jagged
                jagged[index] = _replace_lists(jagged[index], to, block.jagged[index], source)
            if columns.coordinates is not None:
                result.coordinates[to, columns.coordinates] = np.asarray(raw[name])[source]
            if columns.key is not None:
                keys = self._encoders.keys(self.level, name, raw[name], count)
                result.keys[to, columns.key] = keys[source]
        self._override_score_columns(result.raw, changes, on_invalid)
        return replace(result, block=replace(result.block, jagged=tuple(jagged)))

    def _override_score_columns(
        self, raw: Array, changes: _Overrides, on_invalid: OnInvalid | None
    ) -> None:
        """Write new values of the score expression's columns into ``raw``."""
        for column, name in enumerate(self._score_columns):
            for i, row in enumerate(changes.rows.tolist()):
                values = changes.values[i]
                if changes.unknown[i] or name in values:
                    raw[row, column] = self._parser.number(name, values.get(name), row, on_invalid)

    def _other_coordinates(
        self, encoded: EntityRows, changes: _Overrides, index: int
    ) -> dict[str, Any]:
        """Return the table's coordinates where the overrides name one of a pair."""
        other: dict[str, Any] = {}
        if changes.unknown[index]:
            return other
        values = changes.values[index]
        for columns in self._features.values():
            if columns.coordinates is None or values.keys().isdisjoint(columns.raw):
                continue
            degrees = encoded.coordinates[changes.rows[index], columns.coordinates].tolist()
            for column, value in zip(columns.raw, degrees, strict=True):
                other[column] = None if np.isnan(value) else value
        return other


def _at_rows(on_invalid: OnInvalid | None, rows: Ints) -> OnInvalid | None:
    """Return a callback for values of some rows, which it reports by their index in all rows."""
    if on_invalid is None:
        return None

    def report(index: int, column: str, problem: str) -> None:
        on_invalid(int(rows[index]), column, problem)

    return report


def _replace_lists(lists: Lists, to: Ints, new_lists: Lists, source: Ints) -> Lists:
    """Return lists of ids with the rows ``to`` replaced by rows ``source`` of ``new_lists``."""
    order = np.arange(lists.rows)
    order[to] = lists.rows + source
    return JaggedArray.concatenate([lists, new_lists]).select(order)
