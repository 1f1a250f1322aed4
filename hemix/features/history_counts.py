"""History counts: how many events a request sees, and how many of each action, as context numbers.

``history.counts: true`` turns them on. The loader and the server count the same two arrays here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.spec import FIRST

__all__ = [
    "HISTORY_COUNTS",
    "counted_actions",
    "history_count_names",
    "history_counts",
    "number_of_actions",
]

Array = npt.NDArray[Any]

HISTORY_COUNTS = "history"
"""What their number columns begin with; no context feature may have this name."""

_MAX_ACTIONS = 16
_RANGES = ("today", "before")
"""The real-time and the global range of the history, as number columns call them"""


def counted_actions(values: Sequence[str]) -> tuple[str, ...]:
    """Return the actions that are counted apart: all of a vocabulary of up to 16, else none."""
    return tuple(values) if len(values) <= _MAX_ACTIONS else ()


def history_count_names(actions: Sequence[str]) -> list[str]:
    """Return the names of the number columns: all events of both ranges, then each action's."""
    ranges = [f"{HISTORY_COUNTS}.{name}" for name in _RANGES]
    return [*ranges, *(f"{name}.{action}" for name in ranges for action in actions)]


def number_of_actions(columns: int) -> int:
    """Return how many actions are counted apart in so many number columns."""
    return columns // len(_RANGES) - 1


def history_counts(history_ranges: Array, action_ids: Array, actions: int) -> Array:
    """Count what each request sees of its history.

    Args:
        history_ranges: int [Q, 3]: where the global range begins, where the real-time range begins,
            and where it ends, as positions among the events.
        action_ids: int32 [E], the action of every event; known actions have the ids 2, 3, ...
        actions: How many known actions are counted apart.

    Returns:
        float32 [Q, 2 + 2 * actions]: log1p of the counts, in the order of
        :func:`history_count_names`.
    """
    begin, middle, end = np.asarray(history_ranges, dtype=np.int64).T
    counts = [end - middle, middle - begin]
    before = np.zeros(len(action_ids) + 1, dtype=np.int64)
    of_action: list[Array] = []
    for action in range(FIRST, FIRST + actions):
        np.cumsum(action_ids == action, out=before[1:])
        of_action += [before[end] - before[middle], before[middle] - before[begin]]
    counts += of_action[::2] + of_action[1::2]
    numbers: Array = np.log1p(np.stack(counts, axis=1)).astype(np.float32)
    return numbers
