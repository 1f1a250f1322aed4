"""Find duplicates and rows out of order in a partition of a log."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.preparation.rows import Rows

__all__ = ["count_out_of_order", "distinct_rows", "stable_order"]

_RADIX_SORT = 1 << 16
"""NumPy sorts numbers below this without comparisons"""

Array = npt.NDArray[Any]


def distinct_rows(rows: Rows) -> Array:
    """Find the rows that are not a duplicate of an earlier row.

    Args:
        rows: Rows with the column ``hash``.

    Returns:
        int64 [n]: their positions, ascending.
    """
    hashes = np.asarray(rows["hash"])
    is_distinct = np.ones(len(hashes), dtype=bool)
    candidates = _with_equal_prefix(hashes)
    order = candidates[np.argsort(hashes[candidates], kind="stable")]
    is_distinct[order[1:][hashes[order[1:]] == hashes[order[:-1]]]] = False
    return np.flatnonzero(is_distinct)


def _with_equal_prefix(hashes: Array) -> Array:
    """int64, ascending: the rows that share the first 32 bits of their hash with another row."""
    high, low = (hashes >> np.uint64(48)), (hashes >> np.uint64(32)) & np.uint64(0xFFFF)
    order = stable_order(low)
    order = order[stable_order(high[order])]
    prefix = (hashes >> np.uint64(32))[order]
    equal = np.flatnonzero(prefix[1:] == prefix[:-1])
    return np.unique(np.concatenate([order[equal], order[equal + 1]]))


def count_out_of_order(rows: Rows, timed: Array | None = None) -> int:
    """Count the rows with an earlier time than the row before them in their user's log.

    Args:
        rows: Rows in the order of the log.
        timed: bool [n], which rows to compare; by default all.
    """
    user, time_ms = np.asarray(rows["user"]), np.asarray(rows["time_ms"])
    if timed is not None:
        user, time_ms = user[timed], time_ms[timed]
    order = stable_order(user)
    user, time_ms = user[order], time_ms[order]
    return int(((user[1:] == user[:-1]) & (time_ms[1:] < time_ms[:-1])).sum())


def stable_order(numbers: Array) -> Array:
    """Return the positions that sort numbers; equal numbers stay in their order.

    Args:
        numbers: int [n], at least 0.

    Returns:
        int64 [n].
    """
    if numbers.max(initial=0) < _RADIX_SORT:
        numbers = numbers.astype(np.uint16)
    order: Array = np.argsort(numbers, kind="stable")
    return order
