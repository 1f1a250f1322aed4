"""How much the tables of a logs folder have in common: ids in one form here and in another there
join nothing, without any error.
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

_NOTED_BELOW = 0.95
_PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class JoinSide:
    """Users or items, on both sides of a join."""

    entities: Entities
    index: KeyIndex
    shown: int
    """Numbers below this one occur in the impressions"""

    def first_text(self, numbers: Array) -> str:
        """The raw id of the first of these numbers."""
        text: str = self.index.texts().take(pa.array(numbers[:1])).to_pylist()[0]
        return text


@dataclass
class Joins:
    """Shares of impressions and events whose id is found where it is looked up."""

    rate: dict[str, float] = field(default_factory=dict)
    """``items``, ``users``: of the impressions, in the table; ``event_users``: of the events, in
    the impressions; ``event_items``: of the events, in the item table or the impressions
    """
    example: dict[str, str] = field(default_factory=dict)
    """An id that is not found, where so many are missing that a person should know"""

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
            logs: the open tables.
            impressions: numbers of the impressions' users and items.
            events: those of the events; None where there is no events table.
            users: both sides of the joins by user.
            items: both sides of the joins by item.

        Raises:
            DataError: where nothing is found, naming both files, the column, its types and an id of
            each.
        """
        for level, table, side, numbers in (
            ("user", logs.users, users, impressions.user),
            ("item", logs.items, items, impressions.item),
        ):
            if table is not None and table.rows:
                self._table(logs, level, table, side, numbers)
        if logs.events is not None and events is not None and logs.events.rows:
            self._events(logs, logs.events, events, users, items)

    def _table(
        self, logs: Logs, level: str, table: LogTable, side: JoinSide, numbers: Array
    ) -> None:
        column = getattr(logs.schema, level)
        counts = count_numbers(numbers, len(side.index))
        rate = self._measure(
            f"{level}s",
            counts,
            side.entities.in_table,
            side,
            noted_below=_NOTED_BELOW if _is_read(logs, level) else 0,
        )
        if rate == 0 and _is_read(logs, level):
            there = side.first_text(np.flatnonzero(side.entities.in_table))
            raise DataError(
                f"{table.path}: no {level} of {_named(logs.impressions)} occurs in it: column "
                f"{column!r} holds for instance "
                f"{there!r} ({table.kind.field(column).type}) here and "
                f"{self.example[f'{level}s']!r} "
                f"({logs.impressions.kind.field(column).type}) there; write the ids in one form"
            )

    def _events(
        self, logs: Logs, table: LogTable, events: LogNumbers, users: JoinSide, items: JoinSide
    ) -> None:
        schema, shown = logs.schema, logs.impressions
        were_shown = np.arange(len(users.index)) < users.shown
        rate = self._measure(
            "event_users", count_numbers(events.user, len(users.index)), were_shown, users
        )
        if rate == 0:
            raise DataError(
                f"{table.path}: no user of it ({schema.user}, "
                f"{table.kind.field(schema.user).type}) occurs in "
                f"{_named(shown)} ({shown.kind.field(schema.user).type})"
            )
        known = np.arange(len(items.index)) < items.shown
        in_table = items.entities.in_table if logs.items is not None else np.zeros_like(known)
        # without an item table events may well be of items that are never ranked
        below = _NOTED_BELOW if logs.items is not None else 0
        counts = count_numbers(events.item, len(items.index))
        rate = self._measure("event_items", counts, known | in_table, items, noted_below=below)
        if rate == 0 and logs.items is not None:
            there = items.first_text(np.flatnonzero(known | in_table))
            raise DataError(
                f"{table.path}: no item of it occurs in {_named(logs.items)} or {_named(shown)}: "
                f"{schema.item!r} is "
                f"for instance {self.example['event_items']!r} "
                f"({table.kind.field(schema.item).type}) here and {there!r} "
                f"({logs.items.kind.field(schema.item).type}) there; write the ids in one form"
            )

    def _measure(
        self,
        name: str,
        counts: Array,
        found: Array,
        side: JoinSide,
        noted_below: float = _NOTED_BELOW,
    ) -> float:
        """The share of ``counts`` int [ids] whose id is ``found`` bool [ids]; an example where it
        is 0 or below a limit.
        """
        rate = float(counts[found].sum() / counts.sum())
        self.rate[name] = round(rate, 6)
        if rate == 0 or rate < noted_below:
            self.example[name] = side.first_text(np.flatnonzero((counts > 0) & ~found))
        return rate


def count_numbers(numbers: Array, ids: int) -> Array:
    """int64 [ids]: how often each number occurs, read a piece at a time."""
    counts = np.zeros(ids, dtype=np.int64)
    piece = max(_PIECE, ids)
    for begin in range(0, len(numbers), piece):
        counts += np.bincount(numbers[begin : begin + piece], minlength=ids)
    return counts


def _is_read(logs: Logs, level: str) -> bool:
    """Whether anything but the id is read from the users' or items' table."""
    own = getattr(logs.schema, level)
    columns = {
        column
        for name, feature in logs.schema.features.level(level).items()
        for column in feature.columns(name)
    }
    return bool(columns - {own}) or (level == "item" and bool(logs.score_columns))


def _named(table: LogTable) -> str:
    return str(table.path).rstrip("/").rpartition("/")[2]
