"""Stage 2: number the users of a partition, drop duplicates, sort by user and time, group requests.

The rows stay in files by ranges of users (cleaned.py). A partition with more rows than fit
in memory has several ranges, so memory holds its ids, the features of its users, and one range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.preparation.cleaned import (
    HISTORY,
    IMPRESSIONS,
    ITEM_PLACES,
    STATISTICS,
    TEXTS,
    save_range,
    save_users,
)
from hemix.preparation.decoding import DecodedRows, LogName
from hemix.preparation.engine import RowSource
from hemix.preparation.entities import Entities, TableCounts
from hemix.preparation.events import (
    EventCounts,
    deduplicate_events,
    events_of_impressions,
    sort_events,
)
from hemix.preparation.impressions import ImpressionCounts, Span, clean_impressions
from hemix.preparation.job import PrepareJob
from hemix.preparation.joins import JoinCounts
from hemix.preparation.numbering import FirstAppearances
from hemix.preparation.range_files import RangeFiles, range_bounds
from hemix.preparation.raw_ids import are_int64
from hemix.preparation.requests import save_requests
from hemix.preparation.rows import Rows, concatenate_rows
from hemix.preparation.splits import SplitValues
from hemix.preparation.statistics import statistic_columns
from hemix.preparation.texts import KeyTexts, save_texts, text_tables

__all__ = ["CleanAnswer", "clean"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class CleanAnswer:
    """Counts of a partition."""

    impressions: ImpressionCounts = field(default_factory=ImpressionCounts)
    events: EventCounts = field(default_factory=EventCounts)
    span: Span = field(default_factory=Span)
    in_split: Array = field(default_factory=lambda: np.zeros(3, dtype=np.int64))
    """int64 [3]: impressions of every split, with duplicates"""
    split_values: SplitValues
    joins: Mapping[str, JoinCounts]
    """Of users: ``users`` and ``event_users`` of :class:`hemix.preparation.joins.Joins`"""
    user_table: TableCounts
    ids_are_int64: bool
    """Whether all user ids are whole numbers of 64 bits"""


def clean(job: PrepareJob, source: RowSource, folder: Path) -> CleanAnswer:
    """Clean the rows of a partition.

    Args:
        job: Logs, schema and memory limit.
        source: The decoded rows of the partition.
        folder: Receives the files.

    Raises:
        DataError: The rows of a request contradict each other.
        StorageError: The disk is full or read-only.
    """
    return _Cleaner(job, source, folder).run()


class _Cleaner:
    def __init__(self, job: PrepareJob, source: RowSource, folder: Path) -> None:
        self._job, self._schema, self._source, self._folder = job, job.schema, source, folder
        self._users, self._items = FirstAppearances(), FirstAppearances()
        self._texts: dict[str, list[KeyTexts]] = {}
        self._span, self._in_split = Span(), np.zeros(3, dtype=np.int64)
        self._impressions, self._events = ImpressionCounts(), EventCounts()
        self._files: dict[str, int] = {}

    def run(self) -> CleanAnswer:
        """Clean all rows and write the files."""
        self._clean_impressions()
        if self._job.logs.events is not None:
            for rows in self._ranges("events"):
                rows = deduplicate_events(rows, self._events)
                self._save_history(rows)
        self._items.save(self._folder / ITEM_PLACES)
        user_table, joins = self._read_users()
        if self._texts:
            texts = {table: KeyTexts.concatenate(each) for table, each in self._texts.items()}
            save_texts(self._folder / TEXTS, text_tables(self._schema), texts)
        return CleanAnswer(
            impressions=self._impressions,
            events=self._events,
            span=self._span,
            in_split=self._in_split,
            split_values=self._job.splitter.seen,
            joins=joins,
            user_table=user_table,
            ids_are_int64=are_int64(self._job.logs, "user", self._users.index.texts()),
        )

    def _clean_impressions(self) -> None:
        requests: list[Rows] = []
        for rows in self._ranges("impressions"):
            time_ms, split = np.asarray(rows["time_ms"]), np.asarray(rows["split"])
            self._in_split += np.bincount(split[split >= 0], minlength=3)
            self._span.add(time_ms, split == 0)
            inside, unique = clean_impressions(self._job, rows, self._impressions)
            if self._job.logs.events is None:
                self._save_history(events_of_impressions(self._schema, unique))
            if self._schema.statistics:
                self._save(STATISTICS, statistic_columns(self._schema, unique))
            if inside is not None:
                self._save(IMPRESSIONS, inside)
                requests.append(self._requests(inside))
        if self._schema.roles.request_id is not None:
            save_requests(self._folder, self._job, requests)

    def _save_history(self, rows: Rows) -> None:
        self._span.add_events(np.asarray(rows["time_ms"]))
        self._save(HISTORY, sort_events(rows, self._events))

    def _requests(self, rows: Rows) -> Rows:
        """The key of every request, with its user's key and its first row."""
        if self._schema.roles.request_id is None:
            return {}
        first = np.flatnonzero(np.asarray(rows["starts"]))
        columns = {name: np.asarray(rows[name])[first] for name in ("request", "user", "log_row")}
        return {**columns, "user": self._users.index.keys()[columns["user"]]}

    def _read_users(self) -> tuple[TableCounts, dict[str, JoinCounts]]:
        """Read the user table, and write all users."""
        users, table, numbers = self._users, list[Rows](), [np.zeros(0, dtype=np.int32)]
        for decoded in self._source.read("users"):
            table.append(self._with_users(decoded))
            user, log_row = (np.asarray(table[-1][name]) for name in ("user", "log_row"))
            users.count("users", user, log_row)
            numbers.append(user)
        entities, counts, texts = Entities.build(
            self._schema, "user", table, np.concatenate(numbers), users.index
        )
        self._add_texts(texts)
        save_users(self._folder, users.index, entities)
        ids = users.index.texts()

        def text_of(number: int) -> str:
            text: str = ids[number].as_py()
            return text

        rows, first = users.rows, users.first
        return counts, {
            "users": JoinCounts.of(rows["impressions"], rows["users"] > 0, first, text_of),
            "event_users": JoinCounts.of(rows["events"], rows["impressions"] > 0, first, text_of),
        }

    def _add_texts(self, texts: Mapping[str, KeyTexts]) -> None:
        for table, values in texts.items():
            self._texts.setdefault(table, []).append(values)

    # -- ranges of users ---------------------------------------------------------------------------

    def _ranges(self, log: LogName) -> Iterator[Rows]:
        """Yield the rows of a log with numbered users and items, by ranges of users."""
        rows = self._source.rows(log)
        if rows == 0:
            return
        if rows <= self._job.memory_rows:
            pieces = [self._with_users(decoded) for decoded in self._source.read(log)]
            yield self._counted(log, concatenate_rows(pieces))
            return
        for decoded in self._source.read(log):
            self._counted(log, self._with_users(decoded))
        bounds = range_bounds(self._users.rows[log], self._job.memory_rows)
        with RangeFiles(self._folder / log, bounds) as files:
            for decoded in self._source.read(log):
                known = self._known(decoded)
                files.add(known, np.asarray(known["user"]))
        yield from files.read()

    def _with_users(self, decoded: DecodedRows) -> Rows:
        """The rows with the numbers of users."""
        self._add_texts(decoded.texts)
        numbers = self._users.index.add_texts(decoded.users.keys, decoded.users.texts)
        return decoded.rows | {"user": numbers[np.asarray(decoded.rows["user"])]}

    def _counted(self, log: LogName, rows: Rows) -> Rows:
        """The rows with the numbers of items; users and items are counted."""
        user, item, log_row = (np.asarray(rows[name]) for name in ("user", "item", "log_row"))
        item = self._items.number_keys(item)
        self._users.count(log, user, log_row)
        self._items.count(log, item, log_row)
        return rows | {"item": item}

    def _known(self, decoded: DecodedRows) -> Rows:
        """The rows with the numbers of users and items that were counted before."""
        user = self._users.index.look_up(decoded.users.keys)[np.asarray(decoded.rows["user"])]
        item = self._items.number_keys(np.asarray(decoded.rows["item"]))
        return decoded.rows | {"user": user, "item": item}

    def _save(self, kind: str, rows: Rows) -> None:
        number = self._files.setdefault(kind, 0)
        self._files[kind] += 1
        save_range(self._folder, kind, number, rows)
