"""The store's SQLite file: its tables, the check that a file is a store, and SQLite's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hemix.errors import StoreError
from hemix.formats import SavedFormat

__all__ = ["check_file", "create_tables", "store_errors"]

_APPLICATION = 0x48454D58
"""``HEMX``, in the file's header"""
_FORMAT = SavedFormat(version=1, error=StoreError, remedy="name another file for the store")
"""Its version is the file's PRAGMA user_version."""
_MAGIC = b"SQLite format 3\0"
_PRIMARY_CODE = 0xFF
"""The bits of SQLite's extended result codes that hold the primary one"""
_MAX_CHECKED_BYTES = 64 << 20
"""Files up to this size are checked page by page when they are opened"""

_TABLES = """
CREATE TABLE state (revision INTEGER NOT NULL);
INSERT INTO state VALUES (0);
CREATE TABLE owners (
  number INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  heard_ms INTEGER NOT NULL,
  revision INTEGER NOT NULL DEFAULT 0,
  columns_revision INTEGER NOT NULL DEFAULT 0,
  columns TEXT NOT NULL DEFAULT '{}',
  events INTEGER NOT NULL DEFAULT 0,
  dropped INTEGER NOT NULL DEFAULT 0,
  arrivals INTEGER NOT NULL DEFAULT 0,
  UNIQUE (kind, name)
);
CREATE INDEX owners_heard ON owners (heard_ms) WHERE kind = 'user';
CREATE TABLE events (
  owner INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  arrival INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  id TEXT NOT NULL,
  kind TEXT NOT NULL,
  item TEXT,
  action TEXT,
  ranking TEXT,
  fields TEXT,
  PRIMARY KEY (owner, time_ms, arrival)
) WITHOUT ROWID;
CREATE TABLE ids (
  owner INTEGER NOT NULL,
  id TEXT NOT NULL,
  dropped INTEGER,
  PRIMARY KEY (owner, id)
) WITHOUT ROWID;
CREATE INDEX ids_dropped ON ids (owner, dropped) WHERE dropped IS NOT NULL;
"""
_ITEMS_INDEX = "CREATE INDEX IF NOT EXISTS items_heard ON owners (heard_ms) WHERE kind = 'item'"
"""Older files lack this index and get it when they are opened"""
# owners.heard_ms: time at which the last event was accepted.
# owners.dropped: number of accepted events that are not, or no longer, in the history.
# ids.dropped: their number, 1, 2, ... as they were dropped; NULL for an event in the history. Only
# the newest of them keep a row (StoreLimits.duplicate_window).


def check_file(path: Path) -> None:
    """Refuse a file that cannot be a store before SQLite touches it.

    A missing or empty file becomes a new store.

    Raises:
        StoreError: There is no such folder, or the file is no SQLite database.
    """
    if not path.parent.is_dir():
        raise StoreError(
            f"{path}: no such folder for the store: {path.parent}",
            code="not_a_store",
            field=str(path),
        )
    if path.is_dir():
        raise StoreError(
            f"{path}: expected a file for the store, found a folder",
            code="not_a_store",
            field=str(path),
        )
    if path.exists() and path.stat().st_size > 0:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise StoreError(
                    f"{path}: not a SQLite database",
                    code="not_a_store",
                    field=str(path),
                    hint="name another file for the store",
                )


def create_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in a new file; check an existing one.

    Args:
        connection: A connection to the file.
        path: Path of the file, for messages.

    Raises:
        StoreError: The file is another program's, of another version, or damaged.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if objects and application != _APPLICATION:
        raise StoreError(
            f"{path}: a SQLite database, but not of hemix",
            code="not_a_store",
            field=str(path),
            hint="name another file for the store",
        )
    if objects:
        _FORMAT.check(path, version)
        _check_pages(connection, path)
        connection.execute(_ITEMS_INDEX)
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN EXCLUSIVE")
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not objects:  # another process may have created them
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute(_ITEMS_INDEX)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_FORMAT.version}")
    connection.execute("COMMIT")


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > _MAX_CHECKED_BYTES:
        return
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise StoreError(
            f"{path}: damaged: {result}",
            code="store_damaged",
            field=str(path),
        )


@contextmanager
def store_errors(path: Path, timeout_s: float) -> Iterator[None]:
    """Turn errors of SQLite and the operating system into a StoreError that names the file.

    Args:
        path: Path of the file.
        timeout_s: How long the caller waits for a lock, in seconds.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _store_error(error, path, timeout_s) from error
    except OSError as error:
        denied = isinstance(error, PermissionError)
        raise StoreError(
            f"{path}: {error.strerror or error}",
            code="store_not_writable" if denied else None,
            field=str(path),
            hint="name a file that can be written with --store" if denied else None,
        ) from error


def _store_error(error: sqlite3.Error, path: Path, timeout_s: float) -> StoreError:
    """Return the StoreError for an error of SQLite, by its result code."""
    # errors of the module itself, such as a closed connection, have no result code
    number = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE
    text, code, hint = str(error), None, None
    if number in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        code = "store_locked"
        text = f"locked by another process for longer than {timeout_s:g} s"
    elif number in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        code, text = "store_damaged", f"damaged: {text}"
    elif number in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        code, hint = "store_not_writable", "name another with --store"
        text = f"{text}: expected a file and folder that can be written"
    elif number == sqlite3.SQLITE_FULL:
        code = "disk_full"
    return StoreError(f"{path}: {text}", code=code, field=str(path), hint=hint)
