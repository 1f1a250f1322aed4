"""Log tables: Parquet files, read as streams of checked chunks, whole or by row ranges.

A table is a file, or a folder of files in the order of their names. Every file keeps its own column
types; equal values of different types mean the same. Folder names such as ``dt=2026-01-05`` are
columns of files without a column of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.jagged_array import offsets_of
from hemix.data.raw_columns import Where
from hemix.data.texts import family
from hemix.errors import DataError
from hemix.preparation.arrow_types import (
    cast_to,
    check_utf8,
    message_value,
    normalized,
    normalized_type,
)
from hemix.preparation.chunks import Chunk, RowRange
from hemix.preparation.hive_partitions import Value, constant, partition_type
from hemix.preparation.log_files import LogFile, parquet_files

__all__ = ["LogTable"]


@dataclass(frozen=True)
class _OpenFile:
    """A file of a table."""

    file: LogFile
    types: dict[str, pa.DataType]
    """Column -> type, with the columns in the names of its folders"""
    stored: frozenset[str]
    """Columns in the file itself"""
    first_row: int
    row_groups: tuple[int, ...]
    """Rows of every row group"""


class LogTable:
    """An open table of the logs.

    Raises:
        DataError: A file is missing, truncated or not Parquet, a folder has no Parquet file, or the
            impressions have no row.
    """

    def __init__(self, path: Path | str, role: str, *, stored_at: Path | None = None) -> None:
        """Open all files.

        Args:
            path: A path, or a URL as text.
            role: The schema's key, such as ``tables.impressions``.
            stored_at: Where the Parquet files are, if ``path`` only names the table in messages.
        """
        self.path = path
        self.role = role
        self.files = parquet_files(path, role, stored_at)
        opened = [file.open() for file in self.files]
        file_rows = [f.metadata.num_rows for f in opened]
        self.first_rows = offsets_of(file_rows)
        stored = [
            _stored_types(file, f.schema_arrow) for file, f in zip(self.files, opened, strict=True)
        ]
        types = _with_partition_columns(self.files, stored)
        files = [
            _OpenFile(
                file,
                types[i],
                frozenset(stored[i]),
                int(self.first_rows[i]),
                _group_rows(opened[i]),
            )
            for i, file in enumerate(self.files)
        ]
        self._files = [f for f, rows in zip(files, file_rows, strict=True) if rows] or files
        """Files with rows; all files if none has rows"""
        self._casts: dict[str, pa.DataType] = {}
        self._required: set[str] = set()
        if self.rows == 0 and role == "tables.impressions":
            raise DataError(f"{path}: expected at least one row ({role}), found none")
        self._mixed_families = {
            name: {_value_family(kind) for kind in types_of}
            for name in self.names
            if len(types_of := self.types_of(name)) > 1
        }

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return int(self.first_rows[-1])

    @property
    def names(self) -> list[str]:
        """Columns of all files, in the order of their first appearance."""
        return list(dict.fromkeys(name for file in self._files for name in file.types))

    @property
    def arrow_schema(self) -> pa.Schema:
        """All columns with their types.

        A column has the type that :meth:`cast` gave it, else its first type that is not null.
        """
        types = {}
        for name in self.names:
            own = self.types_of(name)
            types[name] = self._casts.get(name) or next(
                (kind for kind in own if not pa.types.is_null(kind)), own[0]
            )
        return pa.schema(list(types.items()))

    def types_of(self, column: str) -> list[pa.DataType]:
        """Return the distinct types of a column in the files with rows."""
        types: list[pa.DataType] = []
        for file in self._files:
            if column in file.types and file.types[column] not in types:
                types.append(file.types[column])
        return types

    def require(self, column: str, key: str, expects: Callable[[pa.DataType], str | None]) -> None:
        """Check that every file has a column, of a type that can be used.

        Where text can be used, values are compared as text: then the types must be of one family,
        or text.

        Args:
            column: Its name.
            key: The key of the schema that names it, for messages.
            expects: Returns the expected types for a type that cannot be used, with advice after
                ``; ``, else None.

        Raises:
            DataError: With the file, and another file that has another type.
        """
        if column not in self.names:
            raise DataError(
                f"{self.path}: no column {column!r} ({key}); it has: "
                f"{', '.join(map(_column_for_message, self.names))}",
                code="missing_column",
                field=column,
            )
        several_types = len(self.types_of(column)) > 1
        compared_as_text = any(
            expects(kind) is None for kind in (pa.string(), pa.list_(pa.string()))
        )
        first_non_text: _OpenFile | None = None
        for file in self._files:
            if column not in file.types:
                raise DataError(
                    f"{file.file}: no column {column!r} ({key}), which other files of the folder "
                    "have",
                    code="missing_column",
                    field=column,
                )
            kind = file.types[column]
            if pa.types.is_null(kind) and (several_types or self.rows == 0):
                continue  # its type is unknown, or another file gives it
            expected = expects(kind)
            if expected is not None:
                raise self._wrong_type(file, column, key, expected)
            if compared_as_text and _value_family(kind) not in ("text", "null"):
                first_non_text = first_non_text or file
                _check_family(file, first_non_text, column, key)
        self._required.add(column)

    def _wrong_type(self, file: _OpenFile, column: str, key: str, expected: str) -> DataError:
        kind = file.types[column]
        expected, separator, advice = expected.partition("; ")
        other = next(
            (
                f"; {f.file.name} has {f.types[column]}"
                for f in self._files
                if column in f.types and f.types[column] not in (kind, pa.null())
            ),
            "",
        )
        path = file.file if len(self.types_of(column)) > 1 else self.path
        return DataError(
            f"{path}: column {column!r} ({key}): expected {expected}, found "
            f"{kind}{other}{separator}{advice}"
        )

    def cast(self, column: str, kind: pa.DataType) -> None:
        """Read a column as this type from now on, whatever type a file has.

        Args:
            column: Its name.
            kind: The type of all its values.
        """
        self._casts[column] = kind

    def ranges(self, rows: int) -> list[RowRange]:
        """Divide the table into ranges that tasks can read on their own.

        Args:
            rows: Largest number of rows of a range; a larger row group is a range of its own.

        Returns:
            Ranges in the order of the table.
        """
        ranges: list[RowRange] = []
        for number, file in enumerate(self._files):
            groups: list[int] = []
            first = count = 0
            for group, group_rows in enumerate(file.row_groups):
                if groups and count + group_rows > rows:
                    ranges.append(RowRange(number, tuple(groups), first, count))
                    groups, first, count = [], first + count, 0
                groups.append(group)
                count += group_rows
            if count:
                ranges.append(RowRange(number, tuple(groups), first, count))
        return ranges

    def chunks(self, columns: Sequence[str] | None, max_rows: int) -> Iterator[Chunk]:
        """Read all rows in order.

        Args:
            columns: Names of the columns; None reads all columns of each file.
            max_rows: Largest number of rows in a chunk.

        Yields:
            Chunks. Text of required columns is checked to be UTF-8.

        Raises:
            DataError: A row group is damaged, or a value is not UTF-8 or cannot be cast.
        """
        for number, file in enumerate(self._files):
            groups = tuple(range(len(file.row_groups)))
            whole = RowRange(number, groups, 0, sum(file.row_groups))
            yield from self.read(whole, columns, max_rows)

    def read(
        self, row_range: RowRange, columns: Sequence[str] | None, max_rows: int
    ) -> Iterator[Chunk]:
        """Read the rows of a range in order.

        Args:
            row_range: One of :meth:`ranges`.
            columns: As in :meth:`chunks`.
            max_rows: As in :meth:`chunks`.

        Yields:
            Chunks, as in :meth:`chunks`.

        Raises:
            DataError: As in :meth:`chunks`.
        """
        file = self._files[row_range.file]
        names = list(file.types) if columns is None else list(dict.fromkeys(columns))
        folder_values = dict(file.file.partition)
        stored = [name for name in names if name in file.stored]
        row = row_range.first_row
        for batch in self._batches(file.file, stored, max_rows, row_range.row_groups):
            where, rows = Where(str(file.file), row), batch.num_rows
            values = {
                name: (
                    batch.column(name)
                    if name in file.stored
                    else constant(folder_values[name], file.types[name], rows)
                )
                for name in names
            }
            log_row = np.arange(file.first_row + row, file.first_row + row + rows, dtype=np.int64)
            yield self._chunk(values, log_row, where)
            row += rows

    def _chunk(
        self, columns: Mapping[str, pa.Array], log_row: npt.NDArray[np.int64], where: Where
    ) -> Chunk:
        checked = {name: self._checked(name, values, where) for name, values in columns.items()}
        return Chunk(checked, log_row, where, self._mixed_families)

    def _batches(
        self, file: LogFile, names: list[str], max_rows: int, row_groups: Sequence[int]
    ) -> Iterator[pa.RecordBatch]:
        try:
            yield from file.open().iter_batches(
                batch_size=max_rows, row_groups=row_groups, columns=names, use_threads=False
            )
        except (pa.ArrowException, OSError) as error:
            raise file.damaged(error, names) from error

    def _checked(self, name: str, values: pa.Array, where: Where) -> pa.Array:
        if name not in self._required:  # only row hashes read it
            try:
                return normalized(values)
            except pa.ArrowException:
                return values
        values = normalized(values)
        check_utf8(name, values, where)
        return cast_to(name, values, self._casts[name], where) if name in self._casts else values

    def where(self, row: int) -> tuple[str, int]:
        """Return the file of a row of the table, and its row in that file."""
        file = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return str(self.files[file]), row - int(self.first_rows[file])

    def error(self, row: int, column: str, problem: str) -> DataError:
        """Return the error for a value of the table.

        Args:
            row: Row in the table.
            column: Name of the column.
            problem: What was expected and what was found.
        """
        file, file_row = self.where(row)
        return Where(str(file), file_row).error(0, column, problem)

    def value(self, row: int, column: str) -> Any:
        """Read a raw value again from its file, for a message.

        Args:
            row: Row in the table.
            column: Name of the column.
        """
        for chunk in self.chunks([column], 1 << 16):
            at = row - int(chunk.log_row[0])
            if at < chunk.rows:
                return message_value(chunk.columns[column], at)
        raise AssertionError(f"row {row} of {self.rows}")


def _check_family(file: _OpenFile, first: _OpenFile, column: str, key: str) -> None:
    """Refuse a file whose values never have the same text as those of another file."""
    kind, other = file.types[column], first.types[column]
    if _value_family(kind) != _value_family(other):
        raise DataError(
            f"{file.file}: column {column!r} ({key}): found {kind}, but {first.file.name} has "
            f"{other}: their values have no text in common",
            hint="write both as one type, or as text",
        )


def _with_partition_columns(
    files: Sequence[LogFile], stored: Sequence[dict[str, pa.DataType]]
) -> list[dict[str, pa.DataType]]:
    """Columns of each file, then those of its folders' names that the file does not have."""
    values: dict[str, list[Value]] = {}
    for file in files:
        for name, value in file.partition:
            values.setdefault(name, []).append(value)
    # a folder's 02 is no number where other files have text
    text = {name for own in stored for name, kind in own.items() if pa.types.is_string(kind)}
    types = {
        name: partition_type(values_of, text=name in text) for name, values_of in values.items()
    }
    return [
        own | {name: types[name] for name, _ in file.partition if name not in own}
        for file, own in zip(files, stored, strict=True)
    ]


def _group_rows(file: pq.ParquetFile) -> tuple[int, ...]:
    """The rows of every row group."""
    metadata = file.metadata
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))


def _stored_types(file: LogFile, schema: pa.Schema) -> dict[str, pa.DataType]:
    if len(set(schema.names)) != len(schema.names):
        repeated = next(n for n in schema.names if schema.names.count(n) > 1)
        raise DataError(
            f"{file}: two columns have the name {repeated!r}", hint="rename one of them"
        )
    return {f.name: normalized_type(f.type) for f in schema}


def _column_for_message(column: str) -> str:
    """A column's name; quoted if it holds invisible characters, such as a byte order mark."""
    return column if column.isprintable() and column.strip() == column else ascii(column)


def _value_family(kind: pa.DataType) -> str | None:
    """The family of a column's values, or of the values of its lists."""
    return family(kind.value_type if pa.types.is_list(kind) else kind)
