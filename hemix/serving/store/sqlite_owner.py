"""One user or item of the SQLite store inside a write transaction: events and features taken, the
oldest dropped.
"""

from __future__ import annotations

import json
import sqlite3

from hemix.serving.store.columns import Columns, as_json, set_columns
from hemix.serving.store.limits import Limits
from hemix.serving.types import Event

__all__ = ["Owner", "forget"]


def forget(connection: sqlite3.Connection, number: int) -> None:
    """Delete an owner with all that is kept of it."""
    for table in ("events", "ids"):
        connection.execute(f"DELETE FROM {table} WHERE owner = ?", (number,))
    connection.execute("DELETE FROM owners WHERE number = ?", (number,))


class Owner:
    """The row of a user or an item, read when made (a new one where there is none, or where it has
    expired), written by :meth:`save`.
    """

    def __init__(
        self, connection: sqlite3.Connection, kind: str, name: str, heard_ms: int, limits: Limits
    ) -> None:
        self._connection, self._now_ms, self._limits = connection, heard_ms, limits
        self._most = limits.remembered_of_item if kind == "item" else limits.remembered
        select = (
            "SELECT number, revision, columns_revision, columns, events, dropped, arrivals, "
            "heard_ms FROM owners "
            "WHERE kind = ? AND name = ?"
        )
        found = connection.execute(select, (kind, name)).fetchone()
        if found is not None and limits.expired(found[-1], kind):
            forget(connection, found[0])
            found = None
        if found is None:
            connection.execute(
                "INSERT INTO owners (kind, name, heard_ms) VALUES (?, ?, ?)", (kind, name, heard_ms)
            )
            found = connection.execute(select, (kind, name)).fetchone()
        (
            self._number,
            self._revision,
            self._columns_revision,
            columns,
            self._events,
            self._dropped,
            self._arrivals,
            self._heard_ms,
        ) = found
        self._columns: Columns = {
            column: tuple(pair) for column, pair in json.loads(columns).items()
        }

    def take(self, event: Event, fields: str | None, revision: int) -> bool:
        """Take one event whose ``fields`` are this JSON; False for a duplicate."""
        kept = self._limits.enters_history(event)
        self._arrivals += 1
        new = self._connection.execute(
            "INSERT OR IGNORE INTO ids VALUES (?, ?, ?)",
            (self._number, event.id, None if kept else self._arrivals),
        ).rowcount
        if not new:
            return False
        self._heard_ms = self._now_ms
        if kept:
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
                set_columns(self._columns, event, self._limits.columns)
                self._columns_revision = revision
        return True

    def save(self) -> None:
        """Drop what is beyond the limits and write the row."""
        self._drop_oldest()
        self._forget_ids()
        self._connection.execute(
            "UPDATE owners SET heard_ms = ?, revision = ?, columns_revision = ?, columns = ?, "
            "events = ?, dropped = ?, "
            "arrivals = ? WHERE number = ?",
            (
                self._heard_ms,
                self._revision,
                self._columns_revision,
                as_json(self._columns),
                self._events,
                self._dropped,
                self._arrivals,
                self._number,
            ),
        )

    def _drop_oldest(self) -> None:
        excess = self._events - self._limits.cap
        if excess <= 0:
            return
        oldest = self._connection.execute(
            "SELECT time_ms, arrival, id FROM events WHERE owner = ? ORDER BY time_ms, arrival "
            "LIMIT ?",
            (self._number, excess),
        ).fetchall()
        for time_ms, arrival, id_ in oldest:
            self._arrivals += 1  # numbers the dropping too
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

    def _forget_ids(self) -> None:
        excess = self._dropped - self._most
        if excess <= 0:
            return
        self._connection.execute(
            "DELETE FROM ids WHERE owner = ?1 AND id IN "
            "(SELECT id FROM ids WHERE owner = ?1 AND dropped IS NOT NULL ORDER BY dropped LIMIT "
            "?2)",
            (self._number, excess),
        )
        self._dropped -= excess
