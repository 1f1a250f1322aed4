"""Number users and items in the order of their first appearance, with the place of it.

Impressions come first, then events, then the table of users or items. Users are numbered within
their partition. Items are numbered over all partitions, by the earliest of their places.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import NULL_KEY, KeyIndex, distinct
from hemix.preparation.decoding import LOGS, LogName
from hemix.preparation.rows import Rows, read_rows, save_rows

__all__ = ["FirstAppearances", "ItemPlaces", "places_of"]

Array = npt.NDArray[Any]

_LOG_ROWS = 1 << 60
"""The rows of a log, in the numbering of places"""
_MERGED_AT_ONCE = 1 << 20


def places_of(log: LogName, log_row: Array) -> Array:
    """Return places that order the rows of all logs.

    Args:
        log: Name of the log.
        log_row: int64 [n], rows of the log.
    """
    return log_row + LOGS.index(log) * _LOG_ROWS


class FirstAppearances:
    """Numbers keys, and counts the rows of each by log."""

    def __init__(self) -> None:
        self.index = KeyIndex()
        self.first = np.zeros(0, dtype=np.int64)
        """int64 [n]: the place of the first row of every number"""
        self.rows: dict[LogName, Array] = {log: np.zeros(0, dtype=np.int64) for log in LOGS}
        """int64 [n] each: the rows of every number"""

    def number_keys(self, keys: Array) -> Array:
        """Number rows by their keys, without texts; returns int32 [rows], -1 for NULL_KEY.

        Args:
            keys: uint64 [rows].
        """
        numbers = np.full(len(keys), -1, dtype=np.int32)
        given = np.flatnonzero(keys != NULL_KEY)
        unique, codes = distinct(pa.array(keys[given]))
        of_unique, _ = self.index.add_keys(unique.to_numpy(zero_copy_only=False))
        numbers[given] = of_unique[codes]
        return numbers

    def count(self, log: LogName, numbers: Array, log_row: Array) -> None:
        """Count rows, and note the places of new numbers.

        Args:
            log: Name of the log.
            numbers: int32 [rows]; rows of -1 are not counted.
            log_row: int64 [rows], ascending, after all rows that were counted before.
        """
        known = len(self.first)
        if len(self.index) > known:
            first = np.zeros(len(self.index) - known, dtype=np.int64)
            new = np.flatnonzero(numbers >= known)[::-1]  # the earliest row is written last
            first[numbers[new] - known] = places_of(log, log_row[new])
            self.first = np.concatenate([self.first, first])
            self.rows = {
                name: np.concatenate([rows, np.zeros_like(first)])
                for name, rows in self.rows.items()
            }
        self.rows[log] += np.bincount(numbers[numbers >= 0], minlength=len(self.index))

    def save(self, path: Path) -> None:
        """Write keys, places and counts in the order of the numbers, for :class:`ItemPlaces`."""
        rows: Rows = {"key": self.index.keys(), "first": self.first}
        rows |= {log: self.rows[log] for log in LOGS[:2]}
        save_rows(path, rows)


@dataclass(frozen=True, kw_only=True)
class ItemPlaces:
    """The items of all partitions, sorted by key."""

    keys: Array
    """uint64 [n], ascending"""
    first: Array
    """int64 [n]: the place of the first row"""
    impressions: Array
    """int64 [n]: rows of the impressions"""
    events: Array
    """int64 [n]: rows of the events"""

    @classmethod
    def of(cls, paths: Iterable[Path]) -> ItemPlaces:
        """Merge files of :meth:`FirstAppearances.save`."""
        merged = cls(
            keys=np.zeros(0, np.uint64),
            first=np.zeros(0, np.int64),
            impressions=np.zeros(0, np.int64),
            events=np.zeros(0, np.int64),
        )
        waiting: list[Rows] = []
        rows = 0
        for path in paths:
            waiting.append(read_rows(path))
            rows += len(np.asarray(waiting[-1]["key"]))
            if rows > max(_MERGED_AT_ONCE, len(merged.keys)):
                merged, waiting, rows = merged._with(waiting), [], 0
        return merged._with(waiting)

    def _with(self, tables: list[Rows]) -> ItemPlaces:
        def column(own: Array, name: str) -> Array:
            return np.concatenate([own, *(np.asarray(table[name]) for table in tables)])

        keys = column(self.keys, "key")
        if len(keys) == 0:
            return self
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        begin = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        return ItemPlaces(
            keys=keys[begin],
            first=np.minimum.reduceat(column(self.first, "first")[order], begin),
            impressions=np.add.reduceat(column(self.impressions, "impressions")[order], begin),
            events=np.add.reduceat(column(self.events, "events")[order], begin),
        )
