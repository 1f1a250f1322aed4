"""Number users and items in the order of their first appearance (stage 1).

Impressions come first, then events, then the user and item tables, which are read later.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.keys import KeyIndex
from hemix.data.layout import Appender, load_array
from hemix.files import storage_errors
from hemix.preparation.job import PrepareJob
from hemix.preparation.log_table import LogTable
from hemix.preparation.role_columns import check_ids

__all__ = ["LogNumbers", "Numbering", "number_logs", "save_raw_ids"]

Array = npt.NDArray[Any]
_COUNTED_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class LogNumbers:
    """User and item number of every row of a log, int32, memory-mapped from temporary files."""

    user: Array
    item: Array

    def rows_per_user(self, users: int, rows: int) -> Array:
        """Count the rows of every user, int64 [users].

        Args:
            users: Number of users.
            rows: Approximate number of rows in memory at once.
        """
        step = max(rows, _COUNTED_AT_ONCE)
        counts = np.zeros(users, dtype=np.int64)
        for begin in range(0, len(self.user), step):
            counts += np.bincount(self.user[begin : begin + step], minlength=users)
        return counts


@dataclass(frozen=True, kw_only=True)
class Numbering:
    """Numbers of users and items by their ids, and of the users and items of all log rows."""

    users: KeyIndex
    items: KeyIndex
    impressions: LogNumbers
    events: LogNumbers | None
    """None without an events table"""
    users_in_impressions: int
    """User numbers below this one occur in the impressions"""
    items_in_impressions: int
    """Item numbers below this one occur in the impressions"""


def number_logs(job: PrepareJob) -> Numbering:
    """Read the user and item columns of both logs; raise DataError for a missing id."""
    users, items = KeyIndex(), KeyIndex()
    impressions = _number_log(job, job.logs.impressions, users, items)
    users_in_impressions, items_in_impressions = len(users), len(items)
    events = None if job.logs.events is None else _number_log(job, job.logs.events, users, items)
    return Numbering(
        users=users,
        items=items,
        impressions=impressions,
        events=events,
        users_in_impressions=users_in_impressions,
        items_in_impressions=items_in_impressions,
    )


def _number_log(job: PrepareJob, table: LogTable, users: KeyIndex, items: KeyIndex) -> LogNumbers:
    """Number the users and items of a log; the indices grow by new ids."""
    job.progress(f"numbering {table.role.removeprefix('tables.')}", 0.0)
    folder, schema = job.temporary / "numbers", job.schema
    folder.mkdir(exist_ok=True)
    columns = {"user": (schema.user, users), "item": (schema.item, items)}
    paths = {level: folder / f"{table.role}.{level}.npy" for level in columns}
    with Appender(paths["user"], np.int32) as user, Appender(paths["item"], np.int32) as item:
        for chunk in table.chunks([schema.user, schema.item], job.memory_rows):
            for out, (column, index) in zip((user, item), columns.values(), strict=True):
                check_ids(column, chunk.columns[column], chunk.where)
                out.append(index.add(chunk.columns[column]))
    return LogNumbers(load_array(paths["user"]), load_array(paths["item"]))


def save_raw_ids(job: PrepareJob, numbering: Numbering) -> None:
    """Write ids/users.parquet and ids/items.parquet: raw ids in the order of their numbers.

    Args:
        job: Logs, schema and dataset folder.
        numbering: The ids.
    """
    logs, schema = job.logs, job.schema
    for name, column, index, own in (
        ("users", schema.user, numbering.users, logs.users),
        ("items", schema.item, numbering.items, logs.items),
    ):
        tables = [table for table in (logs.impressions, logs.events, own) if table is not None]
        types = [type_ for table in tables if table.rows for type_ in table.types_of(column)]
        are_integers = all(pa.types.is_integer(type_) for type_ in types)
        _save_ids(job.folder / "ids" / f"{name}.parquet", index, are_integers)


def _save_ids(path: Path, index: KeyIndex, are_integers: bool) -> None:
    """Write raw ids: as int64 if all tables have integers that fit, else as text."""
    ids = texts = index.texts()
    if are_integers:
        try:
            ids = texts.cast(pa.int64())
        except pa.ArrowInvalid:  # uint64 has numbers above int64
            ids = texts
    path.parent.mkdir(exist_ok=True)
    with storage_errors(path):
        pq.write_table(pa.table({"id": ids}), path)
