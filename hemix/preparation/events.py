"""The event log, in three steps: partition by user, sort without duplicates, encode.

Without an events table, impressions are the events. The action of an impression is its deepest
positive label that was known immediately. A positive that became known later is another event, at
that later time, so that no request sees it earlier.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.encode import Encoders
from hemix.data.jagged_array import offsets_of
from hemix.data.keys import keys_of
from hemix.data.layout import Appender
from hemix.data.levels import learning_columns, level_features
from hemix.data.raw_columns import RawColumn, take
from hemix.data.spec import TIMELESS_MS
from hemix.features.base import RowContext
from hemix.preparation.cleaning import count_out_of_order, distinct_rows
from hemix.preparation.duplicates import chunk_hashes
from hemix.preparation.entities import Entities
from hemix.preparation.fit import EncoderFitter, in_sample
from hemix.preparation.impressions import Span
from hemix.preparation.job import Progress
from hemix.preparation.labels import known_immediately
from hemix.preparation.logs import Logs
from hemix.preparation.numbering import LogNumbers
from hemix.preparation.rows import PartitionFiles, Rows, row_count, take_rows
from hemix.preparation.shards import value_counts
from hemix.preparation.times import times_of

__all__ = ["EventPass", "HistoryWriter"]

Array = npt.NDArray[Any]

IMPRESSION = "impression"
"""Action of an impression without a positive label."""


@dataclass
class EventCounts:
    """Counts of the event log for the manifest."""

    events: int = 0
    timeless: int = 0
    duplicates: int = 0
    disorder: int = 0


class EventPass:
    """Reads, cleans and sorts the events, and counts what the encoders learn from."""

    def __init__(self, logs: Logs, fitter: EncoderFitter, items: Entities) -> None:
        self._logs, self._schema, self._fitter, self._items = logs, logs.schema, fitter, items
        self.counts = EventCounts()
        actions = [IMPRESSION, *self._schema.tasks]
        self._action_keys = keys_of(pa.array(actions))
        if self._logs.events is None:  # all actions get a row, so that labels do not decide
            (column,) = self._schema.event_fields["action"].columns("action")
            fitter.observe("event", {"action": self._action_keys}, {column: pa.array(actions)})
            fitter.always_include("action", self._action_keys)

    # -- from an events table ----------------------------------------------------------------------

    def partition(
        self, numbers: LogNumbers, files: PartitionFiles, rows: int, progress: Progress
    ) -> None:
        """Read and check the events table, and write its rows into partitions.

        Args:
            numbers: User and item number of every row.
            files: Temporary files by user.
            rows: Number of rows to read at once.
            progress: Called after every chunk.

        Raises:
            DataError: A value cannot be used.
        """
        table, schema = self._logs.events, self._schema
        assert table is not None
        for chunk in table.chunks(None, rows):
            at = slice(chunk.first_row, chunk.first_row + chunk.rows)
            clock = self._logs.event_clock
            read: Rows = {
                "user": numbers.user[at],
                "item": numbers.item[at],
                "time_ms": times_of(clock, chunk.columns[clock], schema.clock, chunk.where),
                "log_row": np.arange(at.start, at.stop, dtype=np.int64),
                "hash": chunk_hashes(chunk, {clock: schema.clock}),
            }
            raw = {
                n: f.read(n, chunk.columns, chunk.rows, chunk.where)
                for n, f in schema.event_fields.items()
            }
            self._fitter.observe("event", raw, chunk.columns)
            fields = {f"event.{n}": column for n, column in raw.items() if column is not None}
            files.add(read | fields, numbers.user[at])
            progress("reading events", at.stop / table.rows)

    def deduplicate(self, rows: Rows) -> Rows:
        """Drop the duplicates of a partition of the events table, and count them.

        An event without a time is never a duplicate, because it can have happened twice.
        """
        hashes, timed = np.asarray(rows["hash"]).copy(), np.asarray(rows["time_ms"]) != TIMELESS_MS
        hashes[~timed] = np.asarray(rows["log_row"])[~timed].astype(np.uint64)
        rows["hash"] = hashes
        unique = distinct_rows(rows)
        self.counts.duplicates += row_count(rows) - len(unique)
        rows = take_rows(rows, unique)
        self.counts.disorder += count_out_of_order(rows, np.asarray(rows["time_ms"]) != TIMELESS_MS)
        return rows

    # -- from the impressions ----------------------------------------------------------------------

    def from_impressions(self, rows: Rows) -> Rows:
        """Return the events of impressions without duplicates."""
        time_ms = np.asarray(rows["time_ms"])
        deepest = np.zeros(len(time_ms), dtype=np.int64)
        own = ["user", "item", "log_row", *(name for name in rows if name.startswith("event."))]
        later: list[Rows] = []
        for depth, (name, label) in enumerate(self._schema.labels.items(), start=1):
            values = np.asarray(rows[f"label.{name}"])
            available = (
                np.asarray(rows[f"available.{name}"]) if f"available.{name}" in rows else None
            )
            immediately = known_immediately(label, values, time_ms, available)
            deepest[immediately] = depth
            if available is not None:
                after = np.flatnonzero((values == 1) & ~immediately)
                event: Rows = {n: take(rows[n], after) for n in own}
                event |= {
                    "time_ms": available[after],
                    "event.action": np.full(len(after), self._action_keys[depth]),
                }
                later.append(event)
        events: Rows = {n: rows[n] for n in own} | {
            "time_ms": time_ms,
            "event.action": self._action_keys[deepest],
        }
        return _concatenated([events, *later])

    # -- from either source ------------------------------------------------------------------------

    def sort(self, rows: Rows, span: Span) -> Rows:
        """Sort events by user, then time, and count those before the end of the train split.

        Args:
            rows: Events without duplicates. Events of equal time stay in the order of the log.
            span: Times of the impressions.

        Returns:
            The columns of the history store.
        """
        user, time_ms, log_row = (np.asarray(rows[n]) for n in ("user", "time_ms", "log_row"))
        rows = take_rows(rows, np.lexsort((log_row, time_ms, user)))
        time_ms = np.asarray(rows["time_ms"])
        rows["item_row"] = self._items.versions.row_at(np.asarray(rows["item"]), time_ms).astype(
            np.int32
        )
        self.counts.events += len(time_ms)
        self.counts.timeless += int((time_ms == TIMELESS_MS).sum())

        if self._logs.events is not None:
            train = take_rows(rows, np.flatnonzero(time_ms < span.train_end_ms))
            context = RowContext(
                rows=row_count(train),
                time_ms=np.asarray(train["time_ms"]),
                timezone=self._schema.clock.timezone,
            )
            raw = {name: train.get(f"event.{name}") for name in self._schema.event_fields}
            raw |= learning_columns(self._schema, "event", context)
            early = np.asarray(train["time_ms"]) < span.log_begin_ms
            self._fitter.count_events(
                raw, early, in_sample(np.asarray(train["log_row"]), self._logs.events.rows)
            )
        return {
            n: column
            for n, column in rows.items()
            if n in ("user", "time_ms", "item_row") or n.startswith("event.")
        }


def _concatenated(tables: list[Rows]) -> Rows:
    rows: Rows = {}
    for name in tables[0]:
        columns = [np.asarray(table[name]) for table in tables]
        rows[name] = np.concatenate(columns) if len(columns) > 1 else columns[0]
    return rows


class HistoryWriter:
    """Encodes sorted events and appends them to the history store, users in ascending order."""

    def __init__(self, folder: Path, encoders: Encoders, users: int) -> None:
        """Open the files.

        Args:
            folder: A new folder.
            encoders: The learned encoders.
            users: Number of users.
        """
        folder.mkdir()
        self._folder, self._encoders = folder, encoders
        self._counts = np.zeros(users, dtype=np.int64)
        fields = len(encoders.spec().event.tables)
        self._time = Appender(folder / "time_ms.npy", np.int64)
        self._item_row = Appender(folder / "item_row.npy", np.int32)
        self._ids = Appender(folder / "ids.npy", np.int32, fields)
        self.values = np.zeros((fields, 3), dtype=np.int64)
        """int64 [fields, 3]: unknown, missing and all values of every field"""

    def write(self, rows: Rows) -> None:
        """Append the events of a partition."""
        count, time_ms = row_count(rows), np.asarray(rows["time_ms"])
        names = level_features(self._encoders.schema, "event")
        raw: dict[str, RawColumn | None] = {name: rows.get(f"event.{name}") for name in names}
        block = self._encoders.block("event", raw, count, time_ms=time_ms)
        self._counts += np.bincount(np.asarray(rows["user"]), minlength=len(self._counts))
        self._time.append(time_ms)
        self._item_row.append(np.asarray(rows["item_row"]))
        self._ids.append(block.ids)
        self.values += value_counts(block)

    def close(self) -> Array:
        """Complete the store.

        Returns:
            int64 [users]: the number of events of every user.
        """
        for out in (self._time, self._item_row, self._ids):
            out.close()
        with Appender(self._folder / "offsets.npy", np.int64) as offsets:
            offsets.append(offsets_of(self._counts))
        return self._counts
