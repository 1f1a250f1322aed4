"""HistoryStore: every user's events, sorted by time and memory-mapped, and the cuts that a request
may see.

A history is never copied out row by row: a request gets three positions in its user's events, found
by binary search, and a batch reads each user's piece once. No event at or after the request (minus
the delay) is ever inside the cuts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.clock import day_start_ms
from hemix.data.layout import load_array
from hemix.data.search import first_at_least
from hemix.schema import History

__all__ = ["HistoryStore", "find_history_ranges"]

Array = npt.NDArray[Any]


def find_history_ranges(
    times_ms: Array,
    first: Array,
    last: Array,
    request_time_ms: Array,
    history: History,
    timezone: str,
    *,
    delay_ms: int,
) -> Array:
    """What each request sees of the events ``first[i] : last[i]``, which are sorted by
    ``times_ms``.

    Returns int64 [Q, 3]: where the global part begins, where real time begins, where the visible
    part ends. Events strictly before ``request_time_ms - delay_ms``; the real-time part holds the
    newest ``realtime_length`` of the window, older ones of the same window count as global; the
    global part holds the newest ``global_length``.
    """
    request_time_ms = np.asarray(request_time_ms, dtype=np.int64)
    end = first_at_least(times_ms, first, last, request_time_ms - delay_ms)
    window = history.realtime_window_ms
    since_ms = (
        day_start_ms(request_time_ms, timezone) if window == "day" else request_time_ms - window
    )
    realtime = np.maximum(
        first_at_least(times_ms, first, end, since_ms), end - history.realtime_length
    )
    begin = np.maximum(first, realtime - history.global_length)
    return np.stack([begin, realtime, end], axis=1)


class HistoryStore:
    """The event log of a dataset folder. Raises DataError when a file is missing or damaged."""

    def __init__(
        self, folder: Path, history: History, timezone: str, events_max: int | None = None
    ) -> None:
        """``events_max``: a request sees its newest so many events at most, whatever the schema's
        lengths allow.
        """
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

    def ranges(self, user: Array, request_time_ms: Array) -> Array:
        """Positions in this store that requests of ``user`` numbers [Q] at ``request_time_ms`` [Q]
        see: int64 [Q, 3].
        """
        user = np.asarray(user, dtype=np.int64)
        first, last = self.offsets[user], self.offsets[user + 1]
        delay_ms = self._history.delay_ms
        cuts = find_history_ranges(
            self.time_ms,
            first,
            last,
            request_time_ms,
            self._history,
            self._timezone,
            delay_ms=delay_ms,
        )
        return (
            cuts if self._events_max is None else np.maximum(cuts, cuts[:, 2:] - self._events_max)
        )
