"""Users of a partition, or all items: all versions of their features, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.encode import Encoders
from hemix.data.entities import coordinates_features, key_features
from hemix.data.keys import KeyIndex
from hemix.data.layout import Block, save_array
from hemix.data.levels import level_spec
from hemix.data.raw_columns import RawColumn, Where, concatenate, take
from hemix.data.spec import TIMELESS_MS, UNKNOWN
from hemix.data.versions import Versions
from hemix.preparation.rows import Rows, read_rows, save_rows
from hemix.preparation.texts import KeyTexts, observed_texts
from hemix.schema import Feature, Schema

__all__ = ["Entities", "TableCounts"]

Array = npt.NDArray[Any]


@dataclass
class TableCounts:
    """Counts of a user or item table for the manifest."""

    rows: int = 0
    versions: int = 0
    duplicates: int = 0

    def update(self, other: TableCounts) -> None:
        """Add the counts of other users."""
        self.rows += other.rows
        self.versions += other.versions
        self.duplicates += other.duplicates


@dataclass(frozen=True, kw_only=True)
class Entities:
    """All versions of all users of a partition, or of all items."""

    schema: Schema
    level: str
    versions: Versions
    number: Array
    """int32 [rows]: the user or item of each version; -1 for the unknown item"""
    columns: Mapping[str, RawColumn]
    """Raw column of every feature, [rows]"""
    raw: Array
    """float64 [rows, C]: the columns of the score expression"""

    @classmethod
    def build(
        cls,
        schema: Schema,
        level: str,
        table: Sequence[Rows],
        number: Array,
        index: KeyIndex,
        score_columns: int = 0,
    ) -> tuple[Entities, TableCounts, dict[str, KeyTexts]]:
        """Arrange the rows of a table; users or items without a row get one of missing values.

        Args:
            schema: The schema of the logs.
            level: ``user`` or ``item``.
            table: Decoded rows of the table, in the order of the table.
            number: int32 [rows], the user or item of each.
            index: All users or items, with their texts.
            score_columns: Number of columns of the score expression.

        Returns:
            The entities, the counts of the table, and the texts of features that are the id itself.
        """
        own, count = schema.user if level == "user" else schema.item, len(number)
        since = np.concatenate(
            [np.zeros(0, np.int64), *(_array(t, "valid_from_ms") for t in table)]
        )
        number, valid_from_ms, source, duplicates = _arrange(number, since, len(index), level)
        row = np.where(source < 0, count, source)  # a row of missing values follows the table's
        columns: dict[str, RawColumn] = {}
        texts: dict[str, KeyTexts] = {}
        for name, feature in schema.features.level(level).items():
            if feature.columns(name) == (own,):
                column, observed = _column_of_ids(schema, level, name, index)
                columns[name] = take(
                    concatenate([column, _missing(name, feature, own)]),
                    np.where(number < 0, len(index), number),
                )
                texts |= {
                    key: KeyTexts.concatenate([texts[key], values] if key in texts else [values])
                    for key, values in observed.items()
                }
            else:
                chunks = [*(t[f"{level}.{name}"] for t in table), _missing(name, feature, own)]
                columns[name] = take(concatenate(chunks), row)
        raw = np.zeros((len(row), 0))
        if score_columns:
            none = np.full((1, score_columns), np.nan)
            raw = np.concatenate([*(_array(t, "raw") for t in table), none])[row]
        counts = TableCounts(rows=count, versions=len(number), duplicates=duplicates)
        return (
            _entities(schema, level, len(index), number, valid_from_ms, columns, raw),
            counts,
            texts,
        )

    @property
    def rows(self) -> int:
        """Number of versions."""
        return len(self.number)

    def by_number(self, rows: Array) -> Array:
        """Sum counts of versions, int [rows], over the versions of every user or item.

        Returns:
            float64 [ids].
        """
        own = self.number >= 0
        return np.bincount(
            self.number[own],
            rows[own],
            minlength=len(self.versions.first_row) - 1,
        ).astype(np.float64)

    def coordinates(self) -> dict[str, Array]:
        """Return the values of every coordinates feature.

        Returns:
            ``level.feature`` -> float64 [rows, 2], latitude and longitude in degrees.
        """
        names = coordinates_features(self.schema, self.level)
        return {f"{self.level}.{name}": np.asarray(self.columns[name]) for name in names}

    def encode(self, encoders: Encoders) -> Block:
        """Encode the features of every version. The unknown item's id is unknown, not missing."""
        block = encoders.block(self.level, self.columns, self.rows)
        is_unknown_item = self.number < 0
        own = self.schema.user if self.level == "user" else self.schema.item
        features = self.schema.features.level(self.level)
        for column, name in enumerate(level_spec(self.schema, self.level).names):
            if features[name].columns(name) == (own,):
                block.ids[is_unknown_item, column] = UNKNOWN
        return block

    def keys(self, encoders: Encoders) -> dict[str, Array]:
        """Return uint64 [rows] by name of the features in statistics or match counts."""
        return {
            name: encoders.keys(self.level, name, self.columns[name], self.rows)
            for name in key_features(self.schema, self.level)
        }

    def save(self, folder: Path, block: Block, encoders: Encoders) -> None:
        """Write versions and features, and the raw values that a server needs.

        Args:
            folder: A new folder.
            block: Encoded features of every version.
            encoders: The encoders, for the keys of statistics.
        """
        folder.mkdir()
        save_array(folder / "first_row.npy", self.versions.first_row)
        save_array(folder / "valid_from_ms.npy", self.versions.valid_from_ms)
        block.save(folder, "features")
        coordinates = list(self.coordinates().values())
        if coordinates:
            save_array(folder / "coordinates.npy", np.concatenate(coordinates, axis=1))
        keys = list(self.keys(encoders).values())
        if keys:
            save_array(folder / "keys.npy", np.stack(keys, axis=1))
        if self.level == "item":
            save_array(folder / "number.npy", self.number)
            save_array(folder / "raw.npy", self.raw)

    # -- between stages ----------------------------------------------------------------------------

    def save_columns(self, path: Path) -> None:
        """Write versions and raw columns to a temporary file, for :meth:`load_columns`."""
        rows: Rows = {"number": self.number, "valid_from_ms": self.versions.valid_from_ms}
        save_rows(path, rows | {f"feature.{name}": values for name, values in self.columns.items()})

    @classmethod
    def load_columns(cls, path: Path, schema: Schema, level: str, ids: int) -> Entities:
        """Memory-map the file of :meth:`save_columns`.

        Args:
            path: The file.
            schema: The schema of the logs.
            level: ``user`` or ``item``.
            ids: Number of users or items.
        """
        rows = read_rows(path)
        number, valid_from_ms = np.asarray(rows["number"]), np.asarray(rows["valid_from_ms"])
        columns = {name: rows[f"feature.{name}"] for name in schema.features.level(level)}
        raw = np.zeros((len(number), 0))
        return _entities(schema, level, ids, number, valid_from_ms, columns, raw)


