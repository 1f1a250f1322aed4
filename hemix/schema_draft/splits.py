"""Boundaries of the splits: whole days where there are enough, else times."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from hemix.preparation.log_table import LogTable
from hemix.preparation.times import times_of
from hemix.schema.columns import Clock
from hemix.schema_draft.profiles import TableProfile

__all__ = ["DraftSplit", "draft_split"]

_DAY_MS = 86_400_000
_CHUNK_ROWS = 500_000
_VALID_SHARE, _TEST_SHARE = 0.8, 0.9


@dataclass(frozen=True)
class DraftSplit:
    """The first values of the validation and the test split."""

    valid: str
    test: str
    reason: str


def draft_split(impressions: TableProfile, clock: Clock) -> DraftSplit:
    """Choose boundaries: the last day for the test, the day before for validation.

    Args:
        impressions: The table.
        clock: Its time, in UTC.

    Raises:
        DataError: A time cannot be read; names file, row and column.
    """
    table = LogTable(impressions.path, "impressions")
    hours: Counter[int] = Counter()
    for chunk in table.chunks([clock.column], _CHUNK_ROWS):
        values = chunk.columns[clock.column]
        time_ms = times_of(clock.column, values, clock, chunk.where)
        known = time_ms[time_ms > 0] // 3_600_000
        hour, count = np.unique(known, return_counts=True)
        hours.update(dict(zip(hour.tolist(), count.tolist(), strict=True)))
    ordered = sorted(hours)
    first, last = ordered[0], ordered[-1]
    days = last // 24 - first // 24 + 1
    if days >= 4:
        test = datetime.fromtimestamp(last // 24 * 86_400, UTC)
        valid = test - timedelta(days=1)
        reason = f"the log has {days} days: the last one tests, the one before validates"
        return DraftSplit(f"{valid:%Y-%m-%d}", f"{test:%Y-%m-%d}", reason)
    shares = np.cumsum([hours[hour] for hour in ordered]) / sum(hours.values())
    at = [ordered[int(np.searchsorted(shares, share))] for share in (_VALID_SHARE, _TEST_SHARE)]
    if at[0] == at[1] or at[0] == first:
        at = [last - 1, last]
    valid_at, test_at = (datetime.fromtimestamp(hour * 3_600, UTC) for hour in at)
    reason = f"the log has {days} days only: about 80 % of its rows train, 10 % validate"
    return DraftSplit(f"{valid_at:%Y-%m-%d %H:%M}", f"{test_at:%Y-%m-%d %H:%M}", reason)
