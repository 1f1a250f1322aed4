"""Users and items: their numbers, and the versions of their features.

A number is the order of first appearance: in the impressions, then the events, then the table. Users and items are held in
memory; the logs are not.
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
import pyarrow.parquet as pq

from hemix.data.cells import RawColumn, Where, concatenate, numbers_of, take
from hemix.data.encode import Encoders, level_spec
from hemix.data.entities import coordinates_features, key_features
from hemix.data.keys import KeyIndex
from hemix.data.layout import Appender, Block, load_array, save_array
from hemix.data.prepare.columns import check_ids, score_numbers_of
from hemix.data.prepare.fit import Fitting
from hemix.data.prepare.reading import Table
from hemix.data.prepare.times import times_of
from hemix.data.spec import TIMELESS_MS, UNKNOWN
from hemix.data.versions import Versions
from hemix.files import storage_errors
from hemix.schema import Schema

__all__ = ["Entities", "LogNumbers", "number_log", "save_ids"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LogNumbers:
    """The user and item number of every row of a log, int32, memory-mapped from a temporary file."""

    user: Array
    item: Array


def number_log(table: Table, schema: Schema, users: KeyIndex, items: KeyIndex, folder: Path, rows: int) -> LogNumbers:
    """Number the users and items of a log in the order of their appearance."""
    names = {"user": (schema.user, users), "item": (schema.item, items)}
    folder.mkdir(exist_ok=True)
    paths = {part: folder / f"{table.role}.{part}.npy" for part in names}
    with Appender(paths["user"], np.int32) as user, Appender(paths["item"], np.int32) as item:
        for chunk in table.chunks([schema.user, schema.item], rows):
            for out, (column, index) in zip((user, item), names.values(), strict=True):
                check_ids(column, chunk.columns[column], chunk.where)
                out.append(index.add(chunk.columns[column]))
    return LogNumbers(load_array(paths["user"]), load_array(paths["item"]))


def save_ids(path: Path, index: KeyIndex, whole: bool) -> None:
    """Write raw ids in the order of their numbers: as whole numbers where every table has them so and int64 holds them all, else as
    text."""
    ids = texts = index.texts()
    if whole:
        try:
            ids = texts.cast(pa.int64())
        except pa.ArrowInvalid:  # uint64 goes on where int64 ends
            ids = texts
    path.parent.mkdir(exist_ok=True)
    with storage_errors(path):
        pq.write_table(pa.table({"id": ids}), path)


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
        table: Table | None,
        index: KeyIndex,
        schema: Schema,
        fitting: Fitting,
        score_columns: tuple[str, ...] = (),
    ) -> Entities:
        """Read the table, one row for every user or item that has none. Raises DataError naming file, row and column."""
        own = schema.user if level == "user" else schema.item
        features = schema.features.level(level)
        since_column = schema.valid_from
        versioned = (since_column,) if table is not None and since_column is not None and since_column in table.names else ()
        pieces: dict[str, list[RawColumn]] = {name: [] for name in features}
        numbers, since, raws = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros((0, len(score_columns)))]
        if table is not None:
            wanted = [own, *(c for n, f in features.items() for c in f.columns(n)), *score_columns]
            for chunk in table.chunks([*wanted, *versioned], 1 << 18):
                check_ids(own, chunk.columns[own], chunk.where)
                numbers.append(index.add(chunk.columns[own]))
                since.append(_valid_from(schema, chunk.columns, chunk.rows, chunk.where, bool(versioned)))
                read = {n: f.read(n, chunk.columns, chunk.rows, chunk.where) for n, f in features.items()}
                fitting.see(level, read, chunk.columns)
                for name, raw_column in read.items():
                    if raw_column is not None:
                        pieces[name].append(raw_column)
                columns = [score_numbers_of(c, chunk.columns[c], chunk.where) for c in score_columns]
                raws.append(np.stack(columns, axis=1) if columns else np.zeros((chunk.rows, 0)))
        in_table = np.zeros(len(index), dtype=bool)
        in_table[np.concatenate(numbers)] = True
        number, valid_from, source, duplicates = _arrange(np.concatenate(numbers), np.concatenate(since), len(index), level)
        rows = sum(len(n) for n in numbers)

        texts, everybody = index.texts(), Where(own)
        cells: dict[str, RawColumn] = {}
        for name, feature in features.items():
            nothing = feature.read(name, {}, 1, everybody)
            assert nothing is not None
            if feature.columns(name) == (own,):
                known = feature.read(name, {own: texts}, len(texts), everybody)
                assert known is not None
                fitting.see(level, {name: known}, {own: texts})
                cells[name] = take(concatenate([known, nothing]), np.where(number < 0, len(texts), number))
            else:
                cells[name] = take(concatenate([*pieces[name], nothing]), np.where(source < 0, rows, source))
        raw = np.concatenate([*raws, np.full((1, len(score_columns)), np.nan)])[np.where(source < 0, rows, source)]
        names = level_spec(schema, level).names
        return cls(
            level=level,
            versions=Versions(
                first_row=np.searchsorted(number, np.arange(len(index) + 1)).astype(np.int64), valid_from_ms=valid_from
            ),
            number=number,
            cells=cells,
            raw=raw,
            in_table=in_table,
            table_rows=rows,
            duplicates=duplicates,
            versioned=bool(versioned),
            _own_columns=tuple(i for i, n in enumerate(names) if features[n].columns(n) == (own,)),
        )

    @property
    def rows(self) -> int:
        """How many versions."""
        return len(self.number)

    def by_number(self, rows: Array) -> Array:
        """float64 [ids]: counts of rows, int [rows], summed over the versions of every number."""
        own = self.number >= 0
        return np.bincount(self.number[own], rows[own], minlength=len(self.versions.first_row) - 1).astype(np.float64)

    def summary(self) -> dict[str, Any]:
        """For the manifest."""
        return {"rows": self.table_rows, "versions": self.rows, "versioned": self.versioned, "duplicates": self.duplicates}

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
        """Write versions and features, and what a server needs beside them."""
        schema = encoders.schema
        folder.mkdir()
        save_array(folder / "first_row.npy", self.versions.first_row)
        save_array(folder / "valid_from_ms.npy", self.versions.valid_from_ms)
        block.save(folder, "features")
        places = list(self.coordinates(schema).values())
        if places:
            save_array(folder / "coordinates.npy", np.concatenate(places, axis=1))
        keys = [encoders.keys(self.level, name, self.cells[name], self.rows) for name in key_features(schema, self.level)]
        if keys:
            save_array(folder / "keys.npy", np.stack(keys, axis=1))
        if self.level == "item":
            save_array(folder / "number.npy", self.number)
            save_array(folder / "raw.npy", self.raw)


def _valid_from(schema: Schema, columns: Mapping[str, pa.Array], rows: int, where: Where, versioned: bool) -> Array:
    if not versioned:
        return np.full(rows, TIMELESS_MS, dtype=np.int64)
    assert schema.valid_from is not None
    values = columns[schema.valid_from]
    if not pa.types.is_temporal(values.type):  # as a number, 0 is the beginning too
        from_start = np.nan_to_num(numbers_of(schema.valid_from, values, where)) == 0
        values = pc.if_else(pa.array(from_start), pa.scalar(None, values.type), values)
    return times_of(schema.valid_from, values, schema.clock, where)


def _arrange(number: Array, since: Array, count: int, level: str) -> tuple[Array, Array, Array, int]:
    """Versions in order: (number, valid_from, row of the table or -1, duplicates left out)."""
    order = np.lexsort((np.arange(len(number)), since, number))
    number, since, source = number[order], since[order], order
    repeated = np.zeros(len(number), dtype=bool)
    repeated[:-1] = (number[1:] == number[:-1]) & (since[1:] == since[:-1])  # the last one of the file stays
    number, since, source = number[~repeated], since[~repeated], source[~repeated]

    covered = np.zeros(count, dtype=bool)
    covered[number[since == TIMELESS_MS]] = True
    early = np.concatenate([np.full(1 if level == "item" else 0, -1), np.flatnonzero(~covered)])
    number = np.concatenate([number, early]).astype(np.int32)
    since = np.concatenate([since, np.full(len(early), TIMELESS_MS)]).astype(np.int64)
    source = np.concatenate([source, np.full(len(early), -1)]).astype(np.int64)
    order = np.lexsort((since, number))
    return number[order], since[order], source[order], int(repeated.sum())
