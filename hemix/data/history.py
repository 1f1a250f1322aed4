"""HistoryStore: every user's events, sorted by time and memory-mapped, and the cuts that a request may see.

A history is never copied out row by row: a request gets three positions in its user's events, found by binary search, and a
batch reads each user's piece once. No event at or after the request (minus the delay) is ever inside the cuts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.clock import day_start_ms
from hemix.data.layout import load_array
from hemix.data.spec import FIRST
from hemix.schema import History

__all__ = ["HistoryStore", "cut_histories", "first_at_least", "history_counts"]

Array = npt.NDArray[Any]


def first_at_least(times_ms: Array, low: Array, high: Array, bound_ms: Array) -> Array:
    """For each i the first position p in [low[i], high[i]] with times_ms[p] >= bound_ms[i]; high[i] if there is none."""
    if len(low) == 1:
        return low + np.searchsorted(times_ms[low[0] : high[0]], bound_ms)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        below = open_ & (times_ms[np.where(open_, middle, 0)] < bound_ms)
        low = np.where(below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    return low


def cut_histories(
    times_ms: Array, first: Array, last: Array, request_time_ms: Array, history: History, timezone: str, *, delay_ms: int
) -> Array:
    """What each request sees of the events ``first[i] : last[i]``, which are sorted by ``times_ms``.

    Returns int64 [Q, 3]: where the global part begins, where real time begins, where the visible part ends. Events strictly
    before ``request_time_ms - delay_ms``; the real-time part holds the newest ``realtime_length`` of the window, older ones of the
    same window count as global; the global part holds the newest ``global_length``.
    """
    request_time_ms = np.asarray(request_time_ms, dtype=np.int64)
    end = first_at_least(times_ms, first, last, request_time_ms - delay_ms)
    window = history.realtime_window_ms
    since_ms = day_start_ms(request_time_ms, timezone) if window == "day" else request_time_ms - window
    realtime = np.maximum(first_at_least(times_ms, first, end, since_ms), end - history.realtime_length)
    begin = np.maximum(first, realtime - history.global_length)
    return np.stack([begin, realtime, end], axis=1)


def history_counts(visible: Array, action_ids: Array, actions: int) -> Array:
    """How much each request sees, float32 [Q, 2 + 2 * actions]: log1p of the events of the real-time part, of the global part, then
    of every known action's events in the real-time part, and in the global part.

    ``visible`` int [Q, 3] are cuts among the events whose actions are ``action_ids`` int [E]; known actions have the ids 2, 3, ...
    The numbers are at most those that the schema's lengths allow.
    """
    begin, middle, end = np.asarray(visible, dtype=np.int64).T
    counts = [end - middle, middle - begin]
    before = np.zeros(len(action_ids) + 1, dtype=np.int64)
    of_action: list[Array] = []
    for action in range(FIRST, FIRST + actions):
        np.cumsum(action_ids == action, out=before[1:])
        of_action += [before[end] - before[middle], before[middle] - before[begin]]
    counts += of_action[::2] + of_action[1::2]
    numbers: Array = np.log1p(np.stack(counts, axis=1)).astype(np.float32)
    return numbers


class HistoryStore:
    """The event log of a dataset folder. Raises DataError when a file is missing or damaged."""

    def __init__(self, folder: Path, history: History, timezone: str, events_max: int | None = None) -> None:
        """``events_max``: a request sees its newest so many events at most, whatever the schema's lengths allow."""
        self.offsets = load_array(folder / "offsets.npy")
        """int64 [users + 1]"""
        self.time_ms = load_array(folder / "time_ms.npy")
        """int64 [E]"""
        self.item_row = load_array(folder / "item_row.npy")
        """int32 [E]"""
        self.ids = load_array(folder / "ids.npy")
        """int32 [E, fields]"""
        self._history = history
        self._timezone = timezone
        self._events_max = events_max

    def cuts(self, user: Array, request_time_ms: Array) -> Array:
        """Positions in this store that requests of ``user`` numbers [Q] at ``request_time_ms`` [Q] see: int64 [Q, 3]."""
        user = np.asarray(user, dtype=np.int64)
        first, last = self.offsets[user], self.offsets[user + 1]
        delay_ms = self._history.delay_ms
        cuts = cut_histories(self.time_ms, first, last, request_time_ms, self._history, self._timezone, delay_ms=delay_ms)
        return cuts if self._events_max is None else np.maximum(cuts, cuts[:, 2:] - self._events_max)
