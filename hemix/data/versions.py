"""Versions of a user's or an item's row: which one held at a time.

Knows numbers and times, not features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Versions"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Versions:
    """The rows of every number, consecutive and sorted by the time from which they hold; every
    number's first row holds from the beginning.
    """

    first_row: Array
    """int64 [ids + 1]: number i has the rows first_row[i] : first_row[i + 1]"""
    valid_from_ms: Array
    """int64 [rows]"""

    def row_at(self, numbers: Array, time_ms: Array) -> Array:
        """int64 [n]: the row of every number (>= 0) that held at its time: the last with
        valid_from_ms <= time_ms.
        """
        low = np.asarray(self.first_row[numbers], dtype=np.int64)
        if self.first_row[-1] - self.first_row[0] == len(self.first_row) - 1:
            return low  # one version each
        high = np.asarray(self.first_row[np.asarray(numbers) + 1], dtype=np.int64)
        # invariant: row `low` holds by then, row `high` does not (or is another number's)
        while (open_ := high - low > 1).any():
            middle = (low + high) // 2
            held = self.valid_from_ms[np.where(open_, middle, low)] <= time_ms
            low = np.where(open_ & held, middle, low)
            high = np.where(open_ & ~held, middle, high)
        return low
