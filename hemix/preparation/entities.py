"""Users and items: the versions of their features, held in memory.

A number is the order of first appearance: in the impressions, then the events, then the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.encode import Encoders, level_spec
from hemix.data.entities import coordinates_features, key_features
from hemix.data.keys import KeyIndex
from hemix.data.layout import Block, save_array
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
    """int32 [rows]: whose version a row is; -1 for the unknown item"""
    cells: Mapping[str, RawColumn]
    """Feature -> raw column of every row"""
    raw: Array
    """float64 [rows, C]: the columns of the score expression"""
    in_table: Array
    """bool [ids]: which have a row in the table"""
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
        """Read a table; users or items without a row of their own get one of missing values.

        Args:
            level: ``user`` or ``item``.
            table: The table; None where there is none.
            index: Numbers by id; the table's ids are added.
            schema: Names features and columns.
            fitter: Sees every value.
            score_columns: Columns of the score expression to keep as numbers.

        Raises:
            DataError: Naming file, row and column of a wrong value.
        """
        own = schema.user if level == "user" else schema.item
        features = schema.features.level(level)
        rows = _read_table(level, table, index, schema, fitter, score_columns)
        in_table = np.zeros(len(index), dtype=bool)
        in_table[rows.number] = True
        arranged = _arrange(rows.number, rows.valid_from_ms, len(index), level)
        number, valid_from_ms, source, duplicates = arranged
        count = len(rows.number)
        row = np.where(source < 0, count, source)  # behind the table's rows comes a missing one
        cells = {}
        for name, feature in features.items():
            if feature.columns(name) == (own,):
                cells[name] = _column_of_ids(level, name, feature, index, fitter, number)
            else:
                cells[name] = take(
                    concatenate([*rows.cells[name], _missing(name, feature, own)]),
                    row,
                )
        first_row = np.searchsorted(number, np.arange(len(index) + 1)).astype(np.int64)
        names = level_spec(schema, level).names
        return cls(
            level=level,
            versions=Versions(first_row=first_row, valid_from_ms=valid_from_ms),
            number=number,
            cells=cells,
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
        """How many versions."""
        return len(self.number)

    def by_number(self, rows: Array) -> Array:
        """float64 [ids]: counts of rows, int [rows], summed over the versions of every number."""
        own = self.number >= 0
        return np.bincount(
            self.number[own],
            rows[own],
            minlength=len(self.versions.first_row) - 1,
        ).astype(np.float64)

    def summary(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "rows": self.table_rows,
            "versions": self.rows,
            "versioned": self.versioned,
            "duplicates": self.duplicates,
        }

    def coordinates(self, schema: Schema) -> dict[str, Array]:
        """``level.feature`` -> float64 [rows, 2] of every coordinates feature."""
        names = coordinates_features(schema, self.level)
        return {f"{self.level}.{name}": np.asarray(self.cells[name]) for name in names}

    def encode(self, encoders: Encoders) -> Block:
        """The features of every row. The unknown item's own id is unknown, not missing."""
        block = encoders.block(self.level, self.cells, self.rows)
        nobody = self.number < 0
        for column in self._own_columns:
            block.ids[nobody, column] = UNKNOWN
        return block

    def save(self, folder: Path, block: Block, encoders: Encoders) -> None:
        """Write versions and features, and what a server needs beside them.

        Args:
            folder: A new folder.
            block: The encoded features of every row.
            encoders: Give the keys of values that statistics go by.
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
        keys = [encoders.keys(self.level, name, self.cells[name], self.rows) for name in names]
        if keys:
            save_array(folder / "keys.npy", np.stack(keys, axis=1))
        if self.level == "item":
            save_array(folder / "number.npy", self.number)
            save_array(folder / "raw.npy", self.raw)


@dataclass(frozen=True, kw_only=True)
class _TableRows:
    """A user or item table as it was read."""

    number: Array
    """int32 [rows]: whose row it is"""
    valid_from_ms: Array
    """int64 [rows]"""
    cells: Mapping[str, list[RawColumn]]
    """Feature -> raw columns, one a chunk"""
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
    cells: dict[str, list[RawColumn]] = {name: [] for name in features}
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
        fitter.see(level, read, chunk.columns)
        for name, raw_column in read.items():
            if raw_column is not None:
                cells[name].append(raw_column)
        columns = [score_numbers_of(c, chunk.columns[c], chunk.where) for c in score_columns]
        raws.append(np.stack(columns, axis=1) if columns else np.zeros((chunk.rows, 0)))
    return _TableRows(
        number=np.concatenate(numbers),
        valid_from_ms=np.concatenate(times),
        cells=cells,
        raw=np.concatenate(raws),
        versioned=versioned,
    )


def _columns(
    own: str,
    features: Mapping[str, Feature],
    score_columns: tuple[str, ...],
    since: str | None,
) -> list[str]:
    """The columns that are read from a table."""
    of_features = [column for name, f in features.items() for column in f.columns(name)]
    return [own, *of_features, *score_columns, *([] if since is None else [since])]


def _missing(name: str, feature: Feature, own: str) -> RawColumn:
    """One row without a value."""
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
    """The column of a feature that holds the raw id itself, which no table needs to give."""
    own, texts = feature.columns(name)[0], index.texts()
    column = feature.read(name, {own: texts}, len(texts), Where(own))
    assert column is not None
    fitter.see(level, {name: column}, {own: texts})
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
    if not pa.types.is_temporal(values.type):  # as a number, 0 is the beginning too
        from_start = np.nan_to_num(numbers_of(schema.valid_from, values, where)) == 0
        values = pc.if_else(pa.array(from_start), pa.scalar(None, values.type), values)
    return times_of(schema.valid_from, values, schema.clock, where)


def _arrange(
    number: Array,
    since: Array,
    count: int,
    level: str,
) -> tuple[Array, Array, Array, int]:
    """Versions in order: (number, valid_from, row of the table or -1, duplicates left out)."""
    order = np.lexsort((np.arange(len(number)), since, number))
    number, since, source = number[order], since[order], order
    repeated = np.zeros(len(number), dtype=bool)
    repeated[:-1] = (number[1:] == number[:-1]) & (
        since[1:] == since[:-1]
    )  # the last one of the file stays
    number, since, source = number[~repeated], since[~repeated], source[~repeated]

    covered = np.zeros(count, dtype=bool)
    covered[number[since == TIMELESS_MS]] = True
    early = np.concatenate([np.full(1 if level == "item" else 0, -1), np.flatnonzero(~covered)])
    number = np.concatenate([number, early]).astype(np.int32)
    since = np.concatenate([since, np.full(len(early), TIMELESS_MS)]).astype(np.int64)
    source = np.concatenate([source, np.full(len(early), -1)]).astype(np.int64)
    order = np.lexsort((since, number))
    return number[order], since[order], source[order], int(repeated.sum())
