"""A log in which train has never shown half of the candidates of valid and test.

Items are drawn until they hold half of the impressions of valid and test. They begin with the valid
split: earlier impressions and events of them are dropped.
"""

from __future__ import annotations

import numpy as np

from hemix.lab.derived_logs.derivation import Derivation
from hemix.lab.derived_logs.draws import rank
from hemix.lab.derived_logs.source import BoolArray, Rows, Source

__all__ = ["UnseenItems"]

_FRACTION = 0.5


class UnseenItems(Derivation):
    """A log with as many new candidates as known ones."""

    summary = "half of the candidates of valid and test never seen in train"
    max_rows = 90_000

    def read(self, source: Source) -> None:
        """Draw the items, and find when the valid split begins."""
        self._item = source.schema.item
        keys = np.concatenate(
            [rows.keys(self._item)[rows.split > 0] for rows in source.impressions()]
        )
        items, counts = np.unique(keys, return_counts=True)
        order = rank(items, source.seed)
        below_half = np.cumsum(counts[order]) <= _FRACTION * len(keys)
        self._new = np.sort(items[order[below_half]])
        self._begin_ms = source.first_time_ms(after_train=True)

    def impressions(self, rows: Rows) -> Rows:
        """Drop the earlier impressions of new items."""
        return rows.select((rows.split > 0) | ~self._is_new(rows))

    def events(self, rows: Rows) -> Rows:
        """Drop the earlier events of new items."""
        return rows.select((rows.time_ms >= self._begin_ms) | ~self._is_new(rows))

    def _is_new(self, rows: Rows) -> BoolArray:
        return np.isin(rows.keys(self._item), self._new)
