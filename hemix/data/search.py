"""Binary search within many sorted ranges of one array at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["first_at_least"]

Array = npt.NDArray[Any]


def first_at_least(values: Array, low: Array, high: Array, bound: Array) -> Array:
    """Find for each i the first position p in [low[i], high[i]] with values[p] >= bound[i].

    Args:
        values: [n], ascending within each range.
        low: int64 [q], the start of each range.
        high: int64 [q], the end of each range.
        bound: [q], or [1] for all ranges.

    Returns:
        int64 [q]; the end of the range if none of its values is large enough.
    """
    if len(low) == 1:
        return low + np.searchsorted(values[low[0] : high[0]], bound)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        below = open_ & (values[np.where(open_, middle, 0)] < bound)
        low = np.where(below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    return low
