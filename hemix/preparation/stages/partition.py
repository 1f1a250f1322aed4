"""Stage 1: read the logs, check every value, and bring each row to the partition of its user.

This is how the local engine does it: a task reads a range of row groups, and each chunk becomes a
file with its rows in the order of the partitions. So a task of the next stage reads its rows of all
files, in the order of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.preparation.chunks import RowRange
from hemix.preparation.cleaning import stable_order
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
from hemix.preparation.rows import GroupedFile, as_batch, from_batch, save_groups, take_rows
from hemix.preparation.splits import SplitValues
from hemix.preparation.texts import KeyTexts, save_texts, text_tables
from hemix.preparation.user_partitions import partition_of

__all__ = [
    "GroupedRows",
    "LocalRows",
    "LogRead",
    "RangeAnswer",
    "group_rows",
    "partition_logs",
    "read_logs",
    "save_piece",
    "ungroup",
]

Array = npt.NDArray[Any]


class _Pieces:
    """The pieces of one log. A process that reads several partitions opens each file once."""

    def __init__(self, folder: Path, chunks: Sequence[int]) -> None:
        """Remember the files.

        Args:
            folder: Folder of the tasks.
            chunks: Number of chunks of every task.
        """
        self._folder, self._chunks = folder, tuple(chunks)
        self._opened: dict[Path, GroupedFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_chunks": self._chunks, "_opened": {}}

    def __iter__(self) -> Iterator[tuple[GroupedFile, GroupedFile]]:
        """Yield users and rows of every chunk, in the order of the log."""
        for task, chunks in enumerate(self._chunks):
            folder = task_folder(self._folder, task)
            for chunk in range(chunks):
                yield (
                    self._open(folder / f"{chunk:05d}.users.arrow"),
                    self._open(folder / f"{chunk:05d}.rows.arrow"),
                )

    def _open(self, path: Path) -> GroupedFile:
        if path not in self._opened:
            self._opened[path] = GroupedFile(path)
        return self._opened[path]


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
        for users, rows in self.pieces[log]:
            own = users.batch(self.partition)
            if own.num_rows:
                yield ungroup(rows.batch(self.partition), own)


@dataclass(frozen=True)
class RangeAnswer:
    """What a task that reads a range has written."""

    chunks: int
    counts: Array
    """int64 [partitions]"""
    split_values: SplitValues


@dataclass(frozen=True, kw_only=True)
class LogRead:
    """What the tasks that read a log have written."""

    folder: Path
    """Has the folder of every task"""
    answers: list[RangeAnswer]

    @property
    def texts(self) -> list[Path]:
        """The files of :func:`hemix.preparation.texts.save_texts`."""
        return [
            task_folder(self.folder, task) / f"{chunk:05d}.texts.arrow"
            for task, answer in enumerate(self.answers)
            for chunk in range(answer.chunks)
        ]

    @property
    def split_values(self) -> list[SplitValues]:
        """What was seen of the split's column."""
        return [answer.split_values for answer in self.answers]


_SavePiece: TypeAlias = Callable[[PrepareJob, DecodedRows, Path, str], Array]
"""Writes decoded rows, see :func:`save_piece`"""


def partition_logs(job: PrepareJob, engine: Engine) -> PartitionedLogs:
    """Read all logs of users in parallel.

    Args:
        job: The logs and the number of partitions.
        engine: Runs a task for every range of row groups.

    Raises:
        DataError: A value cannot be used; names file, row and column.
        StorageError: The disk is full or read-only.
    """
    logs = read_logs(job, engine, save_piece, job.memory_rows)
    pieces = {
        log: _Pieces(read.folder, [answer.chunks for answer in read.answers])
        for log, read in logs.items()
    }
    counts = {
        log: np.sum([answer.counts for answer in read.answers], axis=0)
        for log, read in logs.items()
    }
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
        texts=[path for read in logs.values() for path in read.texts],
        split_values=[values for read in logs.values() for values in read.split_values],
        discard=partial(_discard, job.temporary / "partition"),
    )


