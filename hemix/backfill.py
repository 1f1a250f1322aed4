"""Logs into a store of live events: exactly the events that ``hemix prepare`` makes histories of,
in the same order.

An event's id is made of what the event is made of, the schema's columns: user, item, time, what was
done and the event's fields; events that are alike but for other columns of their rows are numbered.
So loading again, or loading logs that have grown, adds only what is new, whatever other columns and
types the files have, and an interrupted load goes on by being repeated. Users and items are not
loaded: a run folder holds them. Knows no model and needs no torch.
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
from hemix.preparation.duplicates import (
    chunk_hashes,
    column_hashes,
    occurrence_numbers,
    warn_about_duplicates,
)
from hemix.preparation.events import IMPRESSION
from hemix.preparation.labels import apply_given_labels, known_immediately
from hemix.preparation.log_table import Chunk, LogTable
from hemix.preparation.logs import Logs, open_logs
from hemix.preparation.role_columns import check_ids, check_not_null, labels_of
from hemix.preparation.times import times_of
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Event, EventKind

__all__ = ["BODY", "load", "logged_events"]

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]

BODY = 500
"""Events of one append: a server that shares the store waits no longer than for these."""
_CHUNK_ROWS = 20_000
_TIMEOUT_S = 10.0
"""A load may wait for a server that writes"""


def load(
    logs: Path,
    store: str,
    *,
    cap: int = StoreLimits.cap,
    ttl_ms: int | None = StoreLimits.ttl_ms,
    item_ttl_ms: int | None = StoreLimits.item_ttl_ms,
    progress: Progress,
) -> dict[str, Any]:
    """Append every event of the folder ``logs`` to the store at the URL ``store``; returns counts.

    ``cap``, ``ttl_ms`` and ``item_ttl_ms`` are those of the server
    (:class:`hemix.serving.stores.Limits`). Raises DataError and SchemaError naming file, row and
    column (what lay before the wrong row is loaded by then), UsageError for the URL, StoreError
    where the store fails.
    """
    began = time.monotonic()
    if store == "memory://":
        raise UsageError(
            "--store memory://: would be gone when this command ends; name a SQLite file or a Redis"
        )
    opened = open_logs(logs, None)
    table, history = opened.events or opened.impressions, opened.schema.history
    longest = history.global_length + history.realtime_length
    limits = StoreLimits(
        cap=max(cap, longest),
        ttl_ms=ttl_ms,
        item_ttl_ms=item_ttl_ms,
        impressions=opened.events is None,
        append_timeout_s=_TIMEOUT_S,
    )
    into = open_store(store, limits)
    events = accepted = 0
    users: set[str | None] = set()
    try:
        into.ping()
        for rows, found in logged_events(opened, progress=progress):
            for first in range(0, len(found), BODY):
                body = found[first : first + BODY]
                accepted += sum(into.append(body))
                events += len(body)
            users.update(event.user for event in found)
            progress("loading events", rows / table.rows)
    finally:
        into.close()
    seconds = time.monotonic() - began
    return {
        "events": events,
        "accepted": accepted,
        "duplicates": events - accepted,
        "users": len(users),
        "seconds": round(seconds, 3),
        "events_per_second": round(events / seconds, 1),
    }


def logged_events(
    logs: Logs, rows: int = _CHUNK_ROWS, progress: Progress = lambda _what, _share: None
) -> Iterator[tuple[int, list[Event]]]:
    """The events of the logs in the order of the log, a piece at a time: (rows of the log read so
    far, events).

    The whole log is read and checked before the first piece; some 80 bytes a row are in memory
    while equal rows are looked for, then 16.
    """
    table = logs.events or logs.impressions
    read = _of_impressions if logs.events is None else _of_events
    keys, whole = np.empty(table.rows, np.uint64), np.empty(table.rows, np.uint64)
    clocks = logs.clocks if logs.events is None else {logs.event_clock: logs.schema.clock}
    for chunk in table.chunks(None, rows):
        at = slice(chunk.first_row, chunk.first_row + chunk.rows)
        events = read(logs, chunk)
        keys[at] = events.keys()
        # without a time a repetition may well have happened twice: it is no duplicate
        whole[at] = np.where(
            events.time_ms == TIMELESS_MS, np.arange(at.start, at.stop), chunk_hashes(chunk, clocks)
        )
        progress("checking events", at.stop / table.rows)
    numbers = occurrence_numbers(keys, whole)
    _warn(table, keys, whole)
    del whole
    for chunk in table.chunks(None, rows):
        at = slice(chunk.first_row, chunk.first_row + chunk.rows)
        yield at.stop, read(logs, chunk).events(keys[at], numbers[at])


def _warn(table: LogTable, keys: Array, whole: Array) -> None:
    order = np.lexsort((whole, keys))
    equal = (keys[order][1:] == keys[order][:-1]) & (whole[order][1:] == whole[order][:-1])
    warn_about_duplicates(table.path, int(equal.sum()), table.rows)


def _of_events(logs: Logs, chunk: Chunk) -> _Rows:
    schema = logs.schema
    time_ms = times_of(logs.event_clock, chunk.columns[logs.event_clock], schema.clock, chunk.where)
    (column,) = schema.event_fields["action"].columns("action")
    actions = (
        texts_of(chunk.columns[column])
        if column in chunk.columns
        else pa.nulls(chunk.rows, pa.string())
    )
    return _Rows(logs, chunk, "interaction", time_ms, actions)


def _of_impressions(logs: Logs, chunk: Chunk) -> _Rows:
    """Each impression with its deepest label that was known at once; then a positive that became
    known later, at that time.
    """
    schema, clock = logs.schema, logs.schema.clock
    check_not_null(clock.column, chunk.columns[clock.column], chunk.where)
    time_ms = times_of(clock.column, chunk.columns[clock.column], clock, chunk.where, own=True)
    logged = {
        n: labels_of(v.column or n, chunk.columns[v.column or n], chunk.where)
        for n, v in schema.labels.items()
    }
    labels, _ = apply_given_labels(schema.labels, logged)
    deepest = np.zeros(chunk.rows, dtype=np.int64)
    later: dict[str, tuple[Array, Array]] = {}
    for depth, (name, label) in enumerate(schema.labels.items(), start=1):
        column = label.available_at
        available = (
            None if column is None else times_of(column, chunk.columns[column], clock, chunk.where)
        )
        at_once = known_immediately(label, labels[name], time_ms, available)
        deepest[at_once] = depth
        if available is not None:
            later[name] = (labels[name] == 1) & ~at_once, available
    actions = pa.array([IMPRESSION, *schema.tasks]).take(pa.array(deepest))
    return _Rows(logs, chunk, "impression", time_ms, actions, later)


class _Rows:
    """The events of some rows of a log."""

    def __init__(
        self,
        logs: Logs,
        chunk: Chunk,
        kind: EventKind,
        time_ms: Array,
        actions: pa.Array,
        later: Mapping[str, tuple[Array, Array]] | None = None,
    ) -> None:
        """``later``: by label, in which rows (bool) a positive became known after the row's time,
        and when (int64).
        """
        schema = logs.schema
        self._kind: EventKind = kind
        self.time_ms = time_ms
        self._actions, self._later = actions, later or {}
        for column in (schema.user, schema.item):
            check_ids(column, chunk.columns[column], chunk.where)
        self._users, self._items = (
            texts_of(chunk.columns[column]) for column in (schema.user, schema.item)
        )
        self._received_ms = time.time_ns() // 1_000_000
        self._fields: dict[str, pa.Array] = {}
        for name, field in schema.event_fields.items():
            if name == "action" and logs.events is None:
                continue
            # the checks that prepare makes
            raw = field.read(name, chunk.columns, chunk.rows, chunk.where)
            if name != "action" and raw is not None:
                for column in field.columns(name):
                    self._fields[column] = field.live_column(chunk.columns[column], raw)

    def keys(self) -> Array:
        """uint64 [rows]: a hash of what an event is made of.

        Numbers count as float32: a column may be written in either precision.
        """
        made = {
            "user": self._users,
            "item": self._items,
            "time": pa.array(self.time_ms),
            "action": self._actions,
        }
        for column, values in self._fields.items():
            made[f"fields.{column}"] = (
                values if pa.types.is_string(values.type) else values.cast(pa.float32())
            )
        return column_hashes(made, len(self.time_ms))

    def events(self, keys: Array, numbers: Array) -> list[Event]:
        """``keys`` uint64 [rows], ``numbers`` int [rows]: which of the different rows of its key
        each is.
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
