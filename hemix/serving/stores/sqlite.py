"""Live events in one SQLite file: write-ahead log, ``synchronous = FULL``, one commit per append.

One connection writes, under a lock. Readers have connections of their own and see the last commit.
Several processes may share the file.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hemix.errors import StoreError
from hemix.serving.stores.base import DEFAULT_LIMITS, StoreLimits, owner_of
from hemix.serving.stores.feature_columns import to_features, to_json
from hemix.serving.stores.sqlite_file import check_file, create_tables, store_errors
from hemix.serving.stores.sqlite_owner import OwnerRow, delete_owner
from hemix.serving.types import Event, LiveFeatures, StoredHistory

__all__ = ["SQLiteStore"]

_EVENT_COLUMNS = "time_ms, received_ms, id, kind, item, action, ranking, fields"
_EXPIRED_PER_APPEND = 50
"""Maximum expired users, and items, that one append deletes"""
_ITEMS_PER_QUERY = 500


class _UserRow(NamedTuple):
    """A user's row; the defaults stand for an unknown or expired user."""

    number: int = -1
    revision: int = 0
    events: int = 0
    columns_revision: int = 0
    columns: str = "{}"
    """JSON"""


class SQLiteStore:
    """A :class:`hemix.serving.stores.base.Store` in one file, which is created where missing.

    Raises:
        StoreError: The folder is missing, or the file is damaged or not a store.
    """

    def __init__(self, path: Path, limits: StoreLimits = DEFAULT_LIMITS) -> None:
        self._path, self._limits = path, limits
        self._lock = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closed = False
        with store_errors(path, limits.append_timeout_s):
            check_file(path)
            # the umask sets the mode here; SQLite would narrow it, and its journals copy it
            path.touch()
            self._writer = self._connect(limits.append_timeout_s)
            try:
                create_tables(self._writer, path)
            except BaseException:
                self._writer.close()
                raise
        self._inode = path.stat().st_ino

    def _connect(self, timeout_s: float) -> sqlite3.Connection:
        # one thread at a time uses each connection
        connection = sqlite3.connect(
            self._path,
            timeout=timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    # -- writing -----------------------------------------------------------------------------------

    def append(self, events: Sequence[Event]) -> list[bool]:
        """See :class:`hemix.serving.stores.base.Store`."""
        return self.append_with_revision(events)[0]

    def append_with_revision(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See :class:`hemix.serving.stores.base.Store`."""
        if not events:
            return [], 0
        positions: dict[tuple[str, str], list[int]] = {}
        for position, event in enumerate(events):
            kind = "item" if event.kind == "item" else "user"
            positions.setdefault((kind, owner_of(event)), []).append(position)
        fields = [to_json(event.fields) if event.fields else None for event in events]
        accepted = [False] * len(events)
        with self._write_transaction() as connection:
            (last,) = connection.execute("SELECT revision FROM state").fetchone()
            now_ms = self._limits.clock_ms()
            revision = max(last + 1, now_ms * 1000)
            connection.execute("UPDATE state SET revision = ?", (revision,))
            self._delete_expired(connection, now_ms)
            for (kind, name), of_owner in positions.items():
                owner = OwnerRow(connection, kind, name, now_ms, self._limits)
                for position in of_owner:
                    accepted[position] = owner.append(events[position], fields[position], revision)
                owner.save()
        return accepted, revision

    @contextmanager
    def _write_transaction(self) -> Iterator[sqlite3.Connection]:
        timeout_s = self._limits.append_timeout_s
        with store_errors(self._path, timeout_s):
            if not self._lock.acquire(timeout=timeout_s):
                raise StoreError(
                    f"{self._path}: busy: waited {timeout_s:g} s for another write to end",
                    code="store_locked",
                    field=str(self._path),
                )
            try:
                self._check_usable()
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
            finally:
                self._lock.release()

    def _delete_expired(self, connection: sqlite3.Connection, now_ms: int) -> None:
        for kind in ("user", "item"):
            ttl_ms = self._limits.ttl_of(kind)
            if ttl_ms is None:
                continue
            expired = connection.execute(
                # a literal kind, or SQLite would not use the partial index
                f"SELECT number FROM owners WHERE kind = '{kind}' AND heard_ms < ? "
                "ORDER BY heard_ms LIMIT ?",
                (now_ms - ttl_ms, _EXPIRED_PER_APPEND),
            ).fetchall()
            for (number,) in expired:
                delete_owner(connection, number)

    # -- reading -----------------------------------------------------------------------------------

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known_revision: int = 0
    ) -> StoredHistory:
        """Read a user's newest events from the database, as `Store` describes.

        Args:
            user: The user's id.
            limit: Maximum number of events.
            since_ms: Earliest event time, ms UTC.
            known_revision: Revision that the caller already has; 0 for none.
        """
        with self._read_transaction() as connection:
            row = self._user(connection, user)
            if row.revision in (0, known_revision):
                return StoredHistory(row.revision)
            if known_revision and since_ms is None:
                rows = connection.execute(
                    f"SELECT {_EVENT_COLUMNS} FROM events WHERE owner = ? AND revision > ? "
                    "ORDER BY time_ms, arrival",
                    (row.number, known_revision),
                ).fetchall()
                # a user who expired and came back has new events only
                if len(rows) < min(limit, row.events):
                    return StoredHistory(
                        row.revision,
                        tuple(_event(user, values) for values in rows),
                        after=known_revision,
                        total_events=row.events,
                    )
            condition, bounds = ("", ()) if since_ms is None else ("AND time_ms >= ?", (since_ms,))
            rows = connection.execute(
                f"SELECT {_EVENT_COLUMNS} FROM events WHERE owner = ? {condition} "
                "ORDER BY time_ms DESC, arrival DESC LIMIT ?",
                (row.number, *bounds, limit),
            ).fetchall()
        return StoredHistory(row.revision, tuple(_event(user, values) for values in reversed(rows)))

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """Read a user's history from the database, in order of arrival.

        Args:
            user: The user's id.
            until: Last revision to include; None: the current one.
        """
        with self._read_transaction() as connection:
            row = self._user(connection, user)
            rows = connection.execute(
                f"SELECT {_EVENT_COLUMNS} FROM events WHERE owner = ? AND revision <= ? "
                "ORDER BY arrival",
                (row.number, row.revision if until is None else until),
            ).fetchall()
        return tuple(_event(user, values) for values in rows)

    def user(self, user: str) -> LiveFeatures:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._read_transaction() as connection:
            row = self._user(connection, user)
        return to_features(row.columns_revision, json.loads(row.columns))

    def _user(self, connection: sqlite3.Connection, name: str) -> _UserRow:
        row = connection.execute(
            "SELECT heard_ms, number, revision, events, columns_revision, columns FROM owners "
            "WHERE kind = 'user' AND name = ?",
            (name,),
        ).fetchone()
        if row is None or self._limits.expired(row[0]):
            return _UserRow()
        return _UserRow(*row[1:])

    def items(self, ids: Sequence[str]) -> dict[str, LiveFeatures]:
        """See :class:`hemix.serving.stores.base.Store`."""
        features: dict[str, LiveFeatures] = {}
        with self._read_transaction() as connection:
            for first in range(0, len(ids), _ITEMS_PER_QUERY):
                some_ids = ids[first : first + _ITEMS_PER_QUERY]
                marks = ",".join("?" * len(some_ids))
                rows = connection.execute(
                    "SELECT heard_ms, name, columns_revision, columns FROM owners "
                    f"WHERE kind = 'item' AND columns_revision > 0 AND name IN ({marks})",
                    tuple(some_ids),
                )
                features |= {
                    name: to_features(revision, json.loads(columns))
                    for last_event_ms, name, revision, columns in rows
                    if not self._limits.expired(last_event_ms, "item")
                }
        return features

    @contextmanager
    def _read_transaction(self) -> Iterator[sqlite3.Connection]:
        with store_errors(self._path, self._limits.timeout_s):
            self._check_usable()
            try:
                connection = self._readers.get_nowait()
            except queue.Empty:
                connection = self._connect(self._limits.timeout_s)
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._readers.put(connection)
            if self._closed:
                self._close_readers()

    # -- both --------------------------------------------------------------------------------------

    def ping(self) -> None:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._read_transaction() as connection:
            connection.execute("SELECT revision FROM state").fetchone()

    def close(self) -> None:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close_readers()
                self._writer.close()

    def _close_readers(self) -> None:
        while True:
            try:
                self._readers.get_nowait().close()
            except queue.Empty:
                return

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError(f"{self._path}: closed", code="store_closed")
        try:
            same_file = self._path.stat().st_ino == self._inode
        except OSError:
            same_file = False
        if not same_file:  # writes to it would be lost
            raise StoreError(
                f"{self._path}: the file was removed or replaced while it was open",
                code="store_replaced",
                field=str(self._path),
                hint="restart to make a new one",
            )


def _event(user: str, row: tuple[Any, ...]) -> Event:
    time_ms, received_ms, id_, kind, item, action, ranking, fields = row
    return Event(
        id=id_,
        kind=kind,
        time_ms=time_ms,
        user=user,
        item=item,
        action=action,
        fields=json.loads(fields) if fields else {},
        ranking=ranking,
        received_ms=received_ms,
    )