def _entities(
    schema: Schema,
    level: str,
    ids: int,
    number: Array,
    valid_from_ms: Array,
    columns: Mapping[str, RawColumn],
    raw: Array,
) -> Entities:
    first_row = np.searchsorted(number, np.arange(ids + 1)).astype(np.int64)
    versions = Versions(first_row=first_row, valid_from_ms=valid_from_ms)
    return Entities(
        schema=schema, level=level, versions=versions, number=number, columns=columns, raw=raw
    )


def _array(rows: Rows, name: str) -> Array:
    return np.asarray(rows[name])


def _missing(name: str, feature: Feature, own: str) -> RawColumn:
    """A raw column of one missing value."""
    column = feature.read(name, {}, 1, Where(own))
    assert column is not None
    return column


def _column_of_ids(
    schema: Schema, level: str, name: str, index: KeyIndex
) -> tuple[RawColumn, dict[str, KeyTexts]]:
    """The raw column of a feature that is the id itself, of every user or item; and its texts."""
    feature, texts = schema.features.level(level)[name], index.texts()
    own = feature.columns(name)[0]
    column = feature.read(name, {own: texts}, len(texts), Where(own))
    assert column is not None
    return column, observed_texts(schema, level, {name: column}, {own: texts})


def _arrange(
    number: Array,
    since: Array,
    count: int,
    level: str,
) -> tuple[Array, Array, Array, int]:
    """Sort versions by user or item, then time, and add rows of missing values.

    Returns:
        Numbers, start times, rows of the table (-1 for missing values), and the number of dropped
        duplicates.
    """
    order = np.lexsort((np.arange(len(number)), since, number))
    number, since, source = number[order], since[order], order
    # of rows with the same start, the last row of the file is used
    repeated = np.zeros(len(number), dtype=bool)
    repeated[:-1] = (number[1:] == number[:-1]) & (since[1:] == since[:-1])
    number, since, source = number[~repeated], since[~repeated], source[~repeated]

    covered = np.zeros(count, dtype=bool)
    covered[number[since == TIMELESS_MS]] = True
    early = np.concatenate([np.full(1 if level == "item" else 0, -1), np.flatnonzero(~covered)])
    number = np.concatenate([number, early]).astype(np.int32)
    since = np.concatenate([since, np.full(len(early), TIMELESS_MS)]).astype(np.int64)
    source = np.concatenate([source, np.full(len(early), -1)]).astype(np.int64)
    order = np.lexsort((since, number))
    return number[order], since[order], source[order], int(repeated.sum())
