"""Stage 3: count what the encoders learn from, and how often train rows refer to users and items.

It comes after all partitions are clean, because versions of items and the end of the train split
are known then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.layout import SPLITS, save_array
from hemix.data.levels import learning_columns
from hemix.features.base import RowContext
from hemix.preparation.cleaned import HISTORY, IMPRESSIONS, read_ranges
from hemix.preparation.impressions import Span, known_labels
from hemix.preparation.job import PrepareJob
from hemix.preparation.lookup import PartitionLookup
from hemix.preparation.partial_counts import PartialCounts, in_sample
from hemix.preparation.rows import Rows, row_count, save_rows, take_rows

__all__ = ["ITEM_LABELS", "ITEM_ROWS", "USER_ROWS", "CountTask", "count"]

Array = npt.NDArray[Any]

USER_ROWS, ITEM_ROWS, ITEM_LABELS = "user_rows.npy", "item_rows.arrow", "item_labels.arrow"
"""Files of a partition: int64 [3, versions], impressions of every split that refer to each user
version; the same of items, with the column ``row``; and train labels by ``number`` of the item
"""


@dataclass(frozen=True, kw_only=True)
class CountTask:
    """What to count."""

    cleaned: Path
    """The partition's folder of the stage ``clean``"""
    items: Path
    """The folder of :class:`hemix.preparation.items.ItemIndex`"""
    span: Span
    """Times of all impressions"""


def count(job: PrepareJob, task: CountTask, folder: Path) -> None:
    """Count the rows of a partition.

    Args:
        job: Logs and schema.
        task: What to count.
        folder: Receives the files.

    Raises:
        StorageError: The disk is full or read-only.
    """
    _Counter(job, task).run(folder)


class _Counter:
    def __init__(self, job: PrepareJob, task: CountTask) -> None:
        self._job, self._schema, self._task = job, job.schema, task
        self._lookup = PartitionLookup.load(job, task.cleaned, task.items)
        self._learned = PartialCounts(job.schema)
        items, tasks = len(self._lookup.items.keys), len(job.schema.tasks)
        self._user_rows = np.zeros((3, self._lookup.entities.rows), dtype=np.int64)
        self._item_rows = np.zeros((3, len(self._lookup.items.rows)), dtype=np.int64)
        self._positives = np.zeros((items, tasks), dtype=np.int64)
        self._known = np.zeros((items, tasks), dtype=np.int64)

    def run(self, folder: Path) -> None:
        """Count all rows and write the files."""
        for rows in read_ranges(self._task.cleaned, IMPRESSIONS):
            self._count_impressions(self._lookup.with_versions(rows, "request_time_ms"))
        if self._job.logs.events is not None:
            for rows in read_ranges(self._task.cleaned, HISTORY):
                self._count_events(rows, self._job.logs.events.rows)
        users, items = self._lookup.entities, self._lookup.items
        self._learned.count("user", users.columns, self._user_rows[0])
        self._learned.save(folder)
        save_array(folder / USER_ROWS, self._user_rows)
        of_items: Rows = {"row": items.rows}
        of_items |= dict(zip(SPLITS, self._item_rows, strict=True))
        save_rows(folder / ITEM_ROWS, of_items)
        labels: Rows = {"number": items.number, "positives": self._positives, "known": self._known}
        save_rows(folder / ITEM_LABELS, labels)

    def _count_impressions(self, rows: Rows) -> None:
        split, item = np.asarray(rows["split"]), np.asarray(rows["item"])
        user_row, item_row = np.asarray(rows["user_row"]), np.asarray(rows["item_row"])
        for number in range(len(SPLITS)):
            own = split == number
            self._user_rows[number] += np.bincount(
                user_row[own], minlength=self._user_rows.shape[1]
            )
            self._item_rows[number] += self._lookup.items.count_rows(item[own], item_row[own])
        train = take_rows(rows, np.flatnonzero(split == 0))
        sample = in_sample(np.asarray(train["log_row"]), self._job.logs.impressions.rows)
        levels = {level: self._schema.features.level(level) for level in ("context", "cross")}
        if self._schema.history_source == "impressions":
            levels["event"] = self._schema.history.fields
        for level, features in levels.items():
            raw = {name: train.get(f"{level}.{name}") for name in features}
            self._learned.count(level, raw, sample=sample)
        self._sample_computed(take_rows(train, np.flatnonzero(sample)))
        self._count_labels(train)

    def _count_labels(self, train: Rows) -> None:
        labels, item = known_labels(self._job, train, self._task.span), np.asarray(train["item"])
        for task in range(labels.shape[1]):
            for selected, total in (
                (labels[:, task] == 1, self._positives),
                (labels[:, task] >= 0, self._known),
            ):
                total[:, task] += np.bincount(item[selected], minlength=len(total))

    def _sample_computed(self, rows: Rows) -> None:
        """Sample the computed features that learn from numbers."""
        schema = self._schema
        has_distances = any(feature.inputs() for _, _, feature in schema.features)
        request = RowContext(
            rows=row_count(rows),
            time_ms=np.asarray(rows["request_time_ms"]),
            timezone=schema.clock.timezone,
            coordinates=self._lookup.coordinates(rows) if has_distances else {},
        )
        raw = {level: learning_columns(schema, level, request) for level in ("context", "cross")}
        if schema.history_source == "impressions":
            event = replace(request, time_ms=np.asarray(rows["time_ms"]), coordinates={})
            raw["event"] = learning_columns(schema, "event", event)
        for level, columns in raw.items():
            for name, column in columns.items():
                self._learned.sample(f"{level}.{name}", column)

    def _count_events(self, rows: Rows, log_rows: int) -> None:
        """Count the events before the end of the train split."""
        span = self._task.span
        train = take_rows(rows, np.flatnonzero(np.asarray(rows["time_ms"]) < span.train_end_ms))
        time_ms = np.asarray(train["time_ms"])
        context = RowContext(
            rows=len(time_ms), time_ms=time_ms, timezone=self._schema.clock.timezone
        )
        raw = {name: train.get(f"event.{name}") for name in self._schema.event_fields}
        raw |= learning_columns(self._schema, "event", context)
        sample = in_sample(np.asarray(train["log_row"]), log_rows)
        self._learned.count_events(raw, time_ms < span.log_begin_ms, sample)
