"""Versions of the rows of users and items, and the version that is valid at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NO_ITEM_ROW", "Versions"]

Array = npt.NDArray[Any]

NO_ITEM_ROW = 0
"""The first row of all items: the unknown item, which events without an item have too."""


@dataclass(frozen=True, kw_only=True)
class Versions:
    """The rows of all users or items: consecutive for each number, sorted by their start time.

    The first row of a number is valid from the beginning.
    """

    first_row: Array
    """int64 [ids + 1]: number i has the rows first_row[i] : first_row[i + 1]"""
    valid_from_ms: Array
    """int64 [rows]"""

    def row_at(self, numbers: Array, time_ms: Array) -> Array:
        """Find the row of every number that is valid at a time.

        Args:
            numbers: int [n], at least 0.
            time_ms: int64 [n], UTC.

        Returns:
            int64 [n]: the last row of the number with ``valid_from_ms <= time_ms``.
        """
        low = np.asarray(self.first_row[numbers], dtype=np.int64)
        if self.first_row[-1] - self.first_row[0] == len(self.first_row) - 1:
            return low  # every number has one version
        high = np.asarray(self.first_row[np.asarray(numbers) + 1], dtype=np.int64)
        # invariant: row `low` is valid, row `high` is not yet valid or of another number
        while (open_ := high - low > 1).any():
            middle = (low + high) // 2
            is_valid = self.valid_from_ms[np.where(open_, middle, low)] <= time_ms
            low = np.where(open_ & is_valid, middle, low)
            high = np.where(open_ & ~is_valid, middle, high)
        return low
