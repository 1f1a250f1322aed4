"""The values of a table in a sample of its rows: types, null shares, distinct values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.keys import is_keyable, keys_of
from hemix.data.raw_columns import is_list, is_number
from hemix.errors import DataError
from hemix.preparation.chunks import Chunk
from hemix.preparation.log_table import LogTable

__all__ = ["ColumnProfile", "TableProfile", "equal_share", "find_tables", "profile_table"]

_CHUNKS, _CHUNK_ROWS = 8, 25_000
"""A sample has so many chunks, spread over the table"""
_SUFFIXES = (".parquet", ".parq", ".pq")


@dataclass(frozen=True, kw_only=True)
class ColumnProfile:
    """A column in the sample of its table."""

    name: str
    type: pa.DataType
    values: pa.Array
    """The sampled values"""
    null_share: float
    distinct: int
    """Distinct values that are not null; of lists, distinct elements"""
    least: float | None
    """Smallest number; None where the column has no numbers"""
    most: float | None

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers (booleans are)."""
        return is_number(self.type)

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        if pa.types.is_integer(self.type) or pa.types.is_boolean(self.type):
            return True
        if not self.is_number:
            return False
        numbers = self.numbers()
        return bool(np.all(numbers == np.floor(numbers)))

    @property
    def is_key(self) -> bool:
        """Whether the values can be ids: text or whole numbers."""
        return is_keyable(self.type) and not pa.types.is_floating(self.type)

    @property
    def is_binary(self) -> bool:
        """Whether all values are 0 or 1, and both occur."""
        return self.is_number and self.distinct == 2 and (self.least, self.most) == (0, 1)

    def numbers(self) -> npt.NDArray[np.float64]:
        """Return the numbers that are not null."""
        known = self.values.drop_null().cast(pa.float64(), safe=False)
        numbers: npt.NDArray[np.float64] = known.to_numpy(zero_copy_only=False)
        return numbers[np.isfinite(numbers)]

    def keys(self) -> npt.NDArray[np.uint64]:
        """Return a key for every sampled row, 0 for null."""
        keys: npt.NDArray[np.uint64] = keys_of(self.values)
        return keys


@dataclass(frozen=True, kw_only=True)
class TableProfile:
    """A table: a Parquet file, or a folder of these."""

    path: Path
    rows: int
    sampled_rows: int
    columns: Mapping[str, ColumnProfile]

    @property
    def name(self) -> str:
        """The file's or folder's name without its suffix."""
        return self.path.stem if self.path.suffix in _SUFFIXES else self.path.name


def find_tables(logs: Path) -> list[Path]:
    """Return the Parquet files and the folders of Parquet files in a folder of logs.

    Args:
        logs: The folder.

    Raises:
        DataError: There is no such folder, or it has no Parquet file.
    """
    if not logs.is_dir():
        raise DataError(f"{logs}: no such folder of logs", field=str(logs))
    found = []
    for path in sorted(logs.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        files = [path] if path.is_file() else path.rglob("*")
        if any(file.suffix.lower() in _SUFFIXES for file in files):
            found.append(path)
    if not found:
        raise DataError(
            f"{logs}: no Parquet file here",
            code="missing_table",
            field=str(logs),
            hint="write impressions, and events, items and users if you have them, as Parquet",
        )
    return found


def profile_table(path: Path) -> TableProfile:
    """Look at a table.

    Args:
        path: A Parquet file, or a folder of these.

    Raises:
        DataError: A file is damaged.
    """
    table = LogTable(path, path.name)
    batches = [pa.table(dict(chunk.columns)) for chunk in _sampled(table)]
    rows = sum(batch.num_rows for batch in batches)
    if batches:
        sample = pa.concat_tables(batches, promote_options="permissive")
        columns = {name: _profile(name, sample[name]) for name in sample.column_names}
    else:
        columns = {name: _profile(name, pa.chunked_array([pa.nulls(0)])) for name in table.names}
    return TableProfile(path=path, rows=table.rows, sampled_rows=rows, columns=columns)


def _sampled(table: LogTable) -> Iterator[Chunk]:
    """Yield chunks that are spread over the table; of many row groups only some are read."""
    ranges = table.ranges(_CHUNK_ROWS)
    ranges = ranges[:: max(1, len(ranges) // _CHUNKS)]
    chunks = sum(-(-row_range.rows // _CHUNK_ROWS) for row_range in ranges)
    step = max(1, chunks // _CHUNKS)
    of_all = (chunk for one in ranges for chunk in table.read(one, None, _CHUNK_ROWS))
    yield from itertools.islice(of_all, 0, None, step)


def equal_share(group: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    """Return the share of rows with the value of the first row of their group.

    Args:
        group: The group of every row.
        values: The value of every row.
    """
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    return float(np.mean(values[first][inverse.reshape(-1)] == values))


def _profile(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks else pa.nulls(0)
    flat = values.flatten() if is_list(values.type) else values
    least, most = _bounds(flat)
    return ColumnProfile(
        name=name,
        type=values.type,
        values=values,
        null_share=values.null_count / len(values) if len(values) else 1.0,
        distinct=_distinct(flat),
        least=least,
        most=most,
    )


def _distinct(values: pa.Array) -> int:
    try:
        return len(pc.unique(values.drop_null()))
    except pa.ArrowNotImplementedError:  # values of a nested type
        return len(values)


def _bounds(values: pa.Array) -> tuple[float | None, float | None]:
    if not is_number(values.type) or values.null_count == len(values):
        return None, None
    bounds: Any = pc.min_max(values.cast(pa.float64(), safe=False))
    return bounds["min"].as_py(), bounds["max"].as_py()
