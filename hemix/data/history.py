"""The histories of a dataset: every user's events, sorted by time and memory-mapped.

A request gets a history range: three positions in its user's events, found by binary search. No
event at or after the time of the request (minus the delay) is inside the range.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hemix.data.clock import day_start_ms
from hemix.data.layout import load_array
from hemix.data.search import Values, first_at_least
from hemix.schema import History

__all__ = ["HistoryEvents", "find_history_ranges"]

Int64Array = npt.NDArray[np.int64]


def find_history_ranges(
    times_ms: Values,
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
    window = history.realtime_window_ms
    since_ms = (
        day_start_ms(request_time_ms, timezone) if window == "day" else request_time_ms - window
    )
    bounds_ms = np.stack([since_ms, request_time_ms - delay_ms], axis=1)
    since, end = first_at_least(times_ms, first, last, bounds_ms).T
    realtime = np.maximum(np.minimum(since, end), end - history.realtime_length)
    begin = np.maximum(first, realtime - history.global_length)
    return np.stack([begin, realtime, end], axis=1)


@dataclass(frozen=True, kw_only=True)
class HistoryEvents:
    """The events of the users of one partition, memory-mapped."""

    offsets: Int64Array
    """int64 [users + 1]: user u has the events offsets[u]:offsets[u + 1], sorted by time"""
    time_ms: Int64Array
    """int64 [E], UTC"""
    item_row: npt.NDArray[np.int32]
    """int32 [E]: a row of the dataset's items"""
    ids: npt.NDArray[np.int32]
    """int32 [E, fields]"""

    @classmethod
    def load(cls, folder: Path) -> HistoryEvents:
        """Map the files of a folder. Raises DataError naming one that is missing or damaged."""
        return cls(
            **{field.name: load_array(folder / f"{field.name}.npy") for field in fields(cls)}
        )
