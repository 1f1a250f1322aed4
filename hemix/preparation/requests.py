"""Group impressions into requests, and check that the rows of a request agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.raw_columns import row_hashes
from hemix.preparation.job import PrepareJob
from hemix.preparation.logs import Logs
from hemix.preparation.rows import (
    GroupedFile,
    Rows,
    as_batch,
    concatenate_rows,
    save_groups,
    take_rows,
)

__all__ = ["RequestGroups", "check_requests", "request_buckets", "save_requests"]

_FILE = "requests.arrow"
_MEMORY_ROWS = 4
"""Requests of a bucket for each row in memory; a request has 24 bytes"""

Array = npt.NDArray[Any]


class RequestGroups:
    """Groups impressions into requests, by user, request id and split."""

    def __init__(self, logs: Logs) -> None:
        self._logs, self._schema = logs, logs.schema
        self.with_several_times = 0
        """Requests whose rows have different times; the earliest is the request's time"""

    def group(self, rows: Rows) -> Rows:
        """Sort rows by user, time and request.

        Args:
            rows: Rows of a partition without duplicates, in the order of the log.

        Returns:
            The sorted rows with two more columns: ``request_time_ms``, and ``starts``, which is 1
            for the first row of a request. Without request ids every row is a request.

        Raises:
            DataError: A context feature differs within a request.
        """
        user, time_ms, split, log_row = _columns(rows, "user", "time_ms", "split", "log_row")
        if self._schema.roles.request_id is None:
            starts = np.ones(len(user), dtype=np.uint8)
            rows |= {"request_time_ms": time_ms, "starts": starts}
            return take_rows(rows, np.lexsort((log_row, time_ms, user)))
        request = np.asarray(rows["request"])
        request_time_ms = self._earliest_times(user, request, split, time_ms)
        rows |= {"request_time_ms": request_time_ms}
        order = np.lexsort((log_row, split, request, request_time_ms, user))
        rows = take_rows(rows, order)
        rows["starts"] = _changes(*_columns(rows, "user", "request", "split")).astype(np.uint8)
        self._check_context(rows)
        return rows

    def check_users(self, keys: Array, users: Array, log_rows: Array) -> None:
        """Refuse a request id of two users.

        Args:
            keys: uint64 [n], the key of a request, once for each of its users.
            users: uint64 [n], the user's key.
            log_rows: int64 [n], the first row of that request and user.

        Raises:
            DataError: With a row of each user.
        """
        order = np.lexsort((log_rows, keys))
        keys, users, log_rows = keys[order], users[order], log_rows[order]
        shared = (keys[1:] == keys[:-1]) & (users[1:] != users[:-1])
        if shared.any():
            at = int(np.argmax(shared))
            first, second = int(log_rows[at]), int(log_rows[at + 1])
            self._refuse(first, second, f"the user ({self._schema.user}) differs")

    def _earliest_times(self, user: Array, request: Array, split: Array, time_ms: Array) -> Array:
        """int64 [rows]: the earliest time of each row's request."""
        order = np.lexsort((time_ms, split, request, user))
        starts = _changes(user[order], request[order], split[order])
        begin = np.flatnonzero(starts)
        earliest = time_ms[order][begin]  # rows of a request are sorted by time here
        if len(begin):
            latest = np.maximum.reduceat(time_ms[order], begin)
            self.with_several_times += int((latest != earliest).sum())
        request_time_ms = np.empty_like(time_ms)
        request_time_ms[order] = earliest[np.cumsum(starts) - 1]
        return request_time_ms

    def _check_context(self, rows: Rows) -> None:
        """Refuse a request whose rows differ in a context feature."""
        starts = np.asarray(rows["starts"]) > 0
        begin = np.flatnonzero(starts)
        for name in self._schema.features.context:
            column = rows.get(f"context.{name}")
            if column is None:
                continue
            hashes = row_hashes(column)
            differs = hashes != hashes[begin][np.cumsum(starts) - 1]
            if differs.any():
                at = int(np.argmax(differs))
                first = int(begin[np.searchsorted(begin, at, side="right") - 1])
                log_row = np.asarray(rows["log_row"])
                problem = f"context feature {name!r} differs"
                self._refuse(int(log_row[first]), int(log_row[at]), problem)

    def _refuse(self, first: int, second: int, problem: str) -> None:
        table, column = self._logs.impressions, self._schema.roles.request_id
        assert column is not None
        file, file_row = table.where(first)
        first_row = f"{file_row}{'' if len(table.files) == 1 else f' of {file}'}"
        request = f"request {table.value(second, column)!r}"
        raise table.error(
            second,
            column,
            f"{problem} within {request} (first row: {first_row})",
        )


def request_buckets(job: PrepareJob) -> int:
    """Return the number of buckets: the same request is in the same bucket in every partition."""
    return -(-job.logs.impressions.rows // (_MEMORY_ROWS * job.memory_rows))


def save_requests(folder: Path, job: PrepareJob, requests: Sequence[Rows]) -> None:
    """Write the requests of a partition, for :func:`check_requests`.

    Args:
        folder: Folder of the partition.
        job: The number of buckets.
        requests: Columns ``request``, ``user`` (keys) and ``log_row`` (of the first row).

    Raises:
        StorageError: The disk is full or read-only.
    """
    if not requests:
        return
    rows, buckets = concatenate_rows(requests), request_buckets(job)
    bucket = (np.asarray(rows["request"]) % np.uint64(buckets)).astype(np.int64)
    rows = take_rows(rows, np.argsort(bucket, kind="stable"))
    save_groups(folder / _FILE, as_batch(rows), np.bincount(bucket, minlength=buckets))


def check_requests(job: PrepareJob, folders: Sequence[Path], bucket: int, _folder: Path) -> None:
    """Refuse a request id of two users, in whatever partitions these are.

    Args:
        job: The logs.
        folders: Folders of all partitions.
        bucket: The requests to check.
        _folder: Stays empty.

    Raises:
        DataError: With a row of each user.
    """
    paths = [folder / _FILE for folder in folders]
    tables = [GroupedFile(path).rows(bucket) for path in paths if path.exists()]
    if tables:
        rows = concatenate_rows(tables)
        columns = _columns(rows, "request", "user", "log_row")
        RequestGroups(job.logs).check_users(*columns)


def _columns(rows: Rows, *names: str) -> list[Array]:
    return [np.asarray(rows[name]) for name in names]


def _changes(*columns: Array) -> Array:
    """bool [rows]: rows that differ from the row before in any column; true for the first row."""
    changed = np.ones(len(columns[0]), dtype=bool)
    changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return changed
