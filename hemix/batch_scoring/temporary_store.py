"""The store of a batch: events, and new features of users and items, out of files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from hemix.backfill import APPEND_EVENTS, logged_events
from hemix.batch_scoring.json_columns import json_columns
from hemix.data.texts import texts_of
from hemix.preparation.chunks import Chunk
from hemix.preparation.decoding import valid_from_times
from hemix.preparation.logs import Logs
from hemix.preparation.role_columns import check_ids, score_numbers_of
from hemix.schema import Schema
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.types import Event

__all__ = ["fill_store", "store_limits"]

Progress = Callable[[str, float], None]

_CHUNK_ROWS = 20_000
_TIMEOUT_S = 60.0


def store_limits(schema: Schema) -> StoreLimits:
    """Return the limits of a store that keeps all events that a request may read.

    Args:
        schema: The schema.
    """
    history = schema.history
    return StoreLimits(
        cap=max(StoreLimits.cap, history.global_length + history.realtime_length),
        ttl_ms=None,
        item_ttl_ms=None,
        impressions=schema.history_source == "impressions",
        timeout_s=_TIMEOUT_S,
        append_timeout_s=_TIMEOUT_S,
    )


def fill_store(
    folder: Path, logs: Logs, has_events: bool, users: Collection[str], progress: Progress
) -> str:
    """Write a new store.

    Args:
        folder: Receives its SQLite file.
        logs: The tables of events, users and items; impressions where they are the events.
        has_events: Whether ``logs`` has events.
        users: Users whose events and features are needed.
        progress: Called with the activity and its completed fraction.

    Returns:
        The store's URL.

    Raises:
        DataError: A value cannot be used; names file, row and column.
        StoreError: The disk is full.
    """
    url = f"sqlite:///{(folder / 'store.db').absolute()}"
    store = open_store(url, store_limits(logs.schema))
    try:
        if has_events:
            table = logs.events or logs.impressions
            for rows, events in logged_events(logs, progress=progress):
                _append(store, [event for event in events if event.user in users])
                progress("reading events", rows / table.rows)
        for kind, table_of_kind in (("user", logs.users), ("item", logs.items)):
            if table_of_kind is None:
                continue
            for chunk in table_of_kind.chunks(None, _CHUNK_ROWS):
                features = _feature_events(logs.schema, kind, chunk)
                _append(store, [e for e in features if e.user is None or e.user in users])
                progress(f"reading {kind}s", (int(chunk.log_row[-1]) + 1) / table_of_kind.rows)
    finally:
        store.close()
    return url


def _append(store: Store, events: list[Event]) -> None:
    for first in range(0, len(events), APPEND_EVENTS):
        store.append(events[first : first + APPEND_EVENTS])


def _feature_events(schema: Schema, kind: str, chunk: Chunk) -> Iterator[Event]:
    """Yield an event for every row of a table of users or items."""
    own = schema.user if kind == "user" else schema.item
    check_ids(own, chunk.columns[own], chunk.where)
    columns: dict[str, list[Any]] = json_columns(schema.features.level(kind), chunk)
    for column in schema.score_columns if kind == "item" else ():
        numbers = score_numbers_of(column, chunk.columns[column], chunk.where)
        columns.setdefault(column, [None if n != n else n for n in numbers.tolist()])
    columns.pop(own, None)
    time_ms = valid_from_times(schema, chunk.columns, chunk.rows, chunk.where).tolist()
    for row, name in enumerate(texts_of(chunk.columns[own]).to_pylist()):
        yield Event(
            id=f"{kind}:{chunk.log_row[row]}",
            kind="user" if kind == "user" else "item",
            time_ms=time_ms[row],
            user=name if kind == "user" else None,
            item=name if kind == "item" else None,
            fields={column: values[row] for column, values in columns.items()},
        )
