"""A store's URL to the store. Loads the Redis client where the URL asks for it."""

from __future__ import annotations

from pathlib import Path

from hemix.errors import MissingExtra, UsageError
from hemix.serving.store.limits import Limits
from hemix.serving.store.protocol import Store

__all__ = ["open_store"]

_EXPECTED = (
    "expected memory://, sqlite:///relative.db, sqlite:////absolute.db or redis://HOST:PORT/DB"
)


def open_store(url: str, limits: Limits = Limits()) -> Store:  # noqa: B008 (frozen)
    """The store at ``url``: ``memory://``; ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
    made where there is none; ``redis://[user:password@]host:port/db`` or ``rediss://`` (TLS), which
    is not connected to before it is used.

    Raises UsageError for another URL, StoreError for a file that cannot be the store, MissingExtra
    without Redis's client.
    """
    scheme, separator, rest = url.partition("://")
    if separator:
        match scheme:
            case "memory" if not rest:
                from hemix.serving.store.memory import MemoryStore

                return MemoryStore(limits)
            case "sqlite" if rest.startswith("/") and len(rest) > 1 and "?" not in rest:
                from hemix.serving.store.sqlite import SQLiteStore

                return SQLiteStore(Path(rest[1:]), limits)
            case "redis" | "rediss":
                try:
                    from hemix.serving.store.redis import RedisStore
                except ImportError as missing:
                    raise MissingExtra("redis", "redis", "a store in Redis") from missing
                return RedisStore(url, limits)
    shown = url.rpartition("@")[2] if separator else url  # no password in messages
    raise UsageError(f"store {shown!r}: {_EXPECTED}")
