"""Parquet tables as streams of checked chunks: a file, or a folder of files read in name order as
one table. A folder's name ``dt=2026-01-05`` is a column of its files that do not have it
themselves.

Every file keeps its own column types, but for their outer forms (plain.py): a value means the same
whatever its type, so whoever reads a column turns it into keys, numbers or times. Where a file's
type cannot be used, or means something else than another file's, the message names both. A column
that not all files of a folder have may not be asked for. This module knows no schema; whoever needs
a column asks for it with the schema's key that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hemix.data.jagged_array import offsets_of
from hemix.data.raw_columns import Where
from hemix.data.texts import family
from hemix.errors import DataError
from hemix.preparation.arrow_types import cast_to, check_utf8, plain, plain_type, shown
from hemix.preparation.hive_partitions import Value, constant, partition_type
from hemix.preparation.log_files import LogFile, parquet_files

__all__ = ["Chunk", "LogTable"]


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of one file."""

    columns: dict[str, pa.Array]
    """Those that the file has"""
    rows: int
    first_row: int
    """Row in the whole table."""
    where: Where
    """File, and row in the file."""
    varying: Mapping[str, Collection[str | None]] = field(default_factory=dict)
    """Column whose type is not the same in all files -> the families
    (:func:`hemix.data.texts.family`) of its types
    """


@dataclass(frozen=True)
class _File:
    """An open file of a table."""

    file: LogFile
    types: dict[str, pa.DataType]
    """Column -> type, those that stand in the names of its folders included"""
    stored: frozenset[str]
    """The columns that the file itself has"""
    first_row: int


