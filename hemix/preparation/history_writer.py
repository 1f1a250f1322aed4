"""Write the histories of a partition: every user's events, sorted by time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.encode import Encoders
from hemix.data.jagged_array import offsets_of
from hemix.data.layout import Appender, save_array
from hemix.data.levels import level_features
from hemix.data.raw_columns import RawColumn
from hemix.files import storage_errors
from hemix.preparation.rows import Rows, row_count
from hemix.preparation.split_writer import value_counts

__all__ = ["HistoryLengths", "HistoryWriter"]

Array = npt.NDArray[Any]


class HistoryLengths:
    """How many users have how many events."""

    def __init__(self) -> None:
        self._users: dict[int, int] = {}
        """By number of events"""

    def add(self, events: Array) -> None:
        """Count users.

        Args:
            events: int64 [users], the number of events of each.
        """
        lengths, users = np.unique(events[events > 0], return_counts=True)
        for length, count in zip(lengths.tolist(), users.tolist(), strict=True):
            self._users[length] = self._users.get(length, 0) + count

    def update(self, other: HistoryLengths) -> None:
        """Add the users of another partition."""
        for length, count in other._users.items():
            self._users[length] = self._users.get(length, 0) + count

    def summary(self) -> Mapping[str, int]:
        """Return the manifest entry: the users with events, and quantiles of their lengths."""
        lengths = np.array(sorted(self._users), dtype=np.int64)
        below = np.cumsum([self._users[length] for length in lengths.tolist()])
        if len(lengths) == 0:
            return {"users_with_events": 0, "p50": 0, "p90": 0, "p99": 0, "max": 0}
        users = int(below[-1])

        def quantile(q: float) -> int:
            position = max(int(np.ceil(users * q - 1)), 0)
            return int(lengths[np.searchsorted(below, position, side="right")])

        return {
            "users_with_events": users,
            "p50": quantile(0.5),
            "p90": quantile(0.9),
            "p99": quantile(0.99),
            "max": int(lengths[-1]),
        }


class HistoryWriter:
    """Encodes sorted events and appends them to the files, users in ascending order."""

    def __init__(self, folder: Path, encoders: Encoders, users: int) -> None:
        """Open the files.

        Args:
            folder: A new folder.
            encoders: The learned encoders.
            users: Number of users.
        """
        with storage_errors(folder):
            folder.mkdir()
        self._folder, self._encoders = folder, encoders
        self.events = np.zeros(users, dtype=np.int64)
        """int64 [users]: the number of events of every user"""
        fields = len(encoders.spec().event.tables)
        self._time = Appender(folder / "time_ms.npy", np.int64)
        self._item_row = Appender(folder / "item_row.npy", np.int32)
        self._ids = Appender(folder / "ids.npy", np.int32, fields)
        self.values = np.zeros((fields, 3), dtype=np.int64)
        """int64 [fields, 3]: unknown, missing and all values of every field"""

    def write(self, rows: Rows) -> None:
        """Append events of a range of users, with ``item_row``."""
        count, time_ms = row_count(rows), np.asarray(rows["time_ms"])
        names = level_features(self._encoders.schema, "event")
        raw: dict[str, RawColumn | None] = {name: rows.get(f"event.{name}") for name in names}
        block = self._encoders.block("event", raw, count, time_ms=time_ms)
        self.events += np.bincount(np.asarray(rows["user"]), minlength=len(self.events))
        self._time.append(time_ms)
        self._item_row.append(np.asarray(rows["item_row"]))
        self._ids.append(block.ids)
        self.values += value_counts(block)

    def close(self) -> None:
        """Complete the files."""
        for out in (self._time, self._item_row, self._ids):
            out.close()
        save_array(self._folder / "offsets.npy", offsets_of(self.events))
