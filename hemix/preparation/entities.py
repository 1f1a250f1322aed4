"""Users and items: all versions of their features, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.encode import Encoders
from hemix.data.entities import coordinates_features, key_features
from hemix.data.keys import KeyIndex
from hemix.data.layout import Block, save_array
from hemix.data.levels import level_spec
from hemix.data.raw_columns import RawColumn, Where, concatenate, numbers_of, take
from hemix.data.spec import TIMELESS_MS, UNKNOWN
from hemix.data.versions import Versions
from hemix.preparation.fit import EncoderFitter
from hemix.preparation.log_table import LogTable
from hemix.preparation.role_columns import check_ids, score_numbers_of
from hemix.preparation.times import times_of
from hemix.schema import Feature, Schema

__all__ = ["Entities"]

Array = npt.NDArray[Any]
_CHUNK_ROWS = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Entities:
    """All versions of all users, or of all items."""

    level: str
    versions: Versions
    number: Array
    """int32 [rows]: the user or item of each version; -1 for the unknown item"""
    columns: Mapping[str, RawColumn]
    """Raw column of every feature, [rows]"""
    raw: Array
    """float64 [rows, C]: the columns of the score expression"""
    in_table: Array
    """bool [ids]: users or items with a row in their table"""
    table_rows: int
    duplicates: int
    versioned: bool
    _own_columns: tuple[int, ...]
    """Positions of id columns that hold the raw id itself"""

    @classmethod
    def build(
        cls,
        level: str,
        table: LogTable | None,
        index: KeyIndex,
        schema: Schema,
        fitter: EncoderFitter,
        score_columns: tuple[str, ...] = (),
    ) -> Entities:
        """Read a table; users or items without a row get a row of missing values.

        Args:
            level: ``user`` or ``item``.
            table: The table; None if the schema names none.
            index: Numbers by id; the table's ids are added.
            schema: The schema of the logs.
            fitter: Observes every value.
            score_columns: Item columns of the score expression.

        Raises:
            DataError: With file, row and column of a value that cannot be used.
        """
        own = schema.user if level == "user" else schema.item
        features = schema.features.level(level)
        rows = _read_table(level, table, index, schema, fitter, score_columns)
        in_table = np.zeros(len(index), dtype=bool)
        in_table[rows.number] = True
        arranged = _arrange(rows.number, rows.valid_from_ms, len(index), level)
        number, valid_from_ms, source, duplicates = arranged
        count = len(rows.number)
        row = np.where(source < 0, count, source)  # a row of missing values follows the table's
        columns = {}
        for name, feature in features.items():
            if feature.columns(name) == (own,):
                columns[name] = _column_of_ids(level, name, feature, index, fitter, number)
            else:
                chunks = [*rows.columns[name], _missing(name, feature, own)]
                columns[name] = take(concatenate(chunks), row)
        first_row = np.searchsorted(number, np.arange(len(index) + 1)).astype(np.int64)
        names = level_spec(schema, level).names
        return cls(
            level=level,
            versions=Versions(first_row=first_row, valid_from_ms=valid_from_ms),
            number=number,
            columns=columns,
            raw=np.concatenate([rows.raw, np.full((1, len(score_columns)), np.nan)])[row],
            in_table=in_table,
            table_rows=count,
            duplicates=duplicates,
            versioned=rows.versioned,
            _own_columns=tuple(
                i for i, name in enumerate(names) if features[name].columns(name) == (own,)
            ),
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

    def summary(self) -> dict[str, Any]:
        """Return the manifest entry."""
        return {
            "rows": self.table_rows,
            "versions": self.rows,
            "versioned": self.versioned,
            "duplicates": self.duplicates,
        }

    def coordinates(self, schema: Schema) -> dict[str, Array]:
        """Return the values of every coordinates feature.

        Returns:
            ``level.feature`` -> float64 [rows, 2], latitude and longitude in degrees.
        """
        names = coordinates_features(schema, self.level)
        return {f"{self.level}.{name}": np.asarray(self.columns[name]) for name in names}

    def encode(self, encoders: Encoders) -> Block:
        """Encode the features of every version. The unknown item's id is unknown, not missing."""
        block = encoders.block(self.level, self.columns, self.rows)
        is_unknown_item = self.number < 0
        for column in self._own_columns:
            block.ids[is_unknown_item, column] = UNKNOWN
        return block

    def save(self, folder: Path, block: Block, encoders: Encoders) -> None:
        """Write versions and features, and the raw values that a server needs.

        Args:
            folder: A new folder.
            block: Encoded features of every version.
            encoders: The encoders, for the keys of statistics.
        """
        schema = encoders.schema
        folder.mkdir()
        save_array(folder / "first_row.npy", self.versions.first_row)
        save_array(folder / "valid_from_ms.npy", self.versions.valid_from_ms)
        block.save(folder, "features")
        coordinates = list(self.coordinates(schema).values())
        if coordinates:
            save_array(folder / "coordinates.npy", np.concatenate(coordinates, axis=1))
        names = key_features(schema, self.level)
        keys = [encoders.keys(self.level, name, self.columns[name], self.rows) for name in names]
        if keys:
            save_array(folder / "keys.npy", np.stack(keys, axis=1))
        if self.level == "item":
            save_array(folder / "number.npy", self.number)
            save_array(folder / "raw.npy", self.raw)


