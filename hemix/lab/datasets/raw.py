"""Raw files of public data sets, read in chunks: delimited text or Parquet, with the columns that a
source names.

Every problem is a DataError with the file, the line (text) or row (Parquet, from 1) and the column.
Missing values are nulls: empty text and NaN. Nothing here knows a data set, and never more than a
chunk is in memory.
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

__all__ = ["DATE", "IDS", "INTEGER", "NUMBER", "TEXT", "WHOLE", "Chunk", "Kind", "RawFile", "Text"]

CHUNK_ROWS = 1 << 17
BLOCK_BYTES = 1 << 22  # Arrow reads some thirty blocks ahead
_SEPARATOR = b"\x1f"  # ASCII's unit separator, which no title holds


@dataclass(frozen=True)
class Kind:
    """What a column holds: in words, as text is parsed, and as it arrives."""

    words: str
    parsed: pa.DataType
    kept: pa.DataType


INTEGER = Kind("a whole number", pa.int64(), pa.int64())
WHOLE = Kind("a whole number", pa.float64(), pa.int64())
"""Integers that may be written 4.0, as pandas writes a column with missing values."""
NUMBER = Kind("a number", pa.float64(), pa.float64())
TEXT = Kind("text", pa.string(), pa.string())
DATE = Kind("a date such as 2022-04-10", pa.date32(), pa.date32())
IDS = Kind("a list of whole numbers", pa.list_(pa.int64()), pa.list_(pa.int64()))


@dataclass(frozen=True, kw_only=True)
class Text:
    """How a delimited text file is written."""

    delimiter: str = ","
    """One character, or several such as ``::``."""
    header: bool = True
    quoted: bool = True
    """Whether a value may stand in double quotes."""
    encoding: str = "utf8"

    @property
    def split_at(self) -> str:
        """The one character that Arrow splits at; longer delimiters are replaced by it."""
        return self.delimiter if len(self.delimiter) == 1 else _SEPARATOR.decode()


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a raw file."""

    table: pa.Table
    path: Path
    first: int
    """The line (text) or row (Parquet) of its first row, as a person counts; empty lines do not
    count.
    """
    place: str
    """``line`` or ``row``."""

    def refuse(self, wrong: npt.NDArray[np.bool_], column: str, expected: str) -> None:
        """Raise DataError for the first row where ``wrong`` is true; nothing when none is."""
        if wrong.any():
            at = int(np.argmax(wrong))
            value = self.table[column][at].as_py()
            found = "nothing" if value is None else repr(value)
            raise DataError(
                f"{self.path}: {self.place} {self.first + at}, {column}: expected {expected}, "
                f"found {found}"
            )

    def present(self, *columns: str) -> None:
        """Raise DataError where one of the columns has no value."""
        for column in columns:
            if self.table[column].null_count:
                self.refuse(np.asarray(self.table[column].is_null()), column, "a value")

    def flags(self, column: str) -> npt.NDArray[np.bool_]:
        """A column of 0 and 1 as booleans. Raises DataError for anything else."""
        values = np.asarray(self.table[column])
        self.refuse((values != 0) & (values != 1), column, "0 or 1")
        return np.asarray(values == 1)


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One raw file and the columns to read of it."""

    path: Path
    columns: Mapping[str, Kind]
    """Name -> kind. For text without a header: all its columns, in order."""
    text: Text | None = None
    """None: Parquet."""
    optional: frozenset[str] = frozenset()
    """Columns that the file may lack."""

    def check(self) -> None:
        """Raise DataError if the file cannot be opened or lacks a column."""
        self._present(self._all_columns())

    def chunks(self, only: Sequence[str] | None = None) -> Iterator[Chunk]:
        """The rows in order, with the columns found (or ``only`` these), every value of its kind or
        null.
        """
        known = self._all_columns()
        names = [name for name in self._present(known) if only is None or name in only]
        if self.text is None:
            place, first, tables = "row", 1, self._parquet(names)
        else:
            place, first, tables = (
                "line",
                1 + self.text.header,
                self._delimited(names, known, self.text),
            )
        for table in tables:
            if table.num_rows:
                yield self._clean(Chunk(table, self.path, first, place))
                first += table.num_rows

    def _all_columns(self) -> list[str]:
        """Every column of the file, in order."""
        with self._reading():
            if self.text is None:
                with pa.parquet.ParquetFile(self.path) as file:
                    return list(file.schema_arrow.names)
            with self.path.open("rb") as lines:
                header = (
                    lines.readline(BLOCK_BYTES).decode(self.text.encoding)
                    if self.text.header
                    else ""
                )
            names = next(csv.reader([header.rstrip("\r\n")], delimiter=self.text.split_at), [])
            return (
                [name.removeprefix("\ufeff") for name in names]
                if self.text.header
                else list(self.columns)
            )

    def _present(self, known: list[str]) -> list[str]:
        missing = [name for name in self.columns if name not in known and name not in self.optional]
        if missing:
            raise DataError(
                f"{self.path}: no column {', '.join(missing)}; found "
                f"{', '.join(known) or 'nothing'}"
            )
        return [name for name in self.columns if name in known]

    def _parquet(self, names: list[str]) -> Iterator[pa.Table]:
        with self._reading(), pa.parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(CHUNK_ROWS, columns=names, use_threads=False):
                yield pa.Table.from_batches([batch]).select(names)

    def _delimited(self, names: list[str], known: list[str], text: Text) -> Iterator[pa.Table]:
        bad: list[Any] = []

        def remember(row: Any) -> str:
            bad.append(row)
            return "error"

        with self._reading(known, bad), self.path.open("rb") as file:
            one = len(text.delimiter) == 1
            reader = pa.csv.open_csv(
                file
                if one
                else pa.PythonFile(_OneCharacter(file, text.delimiter.encode()), mode="r"),
                pa.csv.ReadOptions(
                    use_threads=False,  # only then Arrow knows the number of a bad line
                    block_size=BLOCK_BYTES,
                    column_names=None if text.header else known,
                    encoding=text.encoding,
                ),
                pa.csv.ParseOptions(
                    delimiter=text.split_at,
                    quote_char='"' if text.quoted else False,
                    invalid_row_handler=remember,
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

    def _clean(self, chunk: Chunk) -> Chunk:
        """The chunk with every column of its kind and NaN as null."""
        table = chunk.table
        for i, name in enumerate(table.column_names):
            kind, values = self.columns[name], table[name]
            if pa.types.is_floating(values.type):
                values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
                if pa.types.is_integer(kind.kept):
                    wrong = pc.fill_null(pc.not_equal(values, pc.floor(values)), False)
                    chunk.refuse(np.asarray(wrong), name, kind.words)
            if values.type != kind.kept:
                try:
                    values = values.cast(kind.kept)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    found = f"{values.type}: {_one_line(error)}"
                    raise DataError(
                        f"{self.path}: {name}: expected {kind.words} in every row, found {found}"
                    ) from error
            table = table.set_column(i, name, values)
        return Chunk(table, chunk.path, chunk.first, chunk.place)

    @contextmanager
    def _reading(self, known: Sequence[str] = (), bad: Sequence[Any] = ()) -> Iterator[None]:
        """Turns what goes wrong while the file is read into a DataError that names it."""
        try:
            yield
        except pa.ArrowException as error:
            raise DataError(
                f"{self.path}: {self._explain(_one_line(error), known, bad)}"
            ) from error
        except (UnicodeError, csv.Error) as error:
            raise DataError(
                f"{self.path}: not delimited text in {self.text and self.text.encoding}: {error}"
            ) from error
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be read: {error.strerror or _one_line(error)}"
            ) from error

    def _explain(self, message: str, known: Sequence[str], bad: Sequence[Any]) -> str:
        if self.text is None:
            return f"not a Parquet file, or truncated: {message}"
        if bad:
            row = bad[-1]
            shown = row.text.replace(self.text.split_at, self.text.delimiter)[:80]
            return (
                f"line {row.number}: expected {row.expected_columns} columns, found "
                f"{row.actual_columns}: {shown!r}"
            )
        if message.startswith("Empty CSV file"):
            return "expected rows, found an empty file"
        problem = re.search(r"In CSV column #(\d+): Row #(\d+): [^:]*: (.*)", message)
        if problem is None:
            return f"not delimited text in {self.text.encoding}: {message}"
        name, found = known[int(problem[1])], problem[3].removeprefix("invalid value ")[:80]
        return f"line {problem[2]}, {name}: expected {self.columns[name].words}, found {found}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


class _OneCharacter(io.RawIOBase):
    """A binary file in which a delimiter of several characters is replaced by one, because Arrow
    splits at one.
    """

    def __init__(self, file: io.BufferedReader, delimiter: bytes) -> None:
        self._file, self._delimiter, self._kept = file, delimiter, b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; none at the end only."""
        piece = self._file.read(size)
        if piece and not piece.endswith(b"\n"):
            piece += self._file.readline(BLOCK_BYTES)  # do not end inside a delimiter
        self._kept += piece.replace(self._delimiter, _SEPARATOR)
        given = self._kept if size < 0 else self._kept[:size]
        self._kept = self._kept[len(given) :]
        return given
