"""Partitioned temporary files: each row goes to the file of its user's partition.

A partition is a range of user numbers with about a given number of rows, so all rows of a user are
in one file. Rows are raw columns (data/raw_columns.py), so the files hold numbers only.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.jagged_array import JaggedArray, offsets_of
from hemix.data.raw_columns import RawColumn, as_arrow, from_arrow, take
from hemix.files import storage_errors

__all__ = ["PartitionFiles", "Rows", "partition_bounds", "row_count", "take_rows"]

Array = npt.NDArray[Any]
Rows: TypeAlias = "dict[str, RawColumn]"
"""Raw columns by name, all of the same length"""

_MAX_PARTITIONS = 256
"""Largest number of open files; with more rows, partitions become larger."""


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


def partition_bounds(rows_per_user: Array, rows: int) -> Array:
    """Divide users into partitions.

    Args:
        rows_per_user: int64 [users].
        rows: Approximate number of rows in a partition.

    Returns:
        int64 [partitions + 1]: the first user number of every partition, and at the end the number
        of users.
    """
    total = int(rows_per_user.sum())
    rows = max(rows, -(-total // _MAX_PARTITIONS), 1)
    before = offsets_of(rows_per_user)[:-1]
    begins = np.flatnonzero(np.diff(before // rows, prepend=-1))
    return np.append(begins, len(rows_per_user)).astype(np.int64)


class PartitionFiles:
    """One temporary file per partition; every method raises StorageError if the disk is full."""

    def __init__(self, folder: Path, bounds: Array) -> None:
        """Make the folder.

        Args:
            folder: A new folder.
            bounds: int64 [partitions + 1], see :func:`partition_bounds`.
        """
        self._folder = folder
        self._bounds = bounds
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self._files: dict[int, pa.NativeFile] = {}
        with storage_errors(folder):
            folder.mkdir()

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @property
    def bounds(self) -> Array:
        """int64 [partitions + 1]: the first user number of every partition."""
        return self._bounds

    def add(self, rows: Rows, user: Array) -> None:
        """Append each row to the file of its user; rows of a partition stay in their order.

        Args:
            rows: Rows of a log.
            user: int [n], the number of each row's user.
        """
        partition = np.searchsorted(self._bounds, user, side="right") - 1
        order = np.argsort(partition, kind="stable")
        counts = np.bincount(partition, minlength=len(self))
        batch = _record_batch(take_rows(rows, order))
        begin = 0
        for number in np.flatnonzero(counts).tolist():
            self._write(number, batch.slice(begin, counts[number]))
            begin += int(counts[number])

    def put(self, number: int, rows: Rows) -> None:
        """Write all rows of a partition at once.

        Args:
            number: The partition.
            rows: Its rows.
        """
        self._write(number, _record_batch(rows))
        self._close(number)

    def _write(self, number: int, batch: pa.RecordBatch) -> None:
        with storage_errors(self._path(number)):
            if number not in self._writers:
                self._files[number] = pa.OSFile(str(self._path(number)), "wb")
                self._writers[number] = pa.ipc.new_stream(self._files[number], batch.schema)
            self._writers[number].write_batch(batch)

    def close(self) -> None:
        """Complete all files."""
        for number in list(self._writers):
            self._close(number)

    def _close(self, number: int) -> None:
        with storage_errors(self._path(number)):
            self._writers.pop(number).close()
            self._files.pop(number).close()

    def read(self, number: int) -> Rows | None:
        """Read all rows of a partition in the order in which they were added, and delete the file.

        Returns None for a partition without rows.
        """
        path = self._path(number)
        if not path.exists():
            return None
        with pa.OSFile(str(path), "rb") as file:
            table = pa.ipc.open_stream(file).read_all().combine_chunks()
        path.unlink()
        return {name: from_arrow(table.column(name).chunk(0)) for name in table.column_names}

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.arrow"

    def __enter__(self) -> PartitionFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        for stream in self._files.values():
            try:
                stream.close()
            except OSError:
                continue  # the error in progress is more helpful


def _record_batch(rows: Rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [as_arrow(column) for column in rows.values()], names=list(rows)
    )
