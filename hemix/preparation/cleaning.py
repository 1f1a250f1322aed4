"""Find duplicates and rows out of order in a partition of a log."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.preparation.rows import Rows

__all__ = ["count_out_of_order", "distinct_rows"]

Array = npt.NDArray[Any]


def distinct_rows(rows: Rows) -> Array:
    """Find the rows that are not a duplicate of an earlier row.

    Args:
        rows: Rows with the column ``hash``.

    Returns:
        int64 [n]: their positions, ascending.
    """
    hashes = np.asarray(rows["hash"])
    order = np.argsort(hashes, kind="stable")
    is_distinct = np.ones(len(hashes), dtype=bool)
    is_distinct[order[1:][hashes[order[1:]] == hashes[order[:-1]]]] = False
    return np.flatnonzero(is_distinct)


def count_out_of_order(rows: Rows, timed: Array | None = None) -> int:
    """Count the rows with an earlier time than the row before them in their user's log.

    Args:
        rows: Rows in the order of the log.
        timed: bool [n], which rows to compare; by default all.
    """
    user, time_ms = np.asarray(rows["user"]), np.asarray(rows["time_ms"])
    if timed is not None:
        user, time_ms = user[timed], time_ms[timed]
    order = np.argsort(user, kind="stable")
    user, time_ms = user[order], time_ms[order]
    return int(((user[1:] == user[:-1]) & (time_ms[1:] < time_ms[:-1])).sum())
