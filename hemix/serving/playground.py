"""The playground's data: ids and values to try, and a user's history as a ranking would use it.

Users and items come from the run's vocabularies. Labels and the context come from the logs, if they
are in the run's folder, as in a demo.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.encode import ENCODERS_FORMAT
from hemix.data.history import find_history_ranges
from hemix.data.spec import TIMELESS_MS
from hemix.errors import DataError
from hemix.schema import Schema
from hemix.serving.loaded_models import LoadedModel
from hemix.serving.stores import Store

__all__ = [
    "KnownIds",
    "Suggestions",
    "UserHistory",
    "known_ids",
    "suggested_values",
    "suggestions",
    "user_history",
]

_USERS, _ITEMS, _LABELLED_ITEMS = 40, 400, 5_000


class KnownIds(TypedDict):
    """Ids that a run knows, by descending count in training; empty where its folder lacks them."""

    users: list[str]
    items: list[str]
    actions: list[str]


class SuggestedValues(KnownIds):
    """Ids and values that a run knows; empty where its folder lacks them."""

    labels: dict[str, str]
    context: dict[str, Any]


class Suggestions(SuggestedValues):
    """A model, with ids and values to try."""

    model: str
    version: str
    outputs: list[str]
    score: str


class HistoryEvent(TypedDict):
    """An event, in the history of which it is a part."""

    id: str
    item: str | None
    type: str | None
    timestamp: int | None
    part: Literal["global", "realtime"]
    fields: Mapping[str, Any]


class UserHistory(TypedDict):
    """A user's events as a ranking at ``now`` would use them."""

    user: str
    revision: int
    now: int
    events: list[HistoryEvent]


def suggestions(model: LoadedModel) -> Suggestions:
    """Return what the playground shows of a model, with values to try."""
    schema = model.engine.schema
    return {
        "model": model.name,
        "version": model.version,
        "outputs": list(schema.outputs),
        "score": schema.score_expression.text,
        **suggested_values(model.folder, schema),
    }


def user_history(store: Store, schema: Schema, user: str) -> UserHistory:
    """Return a user's history as a ranking at this moment would use it.

    Args:
        store: The store of events.
        schema: Schema of the model.
        user: The user's id.

    Raises:
        StoreError: The store cannot be read.
    """
    lengths = schema.history
    history = store.history(user, limit=lengths.global_length + lengths.realtime_length)
    times_ms = np.array([event.time_ms for event in history.events], dtype=np.int64)
    now_ms = int(time.time() * 1000) + 1  # as for a ranking
    first, last, now = (np.array([value], dtype=np.int64) for value in (0, len(times_ms), now_ms))
    [[begin, realtime, end]] = find_history_ranges(
        times_ms, first, last, now, lengths, schema.clock.timezone, delay_ms=0
    ).tolist()
    events: list[HistoryEvent] = [
        {
            "id": event.id,
            "item": event.item,
            "type": event.action,
            "timestamp": event.time_ms if event.time_ms != TIMELESS_MS else None,
            "part": "realtime" if i >= realtime else "global",
            "fields": event.fields,
        }
        for i, event in enumerate(history.events)
        if begin <= i < end
    ]
    return {"user": user, "revision": history.revision, "now": now_ms, "events": events}


def known_ids(run: Path, schema: Schema) -> KnownIds:
    """Return ids that a run knows.

    Args:
        run: The run's folder.
        schema: The run's schema.
    """
    return {
        "users": _most_frequent_ids(run, schema, "user", schema.user, _USERS),
        "items": _most_frequent_ids(run, schema, "item", schema.item, _ITEMS),
        "actions": _actions(run),
    }


def suggested_values(run: Path, schema: Schema) -> SuggestedValues:
    """Return ids and values that a run knows.

    Args:
        run: The run's folder.
        schema: The run's schema.

    Returns:
        ``users`` and ``items`` by descending count in training, ``actions``, ``labels`` of items
        and a ``context``; each is empty where the run's folder lacks it.
    """
    logs = run / "logs"
    return {
        **known_ids(run, schema),
        "labels": _item_labels(logs, schema),
        "context": _context(logs, schema),
    }


def _most_frequent_ids(run: Path, schema: Schema, level: str, column: str, count: int) -> list[str]:
    for name, feature in schema.features.level(level).items():
        if (
            feature.columns(name) == (column,)
            and feature.vocabulary_settings()
            and feature.tensor_columns().ids
        ):
            return _vocabulary(run, feature.table_of(level, name), count)
    return []


def _vocabulary(run: Path, table: str, count: int) -> list[str]:
    """Return the first values of a vocabulary; empty where it cannot be read."""
    try:
        encoders = ENCODERS_FORMAT.read(run / "encoders" / "encoders.json")
        path = run / "encoders" / f"{encoders['vocabularies'].index(table):03d}.parquet"
        values = pq.read_table(path, columns=["value"])["value"].slice(0, count)
    except (DataError, OSError, KeyError, ValueError, pa.ArrowException):
        return []
    return [str(value) for value in values.to_pylist() if value is not None]


def _actions(run: Path) -> list[str]:
    try:
        return list(ENCODERS_FORMAT.read(run / "encoders" / "encoders.json").get("actions", []))
    except DataError:
        return []


def _item_labels(logs: Path, schema: Schema) -> dict[str, str]:
    """Return labels such as ``milk_tea · 13``: an item's first category and first number."""
    one_column = [
        (feature.columns(name)[0], feature.json_type())
        for name, feature in schema.features.item.items()
        if len(feature.columns(name)) == 1
    ]
    categories = [column for column, type_ in one_column if pa.types.is_string(type_)]
    numbers = [column for column, type_ in one_column if pa.types.is_floating(type_)]
    shown = [*[name for name in categories if name != schema.item][:1], *numbers[:1]]
    if not shown:
        return {}
    rows = _first_rows(logs, schema.tables.items, [schema.item, *shown], _LABELLED_ITEMS)
    return {
        str(row[schema.item]): " · ".join(
            _short(row[name]) for name in shown if row[name] is not None
        )
        for row in rows
    }


def _context(logs: Path, schema: Schema) -> dict[str, Any]:
    """Return the context of the first logged impression."""
    features = schema.features.context.items()
    columns = list(dict.fromkeys(c for name, feature in features for c in feature.columns(name)))
    rows = _first_rows(logs, schema.tables.impressions, columns, 1) if columns else []
    return {
        name: value
        for row in rows
        for name, value in row.items()
        if isinstance(value, str | int | float)
    }


def _first_rows(
    logs: Path, table: str | None, columns: list[str], count: int
) -> list[dict[str, Any]]:
    path = logs / table if table is not None else None
    if path is None or not path.is_file():
        return []
    try:
        batches = pq.ParquetFile(path).iter_batches(batch_size=count, columns=columns)
        return [row for batch in itertools.islice(batches, 1) for row in batch.to_pylist()]
    except (OSError, KeyError, pa.ArrowException):
        return []


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
