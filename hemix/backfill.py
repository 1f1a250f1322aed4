"""Logs into a store of live events: exactly the events that ``hemix prepare`` makes histories of, in the same order.

An event's id is made of its row, so that loading again, or loading logs that have grown, adds only what is new, and an interrupted
load goes on by being repeated. Users and items are not loaded: a run folder holds them. Knows no model and needs no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.cells import columns_of, numbers_of, read_cell
from hemix.data.keys import texts_of
from hemix.data.prepare.checks import Logs, open_logs
from hemix.data.prepare.columns import chunk_hashes, labels_of, no_null
from hemix.data.prepare.events import IMPRESSION
from hemix.data.prepare.labels import consistent, known_at_once
from hemix.data.prepare.reading import Chunk
from hemix.data.prepare.times import times_of
from hemix.data.spec import TIMELESS_MS
from hemix.errors import UsageError
from hemix.schema import Categorical, ClockPart
from hemix.serving.store import Limits, open_store
from hemix.serving.types import Event, Kind

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
    cap: int = Limits.cap,
    ttl_ms: int | None = Limits.ttl_ms,
    item_ttl_ms: int | None = Limits.item_ttl_ms,
    progress: Progress,
) -> dict[str, Any]:
    """Append every event of the folder ``logs`` to the store at the URL ``store``; returns counts.

    ``cap``, ``ttl_ms`` and ``item_ttl_ms`` are those of the server (:class:`hemix.serving.store.Limits`). Raises DataError and
    SchemaError naming file, row and column (what lay before the wrong row is loaded by then), UsageError for the URL, StoreError where
    the store fails.
    """
    began = time.monotonic()
    if store == "memory://":
        raise UsageError("--store memory://: would be gone when this command ends; name a SQLite file or a Redis")
    opened = open_logs(logs, None)
    table, history = opened.events or opened.impressions, opened.schema.history
    longest = history.global_length + history.realtime_length
    limits = Limits(
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
        for rows, found in logged_events(opened):
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


def logged_events(logs: Logs, rows: int = _CHUNK_ROWS) -> Iterator[tuple[int, list[Event]]]:
    """The events of the logs in the order of the log, a piece at a time: (rows of the log read so far, events)."""
    read = _of_impressions if logs.events is None else _of_events
    for chunk in (logs.events or logs.impressions).chunks(None, rows):
        yield chunk.first_row + chunk.rows, read(logs, chunk)


def _of_events(logs: Logs, chunk: Chunk) -> list[Event]:
    schema = logs.schema
    time_ms = times_of(logs.event_clock, chunk.columns[logs.event_clock], schema.clock, chunk.where)
    (column,) = columns_of("action", schema.event_fields["action"])
    actions = texts_of(chunk.columns[column]).to_pylist() if column in chunk.columns else [None] * chunk.rows
    make = _Rows(logs, chunk)
    return [
        # without a time a repetition may well have happened twice: it is no duplicate
        make.event(row, "interaction", int(time_ms[row]), actions[row],
                   f":{chunk.first_row + row}" if time_ms[row] == TIMELESS_MS else "")
        for row in range(chunk.rows)
    ]  # fmt: skip


def _of_impressions(logs: Logs, chunk: Chunk) -> list[Event]:
    """Each impression with its deepest label that was known at once; then a positive that became known later, at that time."""
    schema, clock = logs.schema, logs.schema.clock
    no_null(clock.column, chunk.columns[clock.column], chunk.where)
    time_ms = times_of(clock.column, chunk.columns[clock.column], clock, chunk.where, own=True)
    logged = {n: labels_of(v.column or n, chunk.columns[v.column or n], chunk.where) for n, v in schema.labels.items()}
    labels, _ = consistent(schema.labels, logged)
    deepest = np.zeros(chunk.rows, dtype=np.int64)
    later: list[tuple[str, Array, Array]] = []
    for depth, (name, label) in enumerate(schema.labels.items(), start=1):
        column = label.available_at
        available = None if column is None else times_of(column, chunk.columns[column], clock, chunk.where)
        at_once = known_at_once(label, labels[name], time_ms, available)
        deepest[at_once] = depth
        if available is not None:
            later.append((name, (labels[name] == 1) & ~at_once, available))
    make, actions, events = _Rows(logs, chunk), [IMPRESSION, *schema.tasks], []
    for row in range(chunk.rows):
        events.append(make.event(row, "impression", int(time_ms[row]), actions[deepest[row]], ""))
        for name, after, available in later:
            if after[row]:
                events.append(make.event(row, "interaction", int(available[row]), name, f":{name}"))
    return events


class _Rows:
    """What the events of both sources have in common."""

    def __init__(self, logs: Logs, chunk: Chunk) -> None:
        schema = logs.schema
        self._users, self._items = (_ids(column, chunk) for column in (schema.user, schema.item))
        self._hashes = chunk_hashes(chunk).tolist()
        self._received_ms = time.time_ns() // 1_000_000
        self._fields: dict[str, list[Any]] = {}
        for name, field in schema.event_fields.items():
            if isinstance(field, ClockPart) or (name == "action" and logs.events is None):
                continue
            read_cell(name, field, chunk.columns, chunk.rows, chunk.where)  # the checks that prepare makes
            for column in columns_of(name, field) if name != "action" else ():
                values = chunk.columns[column]
                self._fields[column] = (
                    texts_of(values).to_pylist() if isinstance(field, Categorical) else _numbers(column, values, chunk)
                )

    def event(self, row: int, kind: Kind, time_ms: int, action: str | None, of_row: str) -> Event:
        """``of_row`` tells the row's events apart."""
        return Event(
            id=f"log:{self._hashes[row]:016x}{of_row}",
            kind=kind,
            time_ms=time_ms,
            user=self._users[row],
            item=self._items[row],
            action=action,
            fields={column: values[row] for column, values in self._fields.items() if values[row] is not None},
            received_ms=self._received_ms,
        )


def _ids(column: str, chunk: Chunk) -> list[str]:
    values = chunk.columns[column]
    no_null(column, values, chunk.where)
    if pa.types.is_floating(values.type):
        numbers_of(column, values, chunk.where)
    texts: list[str] = texts_of(values).to_pylist()
    return texts


def _numbers(column: str, values: pa.Array, chunk: Chunk) -> list[float | None]:
    numbers = numbers_of(column, values, chunk.where)
    return [None if missing else number for number, missing in zip(numbers.tolist(), np.isnan(numbers), strict=True)]
