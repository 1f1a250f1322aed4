"""Reader of raw files, delimited text or Parquet, in chunks that fit into memory.

Every problem is a DataError with the file, the line (text) or row (Parquet), and the column. Empty
text and NaN are read as null.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from hemix.errors import DataError

__all__ = [
    "DATE",
    "IDS",
    "INTEGER",
    "INTEGRAL_FLOAT",
    "NUMBER",
    "NUMBERS",
    "TEXT",
    "TIME",
    "TIMES",
    "ColumnType",
    "RawChunk",
    "RawFile",
    "TextFormat",
]

CHUNK_ROWS = 1 << 17
BLOCK_BYTES = 1 << 22  # Arrow reads some thirty blocks ahead
_SEPARATOR = b"\x1f"  # ASCII's unit separator, which occurs in no title


@dataclass(frozen=True)
class ColumnType:
    """The type of a column."""

    description: str
    """For messages"""
    parsed: pa.DataType
    """The type as which Arrow parses the text"""
    result: pa.DataType
    """The type of the values in a chunk"""


INTEGER = ColumnType("a whole number", pa.int64(), pa.int64())
INTEGRAL_FLOAT = ColumnType("a whole number", pa.float64(), pa.int64())
"""Integers that may be written as 4.0: pandas does so in a column with missing values."""
NUMBER = ColumnType("a number", pa.float64(), pa.float64())
TEXT = ColumnType("text", pa.string(), pa.string())
DATE = ColumnType("a date such as 2022-04-10", pa.date32(), pa.date32())
IDS = ColumnType("a list of whole numbers", pa.list_(pa.int64()), pa.list_(pa.int64()))
NUMBERS = ColumnType("a list of numbers", pa.list_(pa.float64()), pa.list_(pa.float64()))
TIME = ColumnType("a time", pa.timestamp("us"), pa.timestamp("us"))
TIMES = ColumnType("a list of times", pa.list_(pa.timestamp("us")), pa.list_(pa.timestamp("us")))


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """The format of a delimited text file."""

    delimiter: str = ","
    """One character, or several such as ``::``."""
    header: bool = True
    quoted: bool = True
    """Whether values may be in double quotes."""
    encoding: str = "utf8"

    @property
    def arrow_delimiter(self) -> str:
        """The single character for Arrow, which replaces a longer delimiter."""
        return self.delimiter if len(self.delimiter) == 1 else _SEPARATOR.decode()


@dataclass(frozen=True)
class RawChunk:
    """Consecutive rows of a raw file."""

    table: pa.Table
    path: Path
    first: int
    """Number of its first row in the file, from 1; empty lines do not count"""
    unit: str
    """``line`` (text) or ``row`` (Parquet)"""

    def reject(self, invalid: npt.NDArray[np.bool_], column: str, expected: str) -> None:
        """Check that no row of a column is invalid.

        Args:
            invalid: bool [rows].
            column: The column's name.
            expected: What a valid value is, for the message.

        Raises:
            DataError: For the first invalid row.
        """
        if invalid.any():
            row = int(np.argmax(invalid))
            value = self.table[column][row].as_py()
            shown = "nothing" if value is None else repr(value)
            raise DataError(
                f"{self.path}: {self.unit} {self.first + row}, {column}: expected {expected}, "
                f"found {shown}",
                field=column,
            )

    def require_values(self, *columns: str) -> None:
        """Raise DataError where one of the columns is null."""
        for column in columns:
            if self.table[column].null_count:
                self.reject(np.asarray(self.table[column].is_null()), column, "a value")

    def flags(self, column: str) -> npt.NDArray[np.bool_]:
        """Convert a column of 0 and 1 to booleans. Raises DataError for anything else."""
        values = np.asarray(self.table[column])
        self.reject((values != 0) & (values != 1), column, "0 or 1")
        return np.asarray(values == 1)


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """A raw file and the columns to read of it."""

    path: Path
    columns: Mapping[str, ColumnType]
    """Name -> type. For text without a header: all its columns, in order"""
    text: TextFormat | None = None
    """None: Parquet"""
    optional: frozenset[str] = frozenset()
    """Columns that the file may lack"""

    def check(self) -> None:
        """Raise DataError if the file cannot be opened or lacks a column."""
        self._select_columns(self._file_columns())

    def chunks(self, only: Sequence[str] | None = None) -> Iterator[RawChunk]:
        """Read the rows in order, with every value of its column's type or null.

        ``only`` limits the columns. Raises DataError for a malformed file.
        """
        file_columns = self._file_columns()
        names = [
            name for name in self._select_columns(file_columns) if only is None or name in only
        ]
        if self.text is None:
            unit, first, tables = "row", 1, self._read_parquet(names)
        else:
            unit, first = "line", 1 + self.text.header
            tables = self._read_text(names, file_columns, self.text)
        for table in tables:
            if table.num_rows:
                yield self._convert(RawChunk(table, self.path, first, unit))
                first += table.num_rows

    def _file_columns(self) -> list[str]:
        """List every column of the file, in order."""
        with self._data_errors():
            if self.text is None:
                with pa.parquet.ParquetFile(self.path) as file:
                    return list(file.schema_arrow.names)
            with self.path.open("rb") as lines:
                if not self.text.header:
                    return list(self.columns)
                header = lines.readline(BLOCK_BYTES).decode(self.text.encoding).rstrip("\r\n")
            names = next(csv.reader([header], delimiter=self.text.arrow_delimiter), [])
            return [name.removeprefix("\ufeff") for name in names]

    def _select_columns(self, file_columns: list[str]) -> list[str]:
        missing = [
            name for name in self.columns if name not in file_columns and name not in self.optional
        ]
        if missing:
            raise DataError(
                f"{self.path}: no column {', '.join(missing)}; found "
                f"{', '.join(file_columns) or 'nothing'}",
                code="missing_column",
                field=missing[0],
            )
        return [name for name in self.columns if name in file_columns]

    def _read_parquet(self, names: list[str]) -> Iterator[pa.Table]:
        with self._data_errors(), pa.parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(CHUNK_ROWS, columns=names, use_threads=False):
                yield pa.Table.from_batches([batch]).select(names)

    def _read_text(
        self, names: list[str], file_columns: list[str], text: TextFormat
    ) -> Iterator[pa.Table]:
        invalid_rows: list[Any] = []

        def record_invalid_row(row: Any) -> str:
            invalid_rows.append(row)
            return "error"

        with self._data_errors(file_columns, invalid_rows), self.path.open("rb") as file:
            source: Any = file
            if len(text.delimiter) > 1:
                stream = _DelimiterReplacer(file, text.delimiter.encode())
                source = pa.PythonFile(stream, mode="r")
            reader = pa.csv.open_csv(
                source,
                pa.csv.ReadOptions(
                    use_threads=False,  # with threads Arrow does not report the line number
                    block_size=BLOCK_BYTES,
                    column_names=None if text.header else file_columns,
                    encoding=text.encoding,
                ),
                pa.csv.ParseOptions(
                    delimiter=text.arrow_delimiter,
                    quote_char='"' if text.quoted else False,
                    invalid_row_handler=record_invalid_row,
                ),
                pa.csv.ConvertOptions(
                    column_types={name: self.columns[name].parsed for name in names},
                    include_columns=names,
                    null_values=["", "NaN", "nan"],
                    strings_can_be_null=True,
                ),
            )
            for batch in reader:
                yield pa.Table.from_batches([batch])

    def _convert(self, chunk: RawChunk) -> RawChunk:
        """Cast every column to its type, with NaN as null."""
        table = chunk.table
        for i, name in enumerate(table.column_names):
            column, values = self.columns[name], table[name]
            if pa.types.is_floating(values.type):
                values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
                if pa.types.is_integer(column.result):
                    fractional = pc.fill_null(pc.not_equal(values, pc.floor(values)), False)
                    chunk.reject(np.asarray(fractional), name, column.description)
            if values.type != column.result:
                try:
                    values = values.cast(column.result)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    raise DataError(
                        f"{self.path}: {name}: expected {column.description} in every row, found "
                        f"{values.type}: {error}",
                        code="wrong_column_type",
                        field=name,
                    ) from error
            table = table.set_column(i, name, values)
        return RawChunk(table, chunk.path, chunk.first, chunk.unit)

    @contextmanager
    def _data_errors(
        self, file_columns: Sequence[str] = (), invalid_rows: Sequence[Any] = ()
    ) -> Iterator[None]:
        """Convert errors of reading to DataErrors that name the file."""
        try:
            yield
        except pa.ArrowException as error:
            raise self._error(str(error), file_columns, invalid_rows) from error
        except (UnicodeError, csv.Error) as error:
            problem = f"not delimited text in {self.text and self.text.encoding}: {error}"
            raise self._file_error(code="unreadable_file", problem=problem) from error
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
            raise self._file_error(code="unreadable_file", problem=problem) from error

    def _file_error(self, code: str, problem: str) -> DataError:
        return DataError(f"{self.path}: {problem}", code=code, field=str(self.path))

    def _error(
        self, message: str, file_columns: Sequence[str], invalid_rows: Sequence[Any]
    ) -> DataError:
        """Describe an error of Arrow by line, column and expected value."""
        if self.text is None:
            problem = f"not a Parquet file, or truncated: {message}"
            return self._file_error(code="damaged_file", problem=problem)
        if invalid_rows:
            row = invalid_rows[-1]
            shown = row.text.replace(self.text.arrow_delimiter, self.text.delimiter)[:80]
            problem = (
                f"line {row.number}: expected {row.expected_columns} columns, found "
                f"{row.actual_columns}: {shown!r}"
            )
            return self._file_error(code="wrong_column_count", problem=problem)
        if self.path.stat().st_size == 0:
            problem = "expected rows, found an empty file"
            return self._file_error(code="no_rows", problem=problem)
        match = re.search(r"In CSV column #(\d+): Row #(\d+): [^:]*: (.*)", message, re.S)
        if match is None:
            problem = f"not delimited text in {self.text.encoding}: {message}"
            return self._file_error(code="unreadable_file", problem=problem)
        name = file_columns[int(match[1])]
        value = match[3].removeprefix("invalid value ")[:80]
        expected = self.columns[name].description
        return DataError(
            f"{self.path}: line {match[2]}, {name}: expected {expected}, found {value}", field=name
        )


class _DelimiterReplacer(io.RawIOBase):
    """A binary stream that replaces a delimiter of several characters by :data:`_SEPARATOR`.

    Arrow splits only at single characters.
    """

    def __init__(self, file: io.BufferedReader, delimiter: bytes) -> None:
        self._file, self._delimiter, self._buffer = file, delimiter, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes, none only at the end of the file."""
        block = self._file.read(size)
        if block and not block.endswith(b"\n"):
            block += self._file.readline(BLOCK_BYTES)  # a block must not end inside a delimiter
        self._buffer += block.replace(self._delimiter, _SEPARATOR)
        result = self._buffer if size < 0 else self._buffer[:size]
        self._buffer = self._buffer[len(result) :]
        return result
