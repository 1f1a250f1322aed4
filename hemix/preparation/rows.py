"""Rows of a log as raw columns (data/raw_columns.py), and files of them that are memory-mapped.

A file has rows in groups, such as the rows of every partition, so that a task reads its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.jagged_array import JaggedArray, offsets_of
from hemix.data.raw_columns import RawColumn, as_arrow, concatenate, from_arrow, take
from hemix.files import storage_errors

__all__ = [
    "GroupedFile",
    "Rows",
    "as_batch",
    "concatenate_rows",
    "from_batch",
    "read_rows",
    "row_count",
    "save_groups",
    "save_rows",
    "take_rows",
]

Array = npt.NDArray[Any]
Rows: TypeAlias = "dict[str, RawColumn]"
"""Raw columns by name, all of the same length"""

_OFFSETS = b"offsets"
"""Key of the metadata with the first row of every group"""


def row_count(rows: Rows) -> int:
    """Return the number of rows."""
    first = next(iter(rows.values()))
    return first.rows if isinstance(first, JaggedArray) else len(first)


def take_rows(rows: Rows, positions: Array) -> Rows:
    """Return the rows at the given positions, in that order.

    Args:
        rows: Rows of a log.
        positions: int64 [n].
    """
    return {name: take(column, positions) for name, column in rows.items()}


def concatenate_rows(tables: Sequence[Rows]) -> Rows:
    """Return all rows of at least one table of the same columns."""
    if len(tables) == 1:
        return tables[0]
    return {name: concatenate([table[name] for table in tables]) for name in tables[0]}


def as_batch(rows: Rows) -> pa.RecordBatch:
    """Return the rows as an Arrow record batch."""
    return pa.RecordBatch.from_arrays(
        [as_arrow(column) for column in rows.values()], names=list(rows)
    )


def from_batch(batch: pa.RecordBatch) -> Rows:
    """Return the rows of a record batch of :func:`as_batch`, without a copy."""
    return {name: from_arrow(batch.column(name)) for name in batch.schema.names}


def save_rows(path: Path, rows: Rows) -> None:
    """Write rows as one group; see :func:`save_groups`."""
    save_groups(path, as_batch(rows), np.array([row_count(rows)]))


def read_rows(path: Path) -> Rows:
    """Memory-map the rows of :func:`save_rows`."""
    return GroupedFile(path).rows(0)


def save_groups(path: Path, batch: pa.RecordBatch, counts: Array) -> None:
    """Write rows that lie group by group.

    Args:
        path: The file.
        batch: All rows.
        counts: int [groups], the rows of every group.

    Raises:
        StorageError: The disk is full or read-only.
    """
    batch = batch.replace_schema_metadata({_OFFSETS: offsets_of(counts).tobytes()})
    with (
        storage_errors(path),
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, batch.schema) as writer,
    ):
        writer.write_batch(batch)


class GroupedFile:
    """A file of :func:`save_groups`, memory-mapped: its arrays are views of the file."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batch = reader.get_batch(0)
        self._offsets = np.frombuffer(reader.schema.metadata[_OFFSETS], dtype=np.int64)

    def batch(self, group: int) -> pa.RecordBatch:
        """Return the rows of a group as an Arrow record batch."""
        begin, end = self._offsets[group : group + 2].tolist()
        return self._batch.slice(begin, end - begin)

    def rows(self, group: int) -> Rows:
        """Return the rows of a group."""
        return from_batch(self.batch(group))
