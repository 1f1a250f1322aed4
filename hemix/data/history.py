"""The history store of a dataset: every user's events, sorted by time and memory-mapped.

A request gets a history range: three positions in its user's events, found by binary search. No
event at or after the time of the request (minus the delay) is inside the range.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hemix.data.clock import day_start_ms
from hemix.data.layout import load_array
from hemix.data.search import first_at_least
from hemix.schema import History

__all__ = ["HistoryStore", "find_history_ranges"]

Int64Array = npt.NDArray[np.int64]


def find_history_ranges(
    times_ms: Int64Array,
    first: Int64Array,
    last: Int64Array,
    request_time_ms: Int64Array,
    history: History,
    timezone: str,
    *,
    delay_ms: int,
) -> Int64Array:
    """Find the range of its user's events that each request sees.

    Request i sees events strictly before ``request_time_ms[i] - delay_ms``. Its real-time history
    has the newest ``realtime_length`` events of the window, its global history the newest
    ``global_length`` events before them.

    Args:
        times_ms: int64 [E], times of events in UTC, ascending for each user.
        first: int64 [Q], the first event of each request's user.
        last: int64 [Q], one after the last event of each request's user.
        request_time_ms: int64 [Q], UTC.
        history: Lengths and window of the schema.
        timezone: IANA name, for the window ``day``.
        delay_ms: Time from an event until requests see it.

    Returns:
        int64 [Q, 3], positions among the events: start of the global history, start of the
        real-time history, end.
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
    """The events of all users in a dataset folder."""

    def __init__(
        self, folder: Path, history: History, timezone: str, events_max: int | None = None
    ) -> None:
        """Memory-map the files.

        Args:
            folder: The folder ``history`` of a dataset.
            history: Lengths, window and delay of the schema.
            timezone: IANA name.
            events_max: Largest number of events of a request; None for the schema's lengths.

        Raises:
            DataError: A file is missing or damaged.
        """
        self.offsets: Int64Array = load_array(folder / "offsets.npy")
        """int64 [users + 1]"""
        self.time_ms: Int64Array = load_array(folder / "time_ms.npy")
        """int64 [E]"""
        self.item_row: npt.NDArray[np.int32] = load_array(folder / "item_row.npy")
        """int32 [E]"""
        self.ids: npt.NDArray[np.int32] = load_array(folder / "ids.npy")
        """int32 [E, fields]"""
        self._history = history
        self._timezone = timezone
        self._events_max = events_max

    def ranges(self, user: Int64Array, request_time_ms: Int64Array) -> Int64Array:
        """Find the history range of each request.

        Args:
            user: int [Q], user numbers.
            request_time_ms: int64 [Q], UTC.

        Returns:
            int64 [Q, 3], positions in the store, see :func:`find_history_ranges`.
        """
        user = np.asarray(user, dtype=np.int64)
        first, last = self.offsets[user], self.offsets[user + 1]
        delay_ms = self._history.delay_ms
        ranges = find_history_ranges(
            self.time_ms,
            first,
            last,
            request_time_ms,
            self._history,
            self._timezone,
            delay_ms=delay_ms,
        )
        if self._events_max is None:
            return ranges
        shortened: Int64Array = np.maximum(ranges, ranges[:, 2:] - self._events_max)
        return shortened
