"""The files of a clean partition, between the stages ``clean`` and ``write``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import KeyIndex
from hemix.preparation.entities import Entities
from hemix.preparation.job import PrepareJob
from hemix.preparation.rows import GroupedFile, Rows, read_rows, save_groups, save_rows

__all__ = [
    "HISTORY",
    "IMPRESSIONS",
    "ITEM_PLACES",
    "STATISTICS",
    "TEXTS",
    "PartitionUsers",
    "read_ranges",
    "save_range",
    "save_users",
]

Array = npt.NDArray[Any]

IMPRESSIONS, HISTORY, STATISTICS = "impressions", "history", "statistics"
"""Kinds of files of rows: sorted impressions inside the splits, sorted events, and the columns of
all impressions that statistics need
"""
ITEM_PLACES = "items.arrow"
"""See :meth:`hemix.preparation.numbering.FirstAppearances.save`"""
TEXTS = "texts.arrow"
"""See :func:`hemix.preparation.texts.save_texts`; only where a text was first seen here"""
_USERS, _USER_COLUMNS = "users.arrow", "user_columns.arrow"


def save_range(folder: Path, kind: str, number: int, rows: Rows) -> None:
    """Write the rows of a range of users.

    Args:
        folder: Folder of the partition.
        kind: IMPRESSIONS, HISTORY or STATISTICS.
        number: Position of the range.
        rows: The rows. ``user`` is the number in the partition, ``item`` the position in
            ITEM_PLACES.

    Raises:
        StorageError: The disk is full or read-only.
    """
    save_rows(folder / f"{kind}-{number:05d}.arrow", rows)


def read_ranges(folder: Path, kind: str) -> Iterator[Rows]:
    """Memory-map the files of :func:`save_range`, users in ascending order.

    Args:
        folder: As there.
        kind: As there.

    Yields:
        The rows of a range of users.
    """
    for path in sorted(folder.glob(f"{kind}-*.arrow")):
        yield read_rows(path)


def save_users(folder: Path, index: KeyIndex, entities: Entities) -> None:
    """Write the users of a partition, for :meth:`PartitionUsers.load`.

    Args:
        folder: Folder of the partition.
        index: All users.
        entities: All versions of their features.

    Raises:
        StorageError: The disk is full or read-only.
    """
    columns = [pa.array(index.keys()), index.texts()]
    batch = pa.RecordBatch.from_arrays(columns, names=["key", "text"])
    save_groups(folder / _USERS, batch, np.array([len(index)]))
    entities.save_columns(folder / _USER_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class PartitionUsers:
    """The users of a partition, in the order of their numbers."""

    keys: Array
    """uint64 [users]"""
    texts: pa.Array
    """string [users], raw ids"""
    entities: Entities

    @classmethod
    def load(cls, job: PrepareJob, folder: Path) -> PartitionUsers:
        """Memory-map the files of :func:`save_users`.

        Args:
            job: The schema.
            folder: Folder of the partition.
        """
        users = GroupedFile(folder / _USERS).batch(0)
        path = folder / _USER_COLUMNS
        return cls(
            keys=users.column("key").to_numpy(),
            texts=users.column("text"),
            entities=Entities.load_columns(path, job.schema, "user", users.num_rows),
        )
