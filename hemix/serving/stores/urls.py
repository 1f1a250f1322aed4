"""Open the store at a URL; Redis's client is imported only for a Redis URL."""

from __future__ import annotations

from pathlib import Path

from hemix.errors import MissingExtra, UsageError
from hemix.serving.stores.base import DEFAULT_LIMITS, Store, StoreLimits

__all__ = ["open_store"]

_EXPECTED = (
    "expected memory://, sqlite:///relative.db, sqlite:////absolute.db or redis://HOST:PORT/DB"
)


def open_store(url: str, limits: StoreLimits = DEFAULT_LIMITS) -> Store:
    """Open the store at ``url``.

    Args:
        url: ``memory://``; ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, created where
            missing; ``redis://[user:password@]host:port/db`` or ``rediss://`` (TLS), connected at
            first use.
        limits: Bounds of the store.

    Raises:
        UsageError: The URL has another form.
        StoreError: The file cannot be a store.
        MissingExtra: Redis's client is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if separator:
        match scheme:
            case "memory" if not rest:
                from hemix.serving.stores.memory import MemoryStore

                return MemoryStore(limits)
            case "sqlite" if rest.startswith("/") and len(rest) > 1 and "?" not in rest:
                from hemix.serving.stores.sqlite import SQLiteStore

                return SQLiteStore(Path(rest[1:]), limits)
            case "redis" | "rediss":
                try:
                    from hemix.serving.stores.redis import RedisStore
                except ImportError as missing:
                    raise MissingExtra("redis", "redis", "a store in Redis") from missing
                return RedisStore(url, limits)
    shown = url.rpartition("@")[2] if separator else url  # no password in messages
    raise UsageError(f"store {shown!r}: {_EXPECTED}")
