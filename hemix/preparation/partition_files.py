"""Partitioned temporary files: rows go to the part of their user, and each part is later read back
whole.

A part is a range of user numbers chosen so that it holds about so many rows; a user is never
divided. Rows are columns of cells (cells.py), so nothing but numbers is spilled. Knows no schema.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.jagged_array import JaggedArray
from hemix.data.raw_columns import RawColumn, as_arrow, from_arrow, take
from hemix.files import storage_errors

__all__ = ["PartitionFiles", "Rows", "partition_bounds", "row_count", "take_rows"]

Array = npt.NDArray[Any]
Rows: TypeAlias = "dict[str, RawColumn]"

_MOST_PARTS = 256
"""So many files are open at once at most; beyond it parts grow."""


def row_count(rows: Rows) -> int:
    """How many rows."""
    first = next(iter(rows.values()))
    return first.rows if isinstance(first, JaggedArray) else len(first)


def take_rows(rows: Rows, at: Array) -> Rows:
    """The given rows, in that order."""
    return {name: take(cell, at) for name, cell in rows.items()}


def partition_bounds(rows_per_user: Array, rows: int) -> Array:
    """int64 [parts + 1]: user numbers at which parts begin, so that one holds about ``rows`` rows;
    last, the number of users.
    """
    total = int(rows_per_user.sum())
    rows = max(rows, -(-total // _MOST_PARTS), 1)
    before = np.cumsum(rows_per_user) - rows_per_user
    begins = np.flatnonzero(np.diff(before // rows, prepend=-1))
    return np.append(begins, len(rows_per_user)).astype(np.int64)


class PartitionFiles:
    """One temporary file per part. Raises StorageError when the disk is full."""

    def __init__(self, folder: Path, bounds: Array) -> None:
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
        """int64 [parts + 1]: user numbers at which parts begin."""
        return self._bounds

    def add(self, rows: Rows, user: Array) -> None:
        """Spread rows over the parts by their user's number; within a part they keep their
        order.
        """
        part = np.searchsorted(self._bounds, user, side="right") - 1
        order = np.argsort(part, kind="stable")
        counts = np.bincount(part, minlength=len(self))
        sorted_rows = take_rows(rows, order)
        batch = pa.RecordBatch.from_arrays(
            [as_arrow(cell) for cell in sorted_rows.values()], names=list(sorted_rows)
        )
        begin = 0
        for p in np.flatnonzero(counts).tolist():
            self._write(p, batch.slice(begin, int(counts[p])))
            begin += int(counts[p])

    def put(self, part: int, rows: Rows) -> None:
        """Write all the rows of one part at once."""
        self._write(
            part,
            pa.RecordBatch.from_arrays(
                [as_arrow(cell) for cell in rows.values()], names=list(rows)
            ),
        )
        self._close(part)

    def _write(self, part: int, batch: pa.RecordBatch) -> None:
        with storage_errors(self._path(part)):
            if part not in self._writers:
                self._files[part] = pa.OSFile(str(self._path(part)), "wb")
                self._writers[part] = pa.ipc.new_stream(self._files[part], batch.schema)
            self._writers[part].write_batch(batch)

    def close(self) -> None:
        """No more rows."""
        for part in list(self._writers):
            self._close(part)

    def _close(self, part: int) -> None:
        with storage_errors(self._path(part)):
            self._writers.pop(part).close()
            self._files.pop(part).close()

    def read(self, part: int) -> Rows | None:
        """All rows of a part, in the order in which they were added; None where it has none.

        The file is deleted.
        """
        path = self._path(part)
        if not path.exists():
            return None
        with pa.OSFile(str(path), "rb") as file:
            table = pa.ipc.open_stream(file).read_all().combine_chunks()
        path.unlink()
        return {name: from_arrow(table.column(name).chunk(0)) for name in table.column_names}

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:05d}.arrow"

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
                continue  # the error under way says more
