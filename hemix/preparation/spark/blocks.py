"""Blocks: the rows of a partition in a chunk of a log, as one value that Spark moves.

Spark sees numbers and bytes only, so it changes no value, whatever the Arrow types of a log are. A
block costs the JVM as much as one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.files import storage_errors
from hemix.preparation.decoding import DecodedRows, LogName
from hemix.preparation.job import PrepareJob
from hemix.preparation.stages.partition import GroupedRows, group_rows, ungroup
from hemix.preparation.texts import save_texts, text_tables

__all__ = ["BLOCK_COLUMNS", "BlockRows", "save_blocks"]

Array = npt.NDArray[Any]

BLOCK_COLUMNS = "partition INT, first_row BIGINT, row_count INT, rows BINARY, users BINARY"
"""Columns of a file of blocks, in Spark's words. ``first_row``: row in the log of the first row"""

_SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("first_row", pa.int64()),
        ("row_count", pa.int32()),
        ("rows", pa.binary()),
        ("users", pa.binary()),
    ]
)
_ROW_GROUP_BYTES = 1 << 23
"""Spark reads a row group's values at a time"""
_READ_AT_ONCE = 4


def save_blocks(job: PrepareJob, decoded: DecodedRows, folder: Path, name: str) -> Array:
    """Write decoded rows as one block for each partition that has some.

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
    path = folder / f"{name}.parquet"
    grouped = group_rows(decoded, job.partitions)
    with (
        storage_errors(path),
        pq.ParquetWriter(
            path, _SCHEMA, compression="none", use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        for blocks in _row_groups(grouped):
            writer.write_table(pa.Table.from_pylist(blocks, _SCHEMA))
    save_texts(folder / f"{name}.texts.arrow", text_tables(job.schema), decoded.texts)
    return grouped.counts


def _row_groups(grouped: GroupedRows) -> Iterator[list[dict[str, Any]]]:
    """Yield the blocks, several at a time."""
    row = user = size = 0
    blocks: list[dict[str, Any]] = []
    log_row = grouped.rows.column("log_row")
    for partition in np.flatnonzero(grouped.counts).tolist():
        rows, users = int(grouped.counts[partition]), int(grouped.user_counts[partition])
        block = {
            "partition": partition,
            "first_row": log_row[row].as_py(),
            "row_count": rows,
            "rows": _to_bytes(grouped.rows.slice(row, rows)),
            "users": _to_bytes(grouped.users.slice(user, users)),
        }
        row, user = row + rows, user + users
        blocks.append(block)
        size += len(block["rows"]) + len(block["users"])
        if size >= _ROW_GROUP_BYTES:
            yield blocks
            blocks, size = [], 0
    if blocks:
        yield blocks


@dataclass(frozen=True, kw_only=True)
class BlockRows:
    """The rows of one partition, in files of blocks."""

    files: Mapping[LogName, Path]
    """By log the file with the blocks of the partition in the order of the log; a partition without
    rows has none
    """

    def rows(self, log: LogName) -> int:
        """Return the number of rows of a log."""
        if log not in self.files:
            return 0
        return int(np.sum(pq.read_table(self.files[log], columns=["row_count"])["row_count"]))

    def read(self, log: LogName) -> Iterator[DecodedRows]:
        """Yield the rows of a log in the order of the log.

        Args:
            log: Name of the log.
        """
        if log not in self.files:
            return
        with pq.ParquetFile(self.files[log], buffer_size=1 << 20, pre_buffer=False) as file:
            last = -1
            for batch in file.iter_batches(_READ_AT_ONCE, columns=["first_row", "rows", "users"]):
                for block in zip(*batch.columns, strict=True):
                    first_row, rows, users = block
                    assert first_row.as_py() > last, "blocks are in the order of the log"
                    last = first_row.as_py()
                    yield ungroup(_from_bytes(rows.as_buffer()), _from_bytes(users.as_buffer()))


def _to_bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _from_bytes(content: pa.Buffer) -> pa.RecordBatch:
    return pa.ipc.open_stream(content).read_next_batch()