class LogTable:
    """An open table.

    Raises DataError naming the file: missing, an empty folder, not Parquet, truncated, or
    impressions without rows.
    """

    def __init__(self, path: Path | str, role: str) -> None:
        """``path``: a URL where it is a string."""
        self.path = path
        self.role = role
        """The schema's key, such as ``tables.impressions``."""
        self.files = parquet_files(path, role)
        opened = [file.open() for file in self.files]
        self.first_rows = offsets_of([f.metadata.num_rows for f in opened])
        stored = [
            _plain_schema(file, f.schema_arrow) for file, f in zip(self.files, opened, strict=True)
        ]
        types = _with_partitions(self.files, stored)
        files = [
            _File(*of)
            for of in zip(
                self.files, types, map(frozenset, stored), self.first_rows.tolist(), strict=False
            )
        ]
        self._filled = [
            f for f, rows in zip(files, np.diff(self.first_rows), strict=True) if rows
        ] or files
        """The files that have rows; all where none has"""
        self._casts: dict[str, pa.DataType] = {}
        self._required: set[str] = set()
        if self.rows == 0 and role == "tables.impressions":
            raise DataError(f"{path}: expected at least one row ({role}), found none")
        self._varying = {
            name: {_value_family(kind) for kind in kinds}
            for name in self.names
            if len(kinds := self.kinds_of(name)) > 1
        }

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return int(self.first_rows[-1])

    @property
    def names(self) -> list[str]:
        """Names of the columns that any file has, in the order of the first one that has them."""
        return list(dict.fromkeys(name for file in self._filled for name in file.types))

    @property
    def kind(self) -> pa.Schema:
        """All columns, each of the first type that is not null among its files'; of the common one
        where there is one.
        """
        types = {}
        for name in self.names:
            kinds = self.kinds_of(name)
            types[name] = self._casts.get(name) or next(
                (k for k in kinds if not pa.types.is_null(k)), kinds[0]
            )
        return pa.schema(list(types.items()))

    def kinds_of(self, column: str) -> list[pa.DataType]:
        """The types that a column has in the files that have it (and rows), each once."""
        types: list[pa.DataType] = []
        for file in self._filled:
            if column in file.types and file.types[column] not in types:
                types.append(file.types[column])
        return types

    def require(self, column: str, key: str, expects: Callable[[pa.DataType], str | None]) -> None:
        """Check that a column is there, in every file, and of usable types.

        Args:
            column: its name. key: the schema's that names it, for messages. expects: says what was
            expected where a type cannot be used, and after ``; `` what to do. Where it takes text,
            values are
                compared by their texts: then the types must be of one family, or text.

        Raises:
            DataError: naming the file, and another one where that has another type.
        """
        if column not in self.names:
            raise DataError(
                f"{self.path}: no column {column!r} ({key}); it has: "
                f"{', '.join(map(_named, self.names))}"
            )
        several, first = len(self.kinds_of(column)) > 1, None
        as_text = any(expects(kind) is None for kind in (pa.string(), pa.list_(pa.string())))
        for file in self._filled:
            if column not in file.types:
                raise DataError(
                    f"{file.file}: no column {column!r} ({key}), which other files of the folder "
                    "have"
                )
            kind = file.types[column]
            if pa.types.is_null(kind) and (several or self.rows == 0):
                continue  # its type is not known, or another file's
            expected = expects(kind)
            if expected is not None:
                expected, also, advice = expected.partition("; ")
                found = (
                    f"expected {expected}, found "
                    f"{kind}{self._elsewhere(column, kind)}{also}{advice}"
                )
                raise DataError(
                    f"{file.file if several else self.path}: column {column!r} ({key}): {found}"
                )
            if as_text and _value_family(kind) not in ("text", "null"):
                first = first or file
                if _value_family(kind) != _value_family(first.types[column]):
                    found = (
                        f"found {kind}, but {first.file.name} has {first.types[column]}: their "
                        "values have no text in common"
                    )
                    raise DataError(
                        f"{file.file}: column {column!r} ({key}): {found}; write both as one "
                        "type, or as text"
                    )
        self._required.add(column)

    def _elsewhere(self, column: str, kind: pa.DataType) -> str:
        """What another file has."""
        for file in self._filled:
            if column in file.types and file.types[column] not in (kind, pa.null()):
                return f"; {file.file.name} has {file.types[column]}"
        return ""

    def unify(self, column: str, kind: pa.DataType) -> None:
        """Read a column as this type from now on, whatever the files' own."""
        self._casts[column] = kind

    def chunks(self, columns: Sequence[str] | None, most_rows: int) -> Iterator[Chunk]:
        """All rows in order, at most ``most_rows`` at a time; ``columns`` None means all that each
        file has. Columns that were asked for hold text in UTF-8 only.
        """
        for file in self._filled:
            names = list(file.types) if columns is None else list(dict.fromkeys(columns))
            row, of_folders = 0, dict(file.file.partition)
            for batch in self._batches(
                file.file, [name for name in names if name in file.stored], most_rows
            ):
                where, read = Where(str(file.file), row), dict[str, pa.Array]()
                for name in names:
                    of_folder = name not in file.stored
                    values = (
                        constant(of_folders[name], file.types[name], batch.num_rows)
                        if of_folder
                        else batch.column(name)
                    )
                    read[name] = self._plain(name, values, where)
                yield Chunk(read, batch.num_rows, file.first_row + row, where, self._varying)
                row += batch.num_rows

    def _batches(self, file: LogFile, names: list[str], most_rows: int) -> Iterator[pa.RecordBatch]:
        try:
            yield from file.open().iter_batches(
                batch_size=most_rows, columns=names, use_threads=False
            )
        except (pa.ArrowException, OSError) as error:
            raise file.damaged(error, names) from error

    def _plain(self, name: str, values: pa.Array, where: Where) -> pa.Array:
        if (
            name not in self._required
        ):  # of whatever type: nobody reads it, rows are but told apart by it
            try:
                return plain(values)
            except pa.ArrowException:
                return values
        values = plain(values)
        check_utf8(name, values, where)
        return cast_to(name, values, self._casts[name], where) if name in self._casts else values

    def where(self, row: int) -> tuple[str, int]:
        """The file of a row of the table, and its row there."""
        file = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return str(self.files[file]), row - int(self.first_rows[file])

    def error(self, row: int, problem: str) -> DataError:
        """The error for a row of the table."""
        file, file_row = self.where(row)
        return DataError(f"{file}: row {file_row}: {problem}")

    def value(self, row: int, column: str) -> Any:
        """One raw value, read again from the file, for a message."""
        for chunk in self.chunks([column], 1 << 16):
            if row < chunk.first_row + chunk.rows:
                return shown(chunk.columns[column], row - chunk.first_row)
        raise AssertionError(f"row {row} of {self.rows}")


def _with_partitions(
    files: Sequence[LogFile], stored: Sequence[dict[str, pa.DataType]]
) -> list[dict[str, pa.DataType]]:
    """The files' columns, then those of their folders' names that are not in the file."""
    values: dict[str, list[Value]] = {}
    for file in files:
        for name, value in file.partition:
            values.setdefault(name, []).append(value)
    text = {
        name for own in stored for name, kind in own.items() if pa.types.is_string(kind)
    }  # 02 beside text is no number
    types = {
        name: partition_type(values_of, text=name in text) for name, values_of in values.items()
    }
    return [
        own | {name: types[name] for name, _ in file.partition if name not in own}
        for file, own in zip(files, stored, strict=True)
    ]


def _plain_schema(file: LogFile, schema: pa.Schema) -> dict[str, pa.DataType]:
    if len(set(schema.names)) != len(schema.names):
        twice = next(n for n in schema.names if schema.names.count(n) > 1)
        raise DataError(f"{file}: column {twice!r} is there twice")
    return {f.name: plain_type(f.type) for f in schema}


def _named(column: str) -> str:
    """A column's name for a message; quoted where it holds what cannot be seen, such as a byte
    order mark.
    """
    return column if column.isprintable() and column.strip() == column else ascii(column)


def _value_family(kind: pa.DataType) -> str | None:
    """The family of a column's values, which may lie in lists."""
    return family(kind.value_type if pa.types.is_list(kind) else kind)
