"""Users and items as a request sees them: the run's tables, with what live events and the request
itself say put over them.

A user or item that the run does not know has no feature but its raw id and what was said of it.
Knows rows, not requests or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.encode import Encoders, level_features, level_spec
from hemix.data.entities import EntityTable, coordinates_features, key_features
from hemix.data.keys import keys_of
from hemix.data.layout import Block
from hemix.data.raw_columns import concatenate, take
from hemix.features.base import FeatureType
from hemix.serving.column_parser import ColumnParser, OnInvalid, columns_of
from hemix.serving.field_validation import FieldValidator

__all__ = ["EntityEncoder", "EntityRows"]

Array = npt.NDArray[Any]
Level = Literal["user", "item"]


@dataclass(frozen=True, kw_only=True)
class EntityRows:
    """Some users or items, encoded."""

    block: Block
    """[n]"""
    places: Array
    """float64 [n, 2 C], degrees; NaN where missing"""
    keys: Array
    """uint64 [n, P]: parts of statistics' keys"""
    raw: Array
    """float64 [n, columns]: the item columns of the score expression"""


@dataclass(frozen=True)
class _Slot:
    """Where a feature lies in a block."""

    columns: tuple[str, ...]
    own: bool
    """It is the raw id itself"""
    ids: int | None
    numbers: list[int]
    jagged: int | None
    place: int | None
    key: int | None


class EntityEncoder:
    """Encodes users, or items."""

    def __init__(self, encoders: Encoders, table: EntityTable, checks: FieldValidator) -> None:
        schema = encoders.schema
        self._encoders, self._table, self.level = encoders, table, table.level
        self._own = schema.user if table.level == "user" else schema.item
        self._known = encoders.users if table.level == "user" else encoders.items
        self._reader = ColumnParser(schema, table.level, checks)
        self._spec = level_spec(schema, table.level)
        self._score = (
            [n for n in schema.score_expression.names if n not in schema.outputs]
            if table.level == "item"
            else []
        )
        self.columns = self._reader.columns | frozenset(self._score)
        """The raw columns that an overlay may change"""
        self.place_names = tuple(
            f"{self.level}.{name}" for name in coordinates_features(schema, self.level)
        )
        self.key_names = tuple(f"{self.level}.{name}" for name in key_features(schema, self.level))
        self._slots = {
            name: self._slot(name, feature)
            for name, feature in level_features(schema, self.level).items()
        }

    def _slot(self, name: str, feature: FeatureType) -> _Slot:
        spec, key = self._spec, f"{self.level}.{name}"
        columns = feature.columns(name)
        return _Slot(
            columns=columns,
            own=columns == (self._own,),
            ids=spec.names.index(name) if name in spec.names else None,
            numbers=spec.numbers_of(name),
            jagged=spec.jagged_names.index(name) if name in spec.jagged_names else None,
            place=self.place_names.index(key) if feature.gives_coordinates else None,
            key=self.key_names.index(key) if key in self.key_names else None,
        )

    def numbers(self, ids: pa.Array) -> Array:
        """int64 [n]: the number of every raw id, text; -1 where the run does not know it."""
        return self.numbers_of(keys_of(ids))

    def numbers_of(self, keys: Array) -> Array:
        """int64 [n]: the same by the keys of the raw ids."""
        return self._known.look_up(keys, -1).astype(np.int64)

    def rows_at(self, numbers: Array, time_ms: Array) -> Array:
        """int64 [n]: the row that held for every number at its time; -1 for -1."""
        found = np.full(len(numbers), -1, dtype=np.int64)
        known = numbers >= 0
        found[known] = self._table.versions.row_at(numbers[known], time_ms[known])
        return found

    def encode(
        self,
        ids: Sequence[str],
        rows: Array,
        said: Sequence[Mapping[str, Any]],
        refuse: OnInvalid | None = None,
    ) -> EntityRows:
        """The features of ``ids`` [n]: those of the table's ``rows`` int [n] (-1: none), and over
        them what is ``said`` of each (JSON values by raw column; empty: nothing).
        """
        table, at = self._table, np.maximum(rows, 0)
        found = EntityRows(
            block=table.features.take(at),
            places=table.places.take(at, axis=0),
            keys=table.keys.take(at, axis=0),
            raw=table.raw.take(at, axis=0),
        )
        touched = [
            i
            for i, (row, over) in enumerate(zip(rows.tolist(), said, strict=True))
            if row < 0 or over
        ]
        if touched:
            jagged = self._put_over(found, ids, rows, said, np.array(touched), refuse)
            found = replace(found, block=replace(found.block, jagged=jagged))
        return found

    def _put_over(
        self,
        found: EntityRows,
        ids: Sequence[str],
        rows: Array,
        said: Sequence[Mapping[str, Any]],
        touched: Array,
        refuse: OnInvalid | None,
    ) -> tuple[tuple[Array, Array], ...]:
        """Encode what is said of the ``touched`` and write it into the arrays of ``found``, feature
        by feature; returns new jagged.
        """
        unknown = rows[touched] < 0
        values = [
            {**self._places_before(found, i, said[i], rows[i] >= 0), **said[i], self._own: ids[i]}
            for i in touched
        ]
        at_request: OnInvalid | None = None
        if refuse is not None:
            at_request = lambda row, column, problem: refuse(int(touched[row]), column, problem)  # noqa: E731
        raw = self._reader.parse(len(touched), columns_of(values), at_request)
        block = self._encoders.block(self.level, raw, len(touched))
        jagged = list(found.block.jagged)
        for name, slot in self._slots.items():
            new = (
                unknown
                if slot.own
                else unknown | np.array([any(c in said[i] for c in slot.columns) for i in touched])
            )
            if not new.any():
                continue
            to, source = touched[new], np.flatnonzero(new)
            if slot.ids is not None:
                found.block.ids[to, slot.ids] = block.ids[source, slot.ids]
            for column in slot.numbers:
                found.block.numbers[to, column] = block.numbers[source, column]
            if slot.jagged is not None:
                order = np.arange(len(rows))
                order[to] = len(rows) + source
                both = take(concatenate([jagged[slot.jagged], block.jagged[slot.jagged]]), order)
                assert isinstance(both, tuple)
                jagged[slot.jagged] = both
            if slot.place is not None:
                found.places[to, 2 * slot.place : 2 * slot.place + 2] = np.asarray(raw[name])[
                    source
                ]
            if slot.key is not None:
                found.keys[to, slot.key] = self._encoders.keys(
                    self.level, name, raw[name], len(touched)
                )[source]
        for column, name in enumerate(self._score):
            for place, i in enumerate(touched.tolist()):
                if unknown[place] or name in said[i]:
                    found.raw[i, column] = self._reader.number(name, said[i].get(name), i, refuse)
        return tuple(jagged)

    def _places_before(
        self, found: EntityRows, row: int, said: Mapping[str, Any], known: bool
    ) -> dict[str, Any]:
        """What the table says of places of which only one coordinate is said anew."""
        before: dict[str, Any] = {}
        for slot in self._slots.values():
            if slot.place is not None and known and any(c in said for c in slot.columns):
                degrees = found.places[row, 2 * slot.place : 2 * slot.place + 2].tolist()
                before |= {
                    c: None if np.isnan(d) else d
                    for c, d in zip(slot.columns, degrees, strict=True)
                }
        return before