@dataclass(frozen=True, kw_only=True)
class _TableRows:
    """The rows of a user or item table in their order in the files."""

    number: Array
    """int32 [rows]: the user or item of each row"""
    valid_from_ms: Array
    """int64 [rows]"""
    columns: Mapping[str, list[RawColumn]]
    """Raw columns of every feature, one per chunk"""
    raw: Array
    """float64 [rows, C]"""
    versioned: bool


def _read_table(
    level: str,
    table: LogTable | None,
    index: KeyIndex,
    schema: Schema,
    fitter: EncoderFitter,
    score_columns: tuple[str, ...],
) -> _TableRows:
    """Read and check all rows; see :meth:`Entities.build`."""
    own = schema.user if level == "user" else schema.item
    features = schema.features.level(level)
    raw_columns: dict[str, list[RawColumn]] = {name: [] for name in features}
    numbers, times = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    raws = [np.zeros((0, len(score_columns)))]
    since = schema.valid_from
    versioned = table is not None and since is not None and since in table.names
    names = _columns(own, features, score_columns, since if versioned else None)
    for chunk in () if table is None else table.chunks(names, _CHUNK_ROWS):
        check_ids(own, chunk.columns[own], chunk.where)
        numbers.append(index.add(chunk.columns[own]))
        times.append(_valid_from(schema, chunk.columns, chunk.rows, chunk.where, versioned))
        read = {
            name: feature.read(name, chunk.columns, chunk.rows, chunk.where)
            for name, feature in features.items()
        }
        fitter.observe(level, read, chunk.columns)
        for name, raw_column in read.items():
            if raw_column is not None:
                raw_columns[name].append(raw_column)
        columns = [score_numbers_of(c, chunk.columns[c], chunk.where) for c in score_columns]
        raws.append(np.stack(columns, axis=1) if columns else np.zeros((chunk.rows, 0)))
    return _TableRows(
        number=np.concatenate(numbers),
        valid_from_ms=np.concatenate(times),
        columns=raw_columns,
        raw=np.concatenate(raws),
        versioned=versioned,
    )


def _columns(
    own: str,
    features: Mapping[str, Feature],
    score_columns: tuple[str, ...],
    since: str | None,
) -> list[str]:
    """The columns to read from a table."""
    feature_columns = [column for name, f in features.items() for column in f.columns(name)]
    return [own, *feature_columns, *score_columns, *([] if since is None else [since])]


def _missing(name: str, feature: Feature, own: str) -> RawColumn:
    """A raw column of one missing value."""
    column = feature.read(name, {}, 1, Where(own))
    assert column is not None
    return column


def _column_of_ids(
    level: str,
    name: str,
    feature: Feature,
    index: KeyIndex,
    fitter: EncoderFitter,
    number: Array,
) -> RawColumn:
    """The raw column of a feature that is the id itself, for users or items without a row too."""
    own, texts = feature.columns(name)[0], index.texts()
    column = feature.read(name, {own: texts}, len(texts), Where(own))
    assert column is not None
    fitter.observe(level, {name: column}, {own: texts})
    row = np.where(number < 0, len(texts), number)
    return take(concatenate([column, _missing(name, feature, own)]), row)


def _valid_from(
    schema: Schema,
    columns: Mapping[str, pa.Array],
    rows: int,
    where: Where,
    versioned: bool,
) -> Array:
    if not versioned:
        return np.full(rows, TIMELESS_MS, dtype=np.int64)
    assert schema.valid_from is not None
    values = columns[schema.valid_from]
    if not pa.types.is_temporal(values.type):  # the number 0 means from the beginning, like null
        from_start = np.nan_to_num(numbers_of(schema.valid_from, values, where)) == 0
        values = pc.if_else(pa.array(from_start), pa.scalar(None, values.type), values)
    return times_of(schema.valid_from, values, schema.clock, where)


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
