"""Temporary files by ranges: the rows of a partition that is larger than memory, by ranges of its
users.

All rows of a user are in one range, whose rows fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.jagged_array import offsets_of
from hemix.data.raw_columns import from_arrow
from hemix.files import storage_errors
from hemix.preparation.rows import Rows, as_batch, take_rows

__all__ = ["RangeFiles", "range_bounds"]

Array = npt.NDArray[Any]

_MAX_RANGES = 256
"""Largest number of open files; with more rows, ranges become larger."""


def range_bounds(rows_per_user: Array, rows: int) -> Array:
    """Divide users into ranges.

    Args:
        rows_per_user: int64 [users].
        rows: Approximate number of rows in a range.

    Returns:
        int64 [ranges + 1]: the first user number of every range, and at the end the number of
        users.
    """
    total = int(rows_per_user.sum())
    rows = max(rows, -(-total // _MAX_RANGES), 1)
    before = offsets_of(rows_per_user)[:-1]
    begins = np.flatnonzero(np.diff(before // rows, prepend=-1))
    return np.append(begins, len(rows_per_user)).astype(np.int64)


class RangeFiles:
    """One temporary file per range; every method raises StorageError if the disk is full."""

    def __init__(self, folder: Path, bounds: Array) -> None:
        """Make the folder.

        Args:
            folder: A new folder.
            bounds: int64 [ranges + 1], see :func:`range_bounds`.
        """
        self._folder = folder
        self._bounds = bounds
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self._files: dict[int, pa.NativeFile] = {}
        with storage_errors(folder):
            folder.mkdir()

    def add(self, rows: Rows, user: Array) -> None:
        """Append each row to the file of its user; rows of a range stay in their order.

        Args:
            rows: Rows of a log.
            user: int [n], the number of each row's user.
        """
        number = np.searchsorted(self._bounds, user, side="right") - 1
        order = np.argsort(number, kind="stable")
        counts = np.bincount(number, minlength=len(self._bounds) - 1)
        batch = as_batch(take_rows(rows, order))
        begin = 0
        for at in np.flatnonzero(counts).tolist():
            self._write(at, batch.slice(begin, counts[at]))
            begin += int(counts[at])

    def _write(self, number: int, batch: pa.RecordBatch) -> None:
        with storage_errors(self._path(number)):
            if number not in self._writers:
                self._files[number] = pa.OSFile(str(self._path(number)), "wb")
                self._writers[number] = pa.ipc.new_stream(self._files[number], batch.schema)
            self._writers[number].write_batch(batch)

    def read(self) -> Iterator[Rows]:
        """Yield the rows of every range that has rows; deletes the files, then the folder.

        Rows are in the order in which they were added.
        """
        for number in range(len(self._bounds) - 1):
            path = self._path(number)
            if not path.exists():
                continue
            with pa.OSFile(str(path), "rb") as file:
                table = pa.ipc.open_stream(file).read_all().combine_chunks()
            path.unlink()
            yield {name: from_arrow(table.column(name).chunk(0)) for name in table.column_names}
        self._folder.rmdir()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.arrow"

    def __enter__(self) -> RangeFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            for number in list(self._writers):
                with storage_errors(self._path(number)):
                    self._writers.pop(number).close()
                    self._files.pop(number).close()
            return
        for stream in self._files.values():
            try:
                stream.close()
            except OSError:
                continue  # the error in progress is more helpful
