"""Join rates: how many impressions and events have their user and item in the other tables.

Ids that two tables write differently join nothing without any error, so that is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.errors import DataError
from hemix.preparation.log_table import LogTable
from hemix.preparation.logs import Logs

__all__ = ["JoinCounts", "Joins"]

Array = npt.NDArray[Any]

_EXAMPLE_BELOW = 0.95
"""The manifest gives an example of a missing id for a lower join rate"""


@dataclass(frozen=True, order=True)
class _Example:
    place: int
    """Of the id's first appearance, see numbering.py"""
    text: str


@dataclass
class JoinCounts:
    """Rows of a log, and those whose id another table has as well."""

    rows: int = 0
    matched: int = 0
    unmatched_id: _Example | None = None
    """The first id of the rows that the other table lacks"""
    other_id: _Example | None = None
    """The first id of the other table"""

    @classmethod
    def of(
        cls, rows: Array, is_matched: Array, first: Array, text_of: Callable[[int], str]
    ) -> JoinCounts:
        """Count the rows of some ids.

        Args:
            rows: int64 [ids], the rows of every id.
            is_matched: bool [ids], the ids that the other table has.
            first: int64 [ids], places of first appearances.
            text_of: Returns the raw id of a number.
        """

        def example(numbers: Array) -> _Example | None:
            if len(numbers) == 0:
                return None
            number = int(numbers[np.argmin(first[numbers])])
            return _Example(int(first[number]), text_of(number))

        return cls(
            rows=int(rows.sum()),
            matched=int(rows[is_matched].sum()),
            unmatched_id=example(np.flatnonzero((rows > 0) & ~is_matched)),
            other_id=example(np.flatnonzero(is_matched)),
        )

    def update(self, other: JoinCounts) -> None:
        """Add the counts of other ids."""
        self.rows += other.rows
        self.matched += other.matched
        self.unmatched_id = _earlier(self.unmatched_id, other.unmatched_id)
        self.other_id = _earlier(self.other_id, other.other_id)


def _earlier(one: _Example | None, other: _Example | None) -> _Example | None:
    examples = [example for example in (one, other) if example is not None]
    return min(examples) if examples else None


@dataclass
class Joins:
    """Fractions of impressions and events whose id another table has as well."""

    rate: dict[str, float] = field(default_factory=dict)
    """``items``, ``users``: impressions with a row in that table. ``event_users``: events of a user
    of the impressions. ``event_items``: events of an item of the item table or the impressions.
    """
    example: dict[str, str] = field(default_factory=dict)
    """A missing id for each low rate"""

    def check(self, logs: Logs, counts: Mapping[str, JoinCounts]) -> None:
        """Check all joins.

        Args:
            logs: The open tables.
            counts: By join, see :attr:`rate`.

        Raises:
            DataError: A join has no match; with both files, the column, its types and an id of
                each.
        """
        for level, table in (("user", logs.users), ("item", logs.items)):
            if table is not None and table.rows:
                self._check_table(logs, level, table, counts[f"{level}s"])
        if logs.events is not None and logs.events.rows:
            self._check_event_users(logs, logs.events, counts["event_users"])
            if counts["event_items"].rows:  # events may have no item
                self._check_event_items(logs, logs.events, counts["event_items"])

    def _check_table(self, logs: Logs, level: str, table: LogTable, counts: JoinCounts) -> None:
        column, is_used = getattr(logs.schema, level), _has_used_columns(logs, level)
        rate = self._measure(f"{level}s", counts, _EXAMPLE_BELOW if is_used else 0)
        if rate == 0 and is_used:
            assert counts.other_id is not None
            raise DataError(
                f"{table.path}: has no {level} of {_file_name(logs.impressions)}: column "
                f"{column!r} holds, for instance, {counts.other_id.text!r} "
                f"({_type_name(table, column)}) here and {self.example[f'{level}s']!r} "
                f"({_type_name(logs.impressions, column)}) there",
                hint="write the ids in one form",
            )

    def _check_event_users(self, logs: Logs, table: LogTable, counts: JoinCounts) -> None:
        column, impressions = logs.schema.user, logs.impressions
        if self._measure("event_users", counts, _EXAMPLE_BELOW) == 0:
            raise DataError(
                f"{table.path}: has no user of {_file_name(impressions)}: column {column!r} is "
                f"{_type_name(table, column)} here and {_type_name(impressions, column)} there",
                hint="write the ids in one form",
            )

    def _check_event_items(self, logs: Logs, table: LogTable, counts: JoinCounts) -> None:
        column = logs.schema.item
        # without an item table, events may be of items that are never ranked
        rate = self._measure("event_items", counts, 0 if logs.items is None else _EXAMPLE_BELOW)
        if rate == 0 and logs.items is not None:
            assert counts.other_id is not None
            raise DataError(
                f"{table.path}: has no item of {_file_name(logs.items)} or "
                f"{_file_name(logs.impressions)}: column {column!r} holds, for instance, "
                f"{self.example['event_items']!r} ({_type_name(table, column)}) here and "
                f"{counts.other_id.text!r} ({_type_name(logs.items, column)}) there",
                hint="write the ids in one form",
            )

    def _measure(self, name: str, counts: JoinCounts, example_below: float) -> float:
        """The fraction of rows with a match."""
        rate = counts.matched / counts.rows
        self.rate[name] = round(rate, 6)
        if counts.unmatched_id is not None and (rate == 0 or rate < example_below):
            self.example[name] = counts.unmatched_id.text
        return rate


def _has_used_columns(logs: Logs, level: str) -> bool:
    """Whether features or the score read a column of the user or item table besides the id."""
    own = getattr(logs.schema, level)
    columns = {
        column
        for name, feature in logs.schema.features.level(level).items()
        for column in feature.columns(name)
    }
    return bool(columns - {own}) or (level == "item" and bool(logs.schema.score_columns))


def _type_name(table: LogTable, column: str) -> str:
    return str(table.arrow_schema.field(column).type)


def _file_name(table: LogTable) -> str:
    return str(table.path).rstrip("/").rpartition("/")[2]
