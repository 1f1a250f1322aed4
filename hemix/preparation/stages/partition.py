"""Stage 1: read the logs, check every value, and bring each row to the partition of its user.

This is how the local engine does it: a task reads a range of row groups, and each chunk becomes a
file with its rows in the order of the partitions. So a task of the next stage reads its rows of all
files, in the order of the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.preparation.chunks import RowRange
from hemix.preparation.decoding import (
    LOGS,
    DecodedRows,
    LogName,
    decode,
    entity_columns,
    log_table,
)
from hemix.preparation.engine import Engine, PartitionedLogs, task_folder
from hemix.preparation.job import PrepareJob
from hemix.preparation.rows import GroupedFile, as_batch, save_groups, take_rows
from hemix.preparation.splits import SplitValues
from hemix.preparation.texts import KeyTexts, save_texts, text_tables
from hemix.preparation.user_partitions import partition_of

__all__ = ["LocalRows", "partition_logs", "save_piece"]

Array = npt.NDArray[Any]

_RADIX_SORT = 1 << 16
"""NumPy sorts numbers below this without comparisons"""


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """The pieces of one log."""

    folder: Path
    chunks: tuple[int, ...]
    """Number of chunks of every task"""


@dataclass(frozen=True, kw_only=True)
class LocalRows:
    """The decoded rows of one partition, in files of :func:`save_piece`."""

    partition: int
    pieces: Mapping[LogName, _Pieces]
    counts: Mapping[LogName, int]

    def rows(self, log: LogName) -> int:
        """Return the number of rows of a log."""
        return self.counts.get(log, 0)

    def read(self, log: LogName) -> Iterator[DecodedRows]:
        """Yield the rows of a log in the order of the log."""
        if not self.rows(log):
            return
        pieces = self.pieces[log]
        for task, chunks in enumerate(pieces.chunks):
            for chunk in range(chunks):
                folder = task_folder(pieces.folder, task)
                users = GroupedFile(folder / f"{chunk:05d}.users.arrow").batch(self.partition)
                if users.num_rows:
                    keys = KeyTexts(keys=users.column("key").to_numpy(), texts=users.column("text"))
                    rows = GroupedFile(folder / f"{chunk:05d}.rows.arrow").rows(self.partition)
                    yield DecodedRows(rows=rows, users=keys, texts={})


@dataclass(frozen=True)
class _Answer:
    chunks: int
    counts: Array
    """int64 [partitions]"""
    split_values: SplitValues


def partition_logs(job: PrepareJob, engine: Engine) -> PartitionedLogs:
    """Read all logs of users in parallel.

    Args:
        job: The logs and the number of partitions.
        engine: Runs a task for every range of row groups.

    Raises:
        DataError: A value cannot be used; names file, row and column.
        StorageError: The disk is full or read-only.
    """
    pieces: dict[LogName, _Pieces] = {}
    counts: dict[LogName, Array] = {}
    texts: list[Path] = []
    split_values: list[SplitValues] = []
    for log in LOGS:
        table, folder = log_table(job, log), job.temporary / "partition" / log
        if table is None or not table.rows:
            continue
        ranges = table.ranges(job.memory_rows)
        answers = engine.map(f"reading {log}", partial(_read_range, job, log), ranges, folder)
        pieces[log] = _Pieces(folder=folder, chunks=tuple(answer.chunks for answer in answers))
        counts[log] = np.sum([answer.counts for answer in answers], axis=0)
        texts += [
            task_folder(folder, task) / f"{chunk:05d}.texts.arrow"
            for task, answer in enumerate(answers)
            for chunk in range(answer.chunks)
        ]
        split_values += [answer.split_values for answer in answers]
    sources = [
        LocalRows(
            partition=number,
            pieces=pieces,
            counts={log: int(of_log[number]) for log, of_log in counts.items()},
        )
        for number in range(job.partitions)
    ]
    return PartitionedLogs(
        sources=sources,
        texts=texts,
        split_values=split_values,
        discard=partial(_discard, job.temporary / "partition"),
    )


def _discard(folder: Path) -> None:
    for kind in ("rows", "users"):
        for path in folder.rglob(f"*.{kind}.arrow"):
            path.unlink()


def _read_range(job: PrepareJob, log: LogName, row_range: RowRange, folder: Path) -> _Answer:
    """Decode a range of a log, and write the pieces of its chunks."""
    table = log_table(job, log)
    assert table is not None
    columns = entity_columns(job, "user") if log == "users" else None
    counts, chunks = np.zeros(job.partitions, dtype=np.int64), 0
    for chunk in table.read(row_range, columns, job.memory_rows):
        counts += save_piece(job, decode(job, log, chunk), folder, f"{chunks:05d}")
        chunks += 1
    return _Answer(chunks, counts, job.splitter.seen)


def save_piece(job: PrepareJob, decoded: DecodedRows, folder: Path, name: str) -> Array:
    """Write decoded rows in the order of their partitions.

    Args:
        job: Schema and number of partitions.
        decoded: Rows of a log.
        folder: An existing folder.
        name: Beginning of the files' names.

    Returns:
        int64 [partitions], the number of rows of each.

    Raises:
        StorageError: The disk is full or read-only.
    """
    partition = partition_of(decoded.users.texts, job.partitions)
    users = np.bincount(partition, minlength=job.partitions)
    order = _stable_order(partition, job.partitions)
    first = np.cumsum(users) - users
    position = np.empty(len(partition), dtype=np.int32)  # of a user within its partition
    position[order] = np.arange(len(partition)) - first[partition[order]]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(decoded.users.keys[order]), decoded.users.texts.take(pa.array(order))],
        names=["key", "text"],
    )
    save_groups(folder / f"{name}.users.arrow", batch, users)

    user = np.asarray(decoded.rows["user"])
    of_row = partition[user]
    counts = np.bincount(of_row, minlength=job.partitions)
    rows = decoded.rows | {"user": position[user]}
    if job.partitions > 1:
        rows = take_rows(rows, _stable_order(of_row, job.partitions))
    save_groups(folder / f"{name}.rows.arrow", as_batch(rows), counts)
    save_texts(folder / f"{name}.texts.arrow", text_tables(job.schema), decoded.texts)
    return counts


def _stable_order(partition: Array, partitions: int) -> Array:
    """int64 [n]: positions in the order of the partitions; within one, as they are."""
    numbers = partition.astype(np.uint16) if partitions <= _RADIX_SORT else partition
    order: Array = np.argsort(numbers, kind="stable")
    return order
