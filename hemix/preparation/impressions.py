"""Clean the impressions of some users: duplicates, labels, requests, and counts of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.spec import TIMELESS_MS
from hemix.preparation.cleaning import count_out_of_order, distinct_rows
from hemix.preparation.job import PrepareJob
from hemix.preparation.labels import apply_given_labels, labels_as_of
from hemix.preparation.requests import RequestGroups
from hemix.preparation.rows import Rows, row_count, take_rows
from hemix.preparation.splits import OUTSIDE

__all__ = ["ImpressionCounts", "Span", "clean_impressions", "known_labels"]

Array = npt.NDArray[Any]


@dataclass
class Span:
    """Times of the logs, in ms UTC."""

    train_end_ms: int = 0
    """One millisecond after the newest train impression"""
    log_begin_ms: int = 2**62
    """Time of the oldest impression"""
    log_end_ms: int = 0
    """Time of the newest impression"""
    history_begin_ms: int = 2**62
    """Time of the oldest event that has one"""

    @property
    def history_ms(self) -> int:
        """From the oldest event to the end of training; 0 without an event before it."""
        return max(0, self.train_end_ms - self.history_begin_ms)

    def add_events(self, time_ms: Array) -> None:
        """Extend the span by some events, int64 [n], TIMELESS_MS for one without a time."""
        timed_ms = time_ms[time_ms != TIMELESS_MS]
        self.history_begin_ms = min(self.history_begin_ms, int(timed_ms.min(initial=2**62)))

    def add(self, time_ms: Array, is_train: Array) -> None:
        """Extend the span by some impressions.

        Args:
            time_ms: int64 [n], their times in UTC.
            is_train: bool [n], which of them are in the train split.
        """
        self.log_begin_ms = min(self.log_begin_ms, int(time_ms.min()))
        self.log_end_ms = max(self.log_end_ms, int(time_ms.max()))
        if is_train.any():
            self.train_end_ms = max(self.train_end_ms, int(time_ms[is_train].max()) + 1)

    def update(self, other: Span) -> None:
        """Extend the span by another one."""
        self.train_end_ms = max(self.train_end_ms, other.train_end_ms)
        self.log_begin_ms = min(self.log_begin_ms, other.log_begin_ms)
        self.log_end_ms = max(self.log_end_ms, other.log_end_ms)
        self.history_begin_ms = min(self.history_begin_ms, other.history_begin_ms)


@dataclass
class ImpressionCounts:
    """Counts of the impression log for the manifest."""

    duplicates: int = 0
    disorder: int = 0
    outside_split: int = 0
    given_violated: dict[str, int] = field(default_factory=dict)
    requests_of_several_times: int = 0

    def update(self, other: ImpressionCounts) -> None:
        """Add the counts of other users."""
        self.duplicates += other.duplicates
        self.disorder += other.disorder
        self.outside_split += other.outside_split
        self.requests_of_several_times += other.requests_of_several_times
        self._add_violated(other.given_violated)

    def _add_violated(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            self.given_violated[name] = self.given_violated.get(name, 0) + count


def clean_impressions(
    job: PrepareJob, rows: Rows, counts: ImpressionCounts
) -> tuple[Rows | None, Rows]:
    """Drop duplicates, make labels agree, sort by user and time, and group requests.

    Args:
        job: Logs and schema.
        rows: All impressions of some users, in the order of the log.
        counts: Receives the counts.

    Returns:
        The sorted rows inside the splits, or None if there are none; and all rows without
        duplicates, in the order of the log, for histories and statistics.

    Raises:
        DataError: The rows of a request contradict each other.
    """
    schema = job.schema
    unique = distinct_rows(rows)
    counts.duplicates += row_count(rows) - len(unique)
    rows = take_rows(rows, unique)
    counts.disorder += count_out_of_order(rows)
    logged = {name: np.asarray(rows[f"label.{name}"]) for name in schema.tasks}
    labels, changed = apply_given_labels(schema.labels, logged)
    counts.update(ImpressionCounts(given_violated=changed))
    rows |= {f"label.{name}": values for name, values in labels.items()}
    inside = np.asarray(rows["split"]) != OUTSIDE
    counts.outside_split += int((~inside).sum())
    if not inside.any():
        return None, rows
    groups = RequestGroups(job.logs)
    grouped = groups.group(take_rows(rows, np.flatnonzero(inside)))
    counts.requests_of_several_times += groups.with_several_times
    return grouped, rows


def known_labels(job: PrepareJob, rows: Rows, span: Span) -> Array:
    """Return the labels as they were known when the rows' split was trained or evaluated.

    Args:
        job: Schema and split.
        rows: Sorted impressions.
        span: Times of all impressions.

    Returns:
        int8 [n, T]; -1 is unknown.
    """
    schema, before_valid = job.schema, job.splitter.valid_from_ms
    train_as_of = span.train_end_ms if before_valid is None else before_valid
    as_of_ms = np.where(np.asarray(rows["split"]) == 0, train_as_of, span.log_end_ms)
    return labels_as_of(
        schema.labels,
        {name: np.asarray(rows[f"label.{name}"]) for name in schema.tasks},
        np.asarray(rows["time_ms"]),
        {
            name: np.asarray(rows[f"available.{name}"])
            for name in schema.tasks
            if f"available.{name}" in rows
        },
        as_of_ms,
    )
