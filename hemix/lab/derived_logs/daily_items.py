"""A log whose items are new every day, such as news: the ids of valid and test are unseen in train.

An item of day d has the id ``ID@d``. It has the features of the source's item, so only the id is
new. Events have the id of their own day, and those without a time ``ID@past``. Where the split and
the clock disagree on a day, impressions of valid and test with an id of train are dropped.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.clock import local_day
from hemix.data.spec import TIMELESS_MS
from hemix.data.texts import texts_of
from hemix.lab.derived_logs.derivation import Derivation
from hemix.lab.derived_logs.source import Int64Array, Rows, Source

__all__ = ["DailyItems"]

_PAST = -1
"""Stands for the day of an event without a time"""


class DailyItems(Derivation):
    """A log in which no item is shown on two days."""

    summary = "items that are new every day; their features remain"

    def __init__(self) -> None:
        self._days: dict[int, Int64Array] = {}
        """By the key of an item, the days on which it appears, ascending"""
        self._train = set[tuple[int, int]]()
        """(key of an item, day) of the train impressions"""

    def read(self, source: Source) -> None:
        """Collect the days of every item."""
        self._item, self._timezone = source.schema.item, source.schema.clock.timezone
        pairs = []
        for table in (source.impressions(), source.events()):
            for rows in table:
                keys = np.stack([rows.keys(self._item).view(np.int64), self._day(rows)])
                pairs.append(np.unique(keys, axis=1))
        for rows in source.impressions():
            self._train.update(self._pairs(rows.select(rows.split == 0)))
        keys, days = np.unique(np.concatenate(pairs, axis=1), axis=1)
        distinct, first = np.unique(keys, return_index=True)
        self._days = dict(zip(distinct.tolist(), np.split(days, first[1:]), strict=True))

    def impressions(self, rows: Rows) -> Rows:
        """Rename the items by the day."""
        in_train = np.array([pair in self._train for pair in self._pairs(rows)], dtype=np.bool_)
        kept = rows.select((rows.split == 0) | ~in_train)
        return self._renamed(kept, self._day(kept))

    def events(self, rows: Rows) -> Rows:
        """Rename the items by the day."""
        return self._renamed(rows, self._day(rows))

    def items(self, rows: Rows) -> Rows:
        """Repeat an item's row for every day on which it appears."""
        none = np.empty(0, dtype=np.int64)
        keys = rows.keys(self._item).view(np.int64).tolist()
        days = [self._days.get(key, none) for key in keys]
        repeated = rows.select(np.repeat(np.arange(len(days)), [len(d) for d in days]))
        return self._renamed(repeated, np.concatenate([none, *days]))

    def _pairs(self, rows: Rows) -> list[tuple[int, int]]:
        keys = rows.keys(self._item).view(np.int64)
        return list(zip(keys.tolist(), self._day(rows).tolist(), strict=True))

    def _day(self, rows: Rows) -> Int64Array:
        days: Int64Array = local_day(rows.time_ms, self._timezone)
        return np.where(rows.time_ms == TIMELESS_MS, _PAST, days)

    def _renamed(self, rows: Rows, days: Int64Array) -> Rows:
        dates = pa.array(np.maximum(days, 0).astype(np.int32)).cast(pa.date32()).cast(pa.string())
        dates = pc.if_else(pa.array(days == _PAST), "past", dates)
        texts = texts_of(rows.table[self._item].combine_chunks())
        return rows.with_column(self._item, pc.binary_join_element_wise(texts, dates, "@"))
