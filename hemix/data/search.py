"""Binary search within many sorted ranges of one array at once."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Values", "first_at_least"]

Array = npt.NDArray[Any]


class Values(Protocol):
    """An array, or what reads one like it."""

    def __getitem__(self, positions: Any, /) -> Array:
        """Return the values at positions, int [q] or a slice."""
        ...


def first_at_least(values: Values, low: Array, high: Array, bound: Array) -> Array:
    """Find for each i the first position p in [low[i], high[i]] with values[p] >= bound[i].

    Args:
        values: [n], ascending within each range.
        low: int64 [q], the start of each range.
        high: int64 [q], the end of each range.
        bound: [q], or [1] for all ranges, or [q, b] for b searches in each range.

    Returns:
        int64 [q] or [q, b]; the end of the range if none of its values is large enough.
    """
    if len(low) == 1:
        return low + np.searchsorted(values[low[0] : high[0]], bound)
    longest = int((high - low).max(initial=0))
    if bound.ndim == 2:
        low, high = low[:, None], high[:, None]
    position = low + np.zeros(bound.shape, dtype=np.int64)
    for bit in reversed(range(longest.bit_length())):
        # all values before `position` are smaller; for an empty range nothing changes it
        ahead = np.minimum(position + (1 << bit), high)
        position = np.where(values[ahead - 1] < bound, ahead, position)
    return position