def read_logs(
    job: PrepareJob, engine: Engine, save: _SavePiece, chunk_rows: int
) -> dict[LogName, LogRead]:
    """Read and decode all logs of users in parallel.

    Args:
        job: The logs and the number of partitions.
        engine: Runs a task for every range of row groups.
        save: Writes the rows of a chunk.
        chunk_rows: Largest number of rows of a chunk.

    Returns:
        One entry for every log with rows.

    Raises:
        DataError: A value cannot be used; names file, row and column.
        StorageError: The disk is full or read-only.
    """
    logs: dict[LogName, LogRead] = {}
    for log in LOGS:
        table, folder = log_table(job, log), job.temporary / "partition" / log
        if table is not None and table.rows:
            read = partial(_read_range, job, log, save, chunk_rows)
            ranges = table.ranges(job.memory_rows)
            answers = engine.map(f"reading {log}", read, ranges, folder)
            logs[log] = LogRead(folder=folder, answers=answers)
    return logs


def _discard(folder: Path) -> None:
    for kind in ("rows", "users"):
        for path in folder.rglob(f"*.{kind}.arrow"):
            path.unlink()


def _read_range(
    job: PrepareJob,
    log: LogName,
    save: _SavePiece,
    chunk_rows: int,
    row_range: RowRange,
    folder: Path,
) -> RangeAnswer:
    """Decode a range of a log, and write the pieces of its chunks."""
    table = log_table(job, log)
    assert table is not None
    columns = entity_columns(job, "user") if log == "users" else None
    counts, chunks = np.zeros(job.partitions, dtype=np.int64), 0
    for chunk in table.read(row_range, columns, chunk_rows):
        counts += save(job, decode(job, log, chunk), folder, f"{chunks:05d}")
        chunks += 1
    return RangeAnswer(chunks, counts, job.splitter.seen)


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
    grouped = group_rows(decoded, job.partitions)
    save_groups(folder / f"{name}.users.arrow", grouped.users, grouped.user_counts)
    save_groups(folder / f"{name}.rows.arrow", grouped.rows, grouped.counts)
    save_texts(folder / f"{name}.texts.arrow", text_tables(job.schema), decoded.texts)
    return grouped.counts


@dataclass(frozen=True, kw_only=True)
class GroupedRows:
    """Decoded rows and their users in the order of the partitions."""

    rows: pa.RecordBatch
    """``user`` is the position among the users of the partition"""
    counts: Array
    """int64 [partitions], the rows of each"""
    users: pa.RecordBatch
    """``key`` and ``text``, within a partition in the order of their first appearance"""
    user_counts: Array
    """int64 [partitions], the users of each"""


def group_rows(decoded: DecodedRows, partitions: int) -> GroupedRows:
    """Bring decoded rows into the order of their partitions.

    Args:
        decoded: Rows of a log.
        partitions: Number of partitions.
    """
    partition = partition_of(decoded.users.texts, partitions)
    users = np.bincount(partition, minlength=partitions)
    order = stable_order(partition)
    first = np.cumsum(users) - users
    position = np.empty(len(partition), dtype=np.int32)  # of a user within its partition
    position[order] = np.arange(len(partition)) - first[partition[order]]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(decoded.users.keys[order]), decoded.users.texts.take(pa.array(order))],
        names=["key", "text"],
    )
    user = np.asarray(decoded.rows["user"])
    of_row = partition[user]
    rows = decoded.rows | {"user": position[user]}
    if partitions > 1:
        rows = take_rows(rows, stable_order(of_row))
    return GroupedRows(
        rows=as_batch(rows),
        counts=np.bincount(of_row, minlength=partitions),
        users=batch,
        user_counts=users,
    )


def ungroup(rows: pa.RecordBatch, users: pa.RecordBatch) -> DecodedRows:
    """Return the rows of a partition of :class:`GroupedRows`, without texts.

    Args:
        rows: Its rows.
        users: Its users.
    """
    keys = KeyTexts(keys=users.column("key").to_numpy(), texts=users.column("text"))
    return DecodedRows(rows=from_batch(rows), users=keys, texts={})
