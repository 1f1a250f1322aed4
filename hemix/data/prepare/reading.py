"""Parquet tables as streams of checked chunks: a file, or a folder of files read in name order as one table. A folder's name
``dt=2026-01-05`` is a column of its files that do not have it themselves.

Column types are brought to one form: dictionaries to their values, large and view strings to strings, and where the files of a
folder differ (int32 and int64, all null and int8), to the type that holds all, text for ids that are integers in one file and text
in another; in logs a column that is integers in one file and timestamps in another stays so, because only the schema's clock knows
what such integers are. A column that not all files of a folder have may not be asked for. This module knows no schema; whoever
needs a column asks for it with the schema's key that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hemix.data.cells import Where
from hemix.data.prepare.partitions import constant, partition_type
from hemix.data.prepare.places import LogFile, one_line, parquet_files
from hemix.errors import DataError

__all__ = ["Chunk", "Table"]

_LOGS = ("tables.impressions", "tables.events")


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of one file."""

    columns: dict[str, pa.Array]
    rows: int
    first_row: int
    """Row in the whole table."""
    where: Where
    """File, and row in the file."""


class Table:
    """An open table. Raises DataError naming the file: missing, an empty folder, not Parquet, truncated, impressions without rows,
    or files whose types do not go together."""

    def __init__(self, path: Path | str, role: str) -> None:
        """``path``: a URL where it is a string."""
        self.path = path
        self.role = role
        """The schema's key, such as ``tables.impressions``."""
        self.files = parquet_files(path, role)
        opened = [file.open() for file in self.files]
        self.first_rows = np.concatenate([[0], np.cumsum([f.metadata.num_rows for f in opened])]).astype(np.int64)
        self._lacking: dict[str, LogFile] = {}
        """Column -> the first file that does not have it, though another does"""
        self._both: set[str] = set()
        """Columns of integers in one file and timestamps in another"""
        self._text: dict[str, LogFile] = {}
        """Column that is integers elsewhere -> the first file in which it is text"""
        kinds = [_plain_schema(f.schema_arrow) for f in opened]
        self._stored = [frozenset(kind.names) for kind in kinds]
        """Columns in each file; others stand in the names of its folders"""
        self.kind = self._unify(self._with_partitions(kinds))
        if self.rows == 0 and role == "tables.impressions":
            raise DataError(f"{path}: expected at least one row ({role}), found none")

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return int(self.first_rows[-1])

    @property
    def names(self) -> list[str]:
        """Names of the columns that any file has, in the order of the first one that has them."""
        return [*self.kind.names, *self._lacking]

    def _with_partitions(self, kinds: list[pa.Schema]) -> list[pa.Schema]:
        """The files' columns, then those of their folders' names that are not in the file."""
        values: dict[str, list[str | None]] = {}
        for file in self.files:
            for name, value in file.partition:
                values.setdefault(name, []).append(value)
        types = {name: partition_type(found) for name, found in values.items()}
        for at, file in enumerate(self.files):
            for name, _ in file.partition:
                if name not in self._stored[at]:
                    kinds[at] = kinds[at].append(pa.field(name, types[name]))
        return kinds

    def _unify(self, kinds: list[pa.Schema]) -> pa.Schema:
        for file, kind in zip(self.files, kinds, strict=True):
            if len(set(kind.names)) != len(kind.names):
                twice = next(n for n in kind.names if kind.names.count(n) > 1)
                raise DataError(f"{file}: column {twice!r} is there twice")
        anywhere = dict.fromkeys(name for kind in kinds for name in kind.names)
        for name in anywhere:
            lacking = next((file for file, kind in zip(self.files, kinds, strict=True) if name not in kind.names), None)
            if lacking is not None:
                self._lacking[name] = lacking
        common = [name for name in anywhere if name not in self._lacking]
        if self.role in _LOGS:
            self._both = {
                name for name in common if {_time_kind(k.field(name).type) for k in kinds} == {"integers", "timestamps"}
            }
        first = _select(kinds[0], common)
        for file, kind in zip(self.files[1:], kinds[1:], strict=True):
            mine = _select(kind, common)
            for name in self._both:
                mine = mine.set(mine.get_field_index(name), first.field(name))
            first, mine = self._ids_as_text(first, mine, file), self._ids_as_text(mine, first, self.files[0])
            try:
                first = pa.unify_schemas([first, mine], promote_options="permissive")
            except pa.ArrowException as error:
                raise DataError(f"{file}: column types do not go with {self.files[0].name}: {one_line(error)}") from error
        return first.remove_metadata()

    def _ids_as_text(self, schema: pa.Schema, other: pa.Schema, file: LogFile) -> pa.Schema:
        """``schema`` with text where the ``other``, which is of ``file``, has text and it has integers."""
        for at, field in enumerate(schema):
            if pa.types.is_integer(field.type) and pa.types.is_string(other.field(field.name).type):
                self._text.setdefault(field.name, file)
                schema = schema.set(at, field.with_type(pa.string()))
        return schema

    def require(self, column: str, key: str, expects: Callable[[pa.DataType], str | None]) -> None:
        """Check that a column is there and of a usable type; ``expects`` says what was expected where it is not, and after
        ``; `` what to do."""
        if column in self._lacking:
            raise DataError(f"{self._lacking[column]}: no column {column!r} ({key}), which other files of the folder have")
        if column not in self.kind.names:
            raise DataError(f"{self.path}: no column {column!r} ({key}); it has: {', '.join(self.names)}")
        kind = self.kind.field(column).type
        expected = expects(kind)
        if expected is not None and not (self.rows == 0 and pa.types.is_null(kind)):  # without rows a type may be unknown
            expected, also, advice = expected.partition("; ")
            found = f"expected {expected}, found {kind}{also}{advice}"
            raise DataError(f"{self._text.get(column, self.path)}: column {column!r} ({key}): {found}")

    def chunks(self, columns: Sequence[str] | None, most_rows: int) -> Iterator[Chunk]:
        """All rows in order, at most ``most_rows`` at a time; ``columns`` None means all that every file has."""
        names = self.kind.names if columns is None else list(dict.fromkeys(columns))
        for file, stored, first in zip(self.files, self._stored, self.first_rows.tolist(), strict=False):
            row, own, of_folders = 0, [n for n in names if n in stored], dict(file.partition)
            try:
                for batch in file.open().iter_batches(batch_size=most_rows, columns=own, use_threads=False):
                    cast = {
                        n: self._cast(n, batch.column(n))
                        if n in stored
                        else constant(of_folders[n], self._type(n), batch.num_rows)
                        for n in names
                    }
                    yield Chunk(cast, batch.num_rows, first + row, Where(str(file), row))
                    row += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise file.damaged(error, own) from error

    def _type(self, name: str) -> pa.DataType:
        """Of a column in the names of folders."""
        return pa.int64() if name in self._both else self.kind.field(name).type

    def _cast(self, name: str, values: pa.Array) -> pa.Array:
        kind = values.type if name in self._both else self.kind.field(name).type
        return values if values.type == kind else values.cast(kind)

    def read(self, columns: Sequence[str]) -> dict[str, pa.Array]:
        """Whole columns in memory."""
        pieces = [chunk.columns for chunk in self.chunks(columns, 1 << 20)]
        return {name: pa.concat_arrays([piece[name] for piece in pieces]) for name in dict.fromkeys(columns)}

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
                return chunk.columns[column][row - chunk.first_row].as_py()
        raise AssertionError(f"row {row} of {self.rows}")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if t.is_large_string(kind) or t.is_string_view(kind):
        return pa.string()
    if t.is_large_list(kind) or t.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    return kind


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(f.name, _plain_type(f.type)) for f in schema])


def _select(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names])


def _time_kind(kind: pa.DataType) -> str:
    return "integers" if pa.types.is_integer(kind) else "timestamps" if pa.types.is_timestamp(kind) else "other"
