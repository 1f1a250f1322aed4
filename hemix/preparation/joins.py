"""Join rates: how many impressions and events have their user and item in the other tables.

Ids that two tables write differently join nothing without any error, so that is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import KeyIndex
from hemix.errors import DataError
from hemix.preparation.entities import Entities
from hemix.preparation.log_table import LogTable
from hemix.preparation.logs import Logs
from hemix.preparation.numbering import LogNumbers

__all__ = ["JoinSide", "Joins", "count_numbers"]

Array = npt.NDArray[Any]

_EXAMPLE_BELOW = 0.95
"""The manifest gives an example of a missing id for a lower join rate"""
_CHUNK_ROWS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class JoinSide:
    """Users or items: the ids of the logs, and the rows of their table."""

    entities: Entities
    index: KeyIndex
    in_impressions: int
    """Numbers below this one occur in the impressions"""

    def first_text(self, numbers: Array) -> str:
        """Return the raw id of the first of these numbers."""
        text: str = self.index.texts().take(pa.array(numbers[:1])).to_pylist()[0]
        return text


@dataclass
class Joins:
    """Fractions of impressions and events whose id another table has as well."""

    rate: dict[str, float] = field(default_factory=dict)
    """``items``, ``users``: impressions with a row in that table. ``event_users``: events of a user
    of the impressions. ``event_items``: events of an item of the item table or the impressions.
    """
    example: dict[str, str] = field(default_factory=dict)
    """A missing id for each low rate"""

    def check(
        self,
        logs: Logs,
        impressions: LogNumbers,
        events: LogNumbers | None,
        *,
        users: JoinSide,
        items: JoinSide,
    ) -> None:
        """Measure all joins.

        Args:
            logs: The open tables.
            impressions: User and item numbers of the impressions.
            events: User and item numbers of the events; None without an events table.
            users: Both sides of the joins by user.
            items: Both sides of the joins by item.

        Raises:
            DataError: A join has no match; with both files, the column, its types and an id of
                each.
        """
        for level, table, side, numbers in (
            ("user", logs.users, users, impressions.user),
            ("item", logs.items, items, impressions.item),
        ):
            if table is not None and table.rows:
                self._check_table(logs, level, table, side, numbers)
        if logs.events is not None and events is not None and logs.events.rows:
            self._check_event_users(logs, logs.events, events, users)
            self._check_event_items(logs, logs.events, events, items)

    def _check_table(
        self, logs: Logs, level: str, table: LogTable, side: JoinSide, numbers: Array
    ) -> None:
        column, is_used = getattr(logs.schema, level), _has_used_columns(logs, level)
        counts = count_numbers(numbers, len(side.index))
        in_table = side.entities.in_table
        limit = _EXAMPLE_BELOW if is_used else 0
        rate = self._measure(f"{level}s", counts, in_table, side, limit)
        if rate == 0 and is_used:
            example = side.first_text(np.flatnonzero(in_table))
            raise DataError(
                f"{table.path}: has no {level} of {_file_name(logs.impressions)}: column "
                f"{column!r} holds, for instance, {example!r} ({_type_name(table, column)}) here "
                f"and {self.example[f'{level}s']!r} ({_type_name(logs.impressions, column)}) "
                "there",
                hint="write the ids in one form",
            )

    def _check_event_users(
        self, logs: Logs, table: LogTable, events: LogNumbers, users: JoinSide
    ) -> None:
        column, impressions = logs.schema.user, logs.impressions
        in_impressions = np.arange(len(users.index)) < users.in_impressions
        counts = count_numbers(events.user, len(users.index))
        if self._measure("event_users", counts, in_impressions, users, _EXAMPLE_BELOW) == 0:
            raise DataError(
                f"{table.path}: has no user of {_file_name(impressions)}: column {column!r} is "
                f"{_type_name(table, column)} here and {_type_name(impressions, column)} there",
                hint="write the ids in one form",
            )

    def _check_event_items(
        self, logs: Logs, table: LogTable, events: LogNumbers, items: JoinSide
    ) -> None:
        column = logs.schema.item
        known = np.arange(len(items.index)) < items.in_impressions
        if logs.items is not None:
            known |= items.entities.in_table
        # without an item table, events may be of items that are never ranked
        limit = _EXAMPLE_BELOW if logs.items is not None else 0
        counts = count_numbers(events.item, len(items.index))
        rate = self._measure("event_items", counts, known, items, limit)
        if rate == 0 and logs.items is not None:
            example = items.first_text(np.flatnonzero(known))
            raise DataError(
                f"{table.path}: has no item of {_file_name(logs.items)} or "
                f"{_file_name(logs.impressions)}: column {column!r} holds, for instance, "
                f"{self.example['event_items']!r} ({_type_name(table, column)}) here and "
                f"{example!r} ({_type_name(logs.items, column)}) there",
                hint="write the ids in one form",
            )

    def _measure(
        self, name: str, counts: Array, matched: Array, side: JoinSide, example_below: float
    ) -> float:
        """The fraction of ``counts`` int [ids] whose id is ``matched`` bool [ids]."""
        rate = float(counts[matched].sum() / counts.sum())
        self.rate[name] = round(rate, 6)
        if rate == 0 or rate < example_below:
            self.example[name] = side.first_text(np.flatnonzero((counts > 0) & ~matched))
        return rate


def count_numbers(numbers: Array, ids: int) -> Array:
    """Count how often each number occurs, with bounded memory.

    Args:
        numbers: int32 [n], usually memory-mapped.
        ids: Number of different numbers.

    Returns:
        int64 [ids].
    """
    counts = np.zeros(ids, dtype=np.int64)
    chunk = max(_CHUNK_ROWS, ids)
    for begin in range(0, len(numbers), chunk):
        counts += np.bincount(numbers[begin : begin + chunk], minlength=ids)
    return counts


def _has_used_columns(logs: Logs, level: str) -> bool:
    """Whether features or the score read a column of the user or item table besides the id."""
    own = getattr(logs.schema, level)
    columns = {
        column
        for name, feature in logs.schema.features.level(level).items()
        for column in feature.columns(name)
    }
    return bool(columns - {own}) or (level == "item" and bool(logs.score_columns))


def _type_name(table: LogTable, column: str) -> str:
    return str(table.arrow_schema.field(column).type)


def _file_name(table: LogTable) -> str:
    return str(table.path).rstrip("/").rpartition("/")[2]
