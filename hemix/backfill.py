"""Backfill: load logs into a store of live events.

The events and their order are those of the histories of ``hemix prepare``. The id of an event is a
hash of its values, so loading the same or longer logs again adds new events only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.spec import TIMELESS_MS
from hemix.data.texts import texts_of
from hemix.errors import UsageError
from hemix.preparation.chunks import Chunk
from hemix.preparation.duplicates import (
    chunk_hashes,
    column_hashes,
    occurrence_numbers,
    warn_about_duplicates,
)
from hemix.preparation.events import deepest_labels, impression_actions
from hemix.preparation.labels import apply_given_labels
from hemix.preparation.log_table import LogTable
from hemix.preparation.logs import Logs, open_logs
from hemix.preparation.role_columns import check_ids, check_not_null, labels_of
from hemix.preparation.times import times_of
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.types import Event, EventKind

__all__ = ["APPEND_EVENTS", "load", "logged_events"]

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]

APPEND_EVENTS = 500
"""Events of one append; a server with the same store waits for one append at most"""
_CHUNK_ROWS = 20_000
_TIMEOUT_S = 10.0
"""Seconds to wait for a server that writes to the store"""


def load(
    logs: Path,
    store: str,
    *,
    cap: int = StoreLimits.cap,
    ttl_ms: int | None = StoreLimits.ttl_ms,
    item_ttl_ms: int | None = StoreLimits.item_ttl_ms,
    progress: Progress,
) -> dict[str, Any]:
    """Append every event of a logs folder to a store.

    Args:
        logs: The logs folder.
        store: URL of the store.
        cap: See :class:`hemix.serving.stores.StoreLimits`; use the server's limits.
        ttl_ms: As ``cap``.
        item_ttl_ms: As ``cap``.
        progress: Called with the name of the stage and its completed fraction, 0 to 1.

    Returns:
        Counts and the duration in seconds.

    Raises:
        DataError: A value of the logs cannot be used; no event is loaded then.
        SchemaError: The schema does not fit the tables.
        UsageError: The URL is not a store that can be loaded.
        StoreError: The store fails.
    """
    began = time.monotonic()
    if store == "memory://":
        raise UsageError(
            "--store memory://: the store would end with this command",
            field="--store",
            hint="name a SQLite file or a Redis server",
        )
    opened = open_logs(logs, None)
    history = opened.schema.history
    longest = history.global_length + history.realtime_length
    limits = StoreLimits(
        cap=max(cap, longest),
        ttl_ms=ttl_ms,
        item_ttl_ms=item_ttl_ms,
        impressions=opened.events is None,
        append_timeout_s=_TIMEOUT_S,
    )
    target = open_store(store, limits)
    try:
        target.ping()
        count, accepted, users = _append_all(opened, target, progress)
    finally:
        target.close()
    seconds = time.monotonic() - began
    return {
        "events": count,
        "accepted": accepted,
        "duplicates": count - accepted,
        "users": users,
        "seconds": round(seconds, 3),
        "events_per_second": round(count / seconds, 1),
    }


def _append_all(logs: Logs, target: Store, progress: Progress) -> tuple[int, int, int]:
    """Append all events; returns the number of events, of accepted events, and of users."""
    count = accepted = 0
    users: set[str | None] = set()
    table = logs.events or logs.impressions
    for rows, events in logged_events(logs, progress=progress):
        for first in range(0, len(events), APPEND_EVENTS):
            batch = events[first : first + APPEND_EVENTS]
            accepted += sum(target.append(batch))
            count += len(batch)
        users.update(event.user for event in events)
        progress("loading events", rows / table.rows)
    return count, accepted, len(users)


def logged_events(
    logs: Logs, rows: int = _CHUNK_ROWS, progress: Progress = lambda _stage, _fraction: None
) -> Iterator[tuple[int, list[Event]]]:
    """Read the events of the logs in the order of the log.

    The whole log is checked before the first events are returned. Memory is about 80 bytes per row
    while duplicates are searched, and 16 bytes afterwards.

    Args:
        logs: The open tables.
        rows: Number of rows to read at once.
        progress: Called with the name of the stage and its completed fraction, 0 to 1.

    Yields:
        The number of rows read so far, and the events of a chunk.

    Raises:
        DataError: A value cannot be used.
    """
    table = logs.events or logs.impressions
    read = _read_impressions if logs.events is None else _read_events
    keys, row_hashes = np.empty(table.rows, np.uint64), np.empty(table.rows, np.uint64)
    clocks = logs.clocks if logs.events is None else {logs.event_clock: logs.schema.clock}
    for chunk in table.chunks(None, rows):
        at, events = chunk.log_row, read(logs, chunk)
        keys[at] = events.keys()
        # an event without a time is never a duplicate, because it can have happened twice
        row_hashes[at] = np.where(events.time_ms == TIMELESS_MS, at, chunk_hashes(chunk, clocks))
        progress("checking events", (int(at[-1]) + 1) / table.rows)
    numbers = occurrence_numbers(keys, row_hashes)
    _warn(table, keys, row_hashes)
    del row_hashes
    for chunk in table.chunks(None, rows):
        at = chunk.log_row
        yield int(at[-1]) + 1, read(logs, chunk).events(keys[at], numbers[at])


def _warn(table: LogTable, keys: Array, row_hashes: Array) -> None:
    order = np.lexsort((row_hashes, keys))
    keys, row_hashes = keys[order], row_hashes[order]
    equal = (keys[1:] == keys[:-1]) & (row_hashes[1:] == row_hashes[:-1])
    warn_about_duplicates(table.path, int(equal.sum()), table.rows)


def _read_events(logs: Logs, chunk: Chunk) -> _EventRows:
    schema = logs.schema
    time_ms = times_of(logs.event_clock, chunk.columns[logs.event_clock], schema.clock, chunk.where)
    (column,) = schema.event_fields["action"].columns("action")
    actions = (
        texts_of(chunk.columns[column])
        if column in chunk.columns
        else pa.nulls(chunk.rows, pa.string())
    )
    return _EventRows(logs, chunk, "interaction", time_ms, actions)


def _read_impressions(logs: Logs, chunk: Chunk) -> _EventRows:
    """Each impression with its deepest label that was known immediately; later positives are events
    of their own.
    """
    schema, clock = logs.schema, logs.schema.clock
    check_not_null(clock.column, chunk.columns[clock.column], chunk.where)
    time_ms = times_of(clock.column, chunk.columns[clock.column], clock, chunk.where, is_clock=True)
    logged = {
        n: labels_of(v.column or n, chunk.columns[v.column or n], chunk.where)
        for n, v in schema.labels.items()
    }
    labels, _ = apply_given_labels(schema.labels, logged)
    available = {
        name: times_of(label.available_at, chunk.columns[label.available_at], clock, chunk.where)
        for name, label in schema.labels.items()
        if label.available_at is not None
    }
    deepest, known_later = deepest_labels(schema, labels, available, time_ms)
    later = {name: (rows, available[name]) for name, rows in known_later.items()}
    actions = impression_actions(schema).take(pa.array(deepest))
    return _EventRows(logs, chunk, "impression", time_ms, actions, later)


class _EventRows:
    """The events of a chunk of a log."""

    def __init__(
        self,
        logs: Logs,
        chunk: Chunk,
        kind: EventKind,
        time_ms: Array,
        actions: pa.Array,
        later: Mapping[str, tuple[Array, Array]] | None = None,
    ) -> None:
        """Check and read the rows.

        Args:
            logs: The open tables.
            chunk: Rows of the log.
            kind: The kind of all events.
            time_ms: int64 [rows], UTC.
            actions: string [rows].
            later: By label bool [rows], the rows whose positive became known later, and int64
                [rows], the times at which it became known.
        """
        schema = logs.schema
        self._kind: EventKind = kind
        self.time_ms = time_ms
        self._actions, self._later = actions, later or {}
        check_ids(schema.user, chunk.columns[schema.user], chunk.where)
        nullable = logs.events is not None
        check_ids(schema.item, chunk.columns[schema.item], chunk.where, nullable=nullable)
        self._users, self._items = (
            texts_of(chunk.columns[column]) for column in (schema.user, schema.item)
        )
        self._received_ms = time.time_ns() // 1_000_000
        self._fields: dict[str, pa.Array] = {}
        for name, field in schema.event_fields.items():
            if name == "action" and logs.events is None:
                continue
            # as the preparation checks and reads them
            raw = field.read(name, chunk.columns, chunk.rows, chunk.where)
            if name != "action" and raw is not None:
                for column in field.columns(name):
                    self._fields[column] = field.live_column(chunk.columns[column], raw)

    def keys(self) -> Array:
        """Hash the values of each event: user, item, time, action and fields.

        Numbers count as float32, because a column may be written in either precision.

        Returns:
            uint64 [rows].
        """
        values_by_name = {
            "user": self._users,
            "item": self._items,
            "time": pa.array(self.time_ms),
            "action": self._actions,
        }
        for column, values in self._fields.items():
            values_by_name[f"fields.{column}"] = (
                values if pa.types.is_string(values.type) else values.cast(pa.float32())
            )
        return column_hashes(values_by_name, len(self.time_ms))

    def events(self, keys: Array, numbers: Array) -> list[Event]:
        """Make the events.

        Args:
            keys: uint64 [rows], see :meth:`keys`.
            numbers: int [rows], numbers of the different rows of a key.
        """
        fields = {column: values.to_pylist() for column, values in self._fields.items()}
        ids = [
            f"log:{key:016x}" + (f"-{n}" if n else "")
            for key, n in zip(keys.tolist(), numbers.tolist(), strict=True)
        ]
        columns = zip(ids, self._users.to_pylist(), self._items.to_pylist(), strict=True)
        times, actions, events = self.time_ms.tolist(), self._actions.to_pylist(), list[Event]()
        for row, (id_, user, item) in enumerate(columns):
            values_of_row = {
                column: values[row] for column, values in fields.items() if values[row] is not None
            }
            each = [(id_, self._kind, times[row], actions[row])]
            each += [
                (f"{id_}:{n}", "interaction", int(at[row]), n)
                for n, (after, at) in self._later.items()
                if after[row]
            ]
            events += [
                Event(
                    id=i,
                    kind=kind,
                    time_ms=ms,
                    user=user,
                    item=item,
                    action=action,
                    fields=values_of_row,
                    received_ms=self._received_ms,
                )
                for i, kind, ms, action in each
            ]
        return events
