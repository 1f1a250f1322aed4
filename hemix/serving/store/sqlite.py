"""Live events in one SQLite file: write-ahead log, synchronous, one commit for a body of events.

One connection writes, under a lock; readers have connections of their own and see the last commit.
Several processes may share the file. Knows no URL and no schema.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hemix.errors import StoreError
from hemix.serving.store.columns import as_features, as_json
from hemix.serving.store.limits import Limits, owner_of
from hemix.serving.store.sqlite_file import check_file, create_tables, store_errors
from hemix.serving.store.sqlite_owner import Owner, forget
from hemix.serving.types import Event, Features, History

__all__ = ["SQLiteStore"]

_EVENT = "time_ms, received_ms, id, kind, item, action, ranking, fields"
_SWEPT = 50
"""Forgotten users, and items, that one append deletes at most"""
_ASKED = 500
"""Items that one statement asks for"""


class SQLiteStore:
    """A :class:`hemix.serving.store.protocol.Store` in the file ``path``, which is made where there
    is none. Raises StoreError for a missing folder, a file that is damaged or not a store.
    """

    def __init__(self, path: Path, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._path, self._limits = path, limits
        self._lock = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closed = False
        with store_errors(path, limits.append_timeout_s):
            check_file(path)
            # with the umask's mode, which SQLite would narrow, and which its journals take over
            path.touch()
            self._writer = self._connect(limits.append_timeout_s)
            try:
                create_tables(self._writer, path)
            except BaseException:
                self._writer.close()
                raise
        self._file = path.stat().st_ino

    def _connect(self, timeout_s: float) -> sqlite3.Connection:
        # every connection is used by one thread at a time
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
        """See :class:`hemix.serving.store.protocol.Store`."""
        return self.append_at(events)[0]

    def append_at(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        if not events:
            return [], 0
        by_owner: dict[tuple[str, str], list[int]] = {}
        for at, event in enumerate(events):
            by_owner.setdefault(
                ("item" if event.kind == "item" else "user", owner_of(event)), []
            ).append(at)
        fields = [as_json(event.fields) if event.fields else None for event in events]
        accepted = [False] * len(events)
        with self._writing() as connection:
            (last,) = connection.execute("SELECT revision FROM state").fetchone()
            heard_ms = self._limits.clock_ms()
            revision = max(last + 1, heard_ms * 1000)
            connection.execute("UPDATE state SET revision = ?", (revision,))
            self._forget_expired(connection, heard_ms)
            for (kind, name), places in by_owner.items():
                owner = Owner(connection, kind, name, heard_ms, self._limits)
                for at in places:
                    accepted[at] = owner.take(events[at], fields[at], revision)
                owner.save()
        return accepted, revision

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        timeout_s = self._limits.append_timeout_s
        with store_errors(self._path, timeout_s):
            if not self._lock.acquire(timeout=timeout_s):
                raise StoreError(
                    f"{self._path}: busy: waited {timeout_s:g} s for another write to end"
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

    def _forget_expired(self, connection: sqlite3.Connection, now_ms: int) -> None:
        for kind in ("user", "item"):
            ttl_ms = self._limits.ttl_of(kind)
            if ttl_ms is None:
                continue
            gone = connection.execute(
                # for its index
                f"SELECT number FROM owners WHERE kind = '{kind}' AND heard_ms < ? ORDER BY "
                "heard_ms LIMIT ?",
                (now_ms - ttl_ms, _SWEPT),
            ).fetchall()
            for (number,) in gone:
                forget(connection, number)

    # -- reading -----------------------------------------------------------------------------------

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known: int = 0
    ) -> History:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._reading() as connection:
            number, revision, kept, _ = self._user(connection, user)
            if revision in (0, known):
                return History(revision)
            if known and since_ms is None:
                rows = connection.execute(
                    f"SELECT {_EVENT} FROM events WHERE owner = ? AND revision > ? ORDER BY "
                    "time_ms, arrival",
                    (number, known),
                ).fetchall()
                if len(rows) < min(
                    limit, kept
                ):  # else all are new: the user was forgotten and came back, perhaps
                    return History(
                        revision, tuple(_event(user, row) for row in rows), after=known, kept=kept
                    )
            since, values = (
                ("", (number, limit))
                if since_ms is None
                else ("AND time_ms >= ?", (number, since_ms, limit))
            )
            rows = connection.execute(
                f"SELECT {_EVENT} FROM events WHERE owner = ? {since} ORDER BY time_ms DESC, "
                "arrival DESC LIMIT ?",
                values,
            ).fetchall()
        return History(revision, tuple(_event(user, row) for row in reversed(rows)))

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._reading() as connection:
            number, revision, _, _ = self._user(connection, user)
            rows = connection.execute(
                f"SELECT {_EVENT} FROM events WHERE owner = ? AND revision <= ? ORDER BY arrival",
                (number, revision if until is None else until),
            ).fetchall()
        return tuple(_event(user, row) for row in rows)

    def user(self, user: str) -> Features:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._reading() as connection:
            _, _, _, (revision, columns) = self._user(connection, user)
        return as_features(revision, json.loads(columns))

    def _user(
        self, connection: sqlite3.Connection, name: str
    ) -> tuple[int, int, int, tuple[int, str]]:
        """Number, revision of the history, its events, revision and JSON of the columns; (-1, 0, 0,
        (0, "{}")) where unknown or forgotten.
        """
        found = connection.execute(
            "SELECT heard_ms, number, revision, events, columns_revision, columns FROM owners "
            "WHERE kind = 'user' AND name = ?",
            (name,),
        ).fetchone()
        if found is None or self._limits.expired(found[0]):
            return -1, 0, 0, (0, "{}")
        _, number, revision, events, *columns = found
        return number, revision, events, (columns[0], columns[1])

    def items(self, ids: Sequence[str]) -> dict[str, Features]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        found: dict[str, Features] = {}
        with self._reading() as connection:
            for first in range(0, len(ids), _ASKED):
                some = ids[first : first + _ASKED]
                marks = ",".join("?" * len(some))
                rows = connection.execute(
                    "SELECT heard_ms, name, columns_revision, columns FROM owners "
                    f"WHERE kind = 'item' AND columns_revision > 0 AND name IN ({marks})",
                    tuple(some),
                )
                found |= {
                    name: as_features(revision, json.loads(columns))
                    for heard_ms, name, revision, columns in rows
                    if not self._limits.expired(heard_ms, "item")
                }
        return found

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection in one read transaction."""
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
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._reading() as connection:
            connection.execute("SELECT revision FROM state").fetchone()

    def close(self) -> None:
        """See :class:`hemix.serving.store.protocol.Store`."""
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
            raise StoreError(f"{self._path}: closed")
        try:
            there = self._path.stat().st_ino == self._file
        except OSError:
            there = False
        if not there:  # what is written to it now would be lost
            raise StoreError(
                f"{self._path}: the file was removed or replaced while it was open; restart to "
                "make a new one"
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
