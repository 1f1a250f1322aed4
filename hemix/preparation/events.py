"""Clean the events of some users: duplicates, order, and counts for the manifest.

Without an events table, impressions are the events. The action of an impression is its deepest
positive label that was known immediately. A positive that became known later is another event, at
that later time, so that no request sees it earlier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import keys_of
from hemix.data.raw_columns import take
from hemix.data.spec import TIMELESS_MS
from hemix.preparation.cleaning import count_out_of_order, distinct_rows, stable_order
from hemix.preparation.labels import known_immediately
from hemix.preparation.rows import Rows, concatenate_rows, row_count, take_rows
from hemix.schema import Schema

__all__ = [
    "EventCounts",
    "deduplicate_events",
    "deepest_labels",
    "events_of_impressions",
    "impression_actions",
    "sort_events",
]

Array = npt.NDArray[Any]

_IMPRESSION = "impression"
"""Action of an impression without a positive label."""


@dataclass
class EventCounts:
    """Counts of the event log for the manifest."""

    events: int = 0
    timeless: int = 0
    duplicates: int = 0
    disorder: int = 0

    def update(self, other: EventCounts) -> None:
        """Add the counts of other users."""
        self.events += other.events
        self.timeless += other.timeless
        self.duplicates += other.duplicates
        self.disorder += other.disorder


def impression_actions(schema: Schema) -> pa.Array:
    """Return the actions of impressions, string [1 + T]: none of the labels, then each of them."""
    return pa.array([_IMPRESSION, *schema.tasks])


def deduplicate_events(rows: Rows, counts: EventCounts) -> Rows:
    """Drop the duplicates among rows of the events table.

    An event without a time is never a duplicate, because it can have happened twice.

    Args:
        rows: All events of some users, in the order of the log.
        counts: Receives the counts.
    """
    hashes, timed = np.asarray(rows["hash"]).copy(), np.asarray(rows["time_ms"]) != TIMELESS_MS
    hashes[~timed] = np.asarray(rows["log_row"])[~timed].astype(np.uint64)
    unique = distinct_rows(rows | {"hash": hashes})
    counts.duplicates += row_count(rows) - len(unique)
    rows = take_rows(rows, unique)
    counts.disorder += count_out_of_order(rows, np.asarray(rows["time_ms"]) != TIMELESS_MS)
    return rows


def deepest_labels(
    schema: Schema, labels: Mapping[str, Array], available: Mapping[str, Array], time_ms: Array
) -> tuple[Array, dict[str, Array]]:
    """Find which events impressions are: of the deepest positive that was known immediately, and
    one more for every positive that became known later.

    Args:
        schema: The schema, whose labels are the actions.
        labels: By label int8 [n].
        available: By label int64 [n], times in ms UTC; only of labels with ``available_at``.
        time_ms: int64 [n], UTC.

    Returns:
        int64 [n], positions among :func:`impression_actions`; and by label with ``available_at``
        the rows whose positive became known later, bool [n].
    """
    deepest, later = np.zeros(len(time_ms), dtype=np.int64), dict[str, Array]()
    for depth, (name, label) in enumerate(schema.labels.items(), start=1):
        immediately = known_immediately(label, labels[name], time_ms, available.get(name))
        deepest[immediately] = depth
        if name in available:
            later[name] = (labels[name] == 1) & ~immediately
    return deepest, later


def events_of_impressions(schema: Schema, rows: Rows) -> Rows:
    """Return the events of impressions.

    Args:
        schema: The schema, whose labels are the actions.
        rows: Impressions without duplicates.
    """
    action_keys = keys_of(impression_actions(schema))
    time_ms = np.asarray(rows["time_ms"])
    labels = {name: np.asarray(rows[f"label.{name}"]) for name in schema.tasks}
    available = {
        name: np.asarray(rows[f"available.{name}"])
        for name in schema.tasks
        if f"available.{name}" in rows
    }
    deepest, known_later = deepest_labels(schema, labels, available, time_ms)
    own = ["user", "item", "log_row", *(name for name in rows if name.startswith("event."))]
    later: list[Rows] = []
    for name, of_rows in known_later.items():
        after = np.flatnonzero(of_rows)
        event: Rows = {n: take(rows[n], after) for n in own}
        action_key = action_keys[1 + schema.tasks.index(name)]
        event |= {
            "time_ms": available[name][after],
            "event.action": np.full(len(after), action_key),
        }
        later.append(event)
    events: Rows = {n: rows[n] for n in own}
    events |= {"time_ms": time_ms, "event.action": action_keys[deepest]}
    return concatenate_rows([events, *later])


def sort_events(rows: Rows, counts: EventCounts) -> Rows:
    """Sort events by user, then time; events of equal time stay in the order of the log.

    Args:
        rows: Events without duplicates.
        counts: Receives the counts.

    Returns:
        The columns ``user``, ``item``, ``time_ms``, ``log_row`` and ``event.*``.
    """
    names = ("user", "item", "time_ms", "log_row")
    rows = {n: column for n, column in rows.items() if n in names or n.startswith("event.")}
    user, time_ms, log_row = (np.asarray(rows[n]) for n in ("user", "time_ms", "log_row"))
    # one key after the other: most rows of a log are in order, so this is faster than lexsort
    order = np.argsort(log_row, kind="stable")
    order = order[np.argsort(time_ms[order], kind="stable")]
    rows = take_rows(rows, order[stable_order(user[order])])
    counts.events += len(time_ms)
    counts.timeless += int((time_ms == TIMELESS_MS).sum())
    return rows
