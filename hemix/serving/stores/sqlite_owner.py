"""The row of one user or item in the SQLite store, inside a write transaction."""

from __future__ import annotations

import json
import sqlite3

from hemix.serving.stores.base import StoreLimits
from hemix.serving.stores.feature_columns import FeatureColumns, set_columns, to_json
from hemix.serving.types import Event

__all__ = ["OwnerRow", "delete_owner"]

_SELECT = (
    "SELECT number, revision, columns_revision, columns, events, dropped, arrivals, heard_ms "
    "FROM owners WHERE kind = ? AND name = ?"
)


def delete_owner(connection: sqlite3.Connection, number: int) -> None:
    """Delete an owner with its events and ids.

    Args:
        connection: A connection in a write transaction.
        number: The owner's primary key.
    """
    for table in ("events", "ids"):
        connection.execute(f"DELETE FROM {table} WHERE owner = ?", (number,))
    connection.execute("DELETE FROM owners WHERE number = ?", (number,))


class OwnerRow:
    """A user or an item: read by the constructor, written by :meth:`save`."""

    def __init__(
        self, connection: sqlite3.Connection, kind: str, name: str, now_ms: int, limits: StoreLimits
    ) -> None:
        """Read the row; insert a new one where it is missing or has expired.

        Args:
            connection: A connection in a write transaction.
            kind: ``user`` or ``item``.
            name: Id of the user or item.
            now_ms: Current time of the store's clock, ms UTC.
            limits: Limits of the store.
        """
        self._connection, self._now_ms, self._limits = connection, now_ms, limits
        self._kind = kind
        row = connection.execute(_SELECT, (kind, name)).fetchone()
        if row is not None and limits.expired(row[-1], kind):
            delete_owner(connection, row[0])
            row = None
        if row is None:
            connection.execute(
                "INSERT INTO owners (kind, name, heard_ms) VALUES (?, ?, ?)", (kind, name, now_ms)
            )
            row = connection.execute(_SELECT, (kind, name)).fetchone()
        (
            self._number,
            self._revision,
            self._columns_revision,
            columns,
            self._events,
            self._dropped,
            self._arrivals,
            self._last_event_ms,
        ) = row
        self._columns: FeatureColumns = {
            column: tuple(pair) for column, pair in json.loads(columns).items()
        }

    def append(self, event: Event, fields: str | None, revision: int) -> bool:
        """Store one event.

        Args:
            event: The event.
            fields: JSON of its fields, or None.
            revision: Revision of this append.

        Returns:
            False for a duplicate.
        """
        in_history = self._limits.enters_history(event)
        self._arrivals += 1
        inserted = self._connection.execute(
            "INSERT OR IGNORE INTO ids VALUES (?, ?, ?)",
            (self._number, event.id, None if in_history else self._arrivals),
        ).rowcount
        if not inserted:
            return False
        self._last_event_ms = self._now_ms
        if in_history:
            self._connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._number,
                    event.time_ms,
                    self._arrivals,
                    revision,
                    event.received_ms,
                    event.id,
                    event.kind,
                    event.item,
                    event.action,
                    event.ranking,
                    fields,
                ),
            )
            self._events += 1
            self._revision = revision
        else:
            self._dropped += 1
            if event.kind in ("user", "item") and event.fields:
                set_columns(self._columns, event, self._limits.max_columns)
                self._columns_revision = revision
        return True

    def save(self) -> None:
        """Drop the events and ids beyond the limits, and write the row."""
        self._drop_oldest_events()
        self._delete_oldest_ids()
        self._connection.execute(
            "UPDATE owners SET heard_ms = ?, revision = ?, columns_revision = ?, columns = ?, "
            "events = ?, dropped = ?, arrivals = ? WHERE number = ?",
            (
                self._last_event_ms,
                self._revision,
                self._columns_revision,
                to_json(self._columns),
                self._events,
                self._dropped,
                self._arrivals,
                self._number,
            ),
        )

    def _drop_oldest_events(self) -> None:
        excess = self._events - self._limits.cap
        if excess <= 0:
            return
        oldest = self._connection.execute(
            "SELECT time_ms, arrival, id FROM events WHERE owner = ? "
            "ORDER BY time_ms, arrival LIMIT ?",
            (self._number, excess),
        ).fetchall()
        for time_ms, arrival, id_ in oldest:
            self._arrivals += 1  # numbers the drop too
            self._connection.execute(
                "DELETE FROM events WHERE owner = ? AND time_ms = ? AND arrival = ?",
                (self._number, time_ms, arrival),
            )
            self._connection.execute(
                "UPDATE ids SET dropped = ? WHERE owner = ? AND id = ?",
                (self._arrivals, self._number, id_),
            )
        self._events -= excess
        self._dropped += excess

    def _delete_oldest_ids(self) -> None:
        excess = self._dropped - self._limits.duplicate_window_of(self._kind)
        if excess <= 0:
            return
        self._connection.execute(
            "DELETE FROM ids WHERE owner = ?1 AND id IN (SELECT id FROM ids "
            "WHERE owner = ?1 AND dropped IS NOT NULL ORDER BY dropped LIMIT ?2)",
            (self._number, excess),
        )
        self._dropped -= excess
