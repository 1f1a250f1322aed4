"""Live events in Redis, for several servers that share one store.

Redis's own settings decide what is durable when ``append`` returns: ``appendonly yes`` with
``appendfsync always`` loses nothing, ``everysec`` up to two seconds, anything else more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hemix.errors import StoreError
from hemix.formats import SavedFormat
from hemix.serving.stores.base import DEFAULT_LIMITS, StoreLimits, owner_of
from hemix.serving.stores.feature_columns import to_features, to_json
from hemix.serving.types import Event, LiveFeatures, StoredHistory

__all__ = ["RedisStore"]

_FORMAT = SavedFormat(version=2, error=StoreError, remedy="name another Redis with --store")
_FORMAT_KEY = "hemix:format_version"
"""Holds the version of the layout; the only key without the prefix"""
_PREFIX = f"hemix:{_FORMAT.version}:"
"""Start of every other key"""
_REVISION_DIGITS, _ARRIVAL_DIGITS = 16, 22
_CONNECTIONS = 64


class RedisStore:
    """A :class:`hemix.serving.stores.base.Store` at a ``redis://`` URL.

    One script (append.lua, which documents the keys) stores a body of events, so that it is stored
    whole. It touches the keys of many users and therefore does not run on Redis Cluster. The
    constructor connects to nothing, so that a server starts while its store is down. The next call
    restores a broken connection.

    Raises:
        StoreError: Redis's client does not understand the URL.
    """

    def __init__(self, url: str, limits: StoreLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._closed = False
        self._format_checked = self._format_marked = False
        try:
            parsed = urlsplit(url)
            address = f"{parsed.hostname or 'localhost'}:{parsed.port or 6379}"
            self._name = f"{parsed.scheme}://{address}{parsed.path}"  # no password in messages
            self._redis = self._client(url, limits.timeout_s)
            self._writer = self._client(url, limits.append_timeout_s)
        except ValueError as error:
            raise StoreError(
                f"{url.partition('?')[0].rpartition('@')[2]}: not a URL of a Redis: {error}"
            ) from error
        scripts = files("hemix.serving.stores")
        self._append = self._writer.register_script(
            (scripts / "append.lua").read_text(encoding="utf-8")
        )
        self._read_new = self._redis.register_script(
            (scripts / "read_new.lua").read_text(encoding="utf-8")
        )

    def _client(self, url: str, response_timeout_s: float) -> redis.Redis:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=self._limits.timeout_s,
            socket_timeout=response_timeout_s,
            socket_connect_timeout=self._limits.timeout_s,
            protocol=2,
            # one retry, because a pooled connection may be dead; a repeated append is idempotent
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        )
        return redis.Redis(connection_pool=pool)

    def append(self, events: Sequence[Event]) -> list[bool]:
        """See :class:`hemix.serving.stores.base.Store`."""
        return self.append_with_revision(events)[0]

    def append_with_revision(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See :class:`hemix.serving.stores.base.Store`."""
        limits = self._limits
        arguments: list[str | int] = [
            _PREFIX,
            limits.cap,
            *("" if ttl is None else ttl for ttl in (limits.ttl_ms, limits.item_ttl_ms)),
            limits.duplicate_window,
            limits.item_duplicate_window,
            limits.max_columns,
        ]
        for event in events:
            history_entry, features = "", ""
            if limits.enters_history(event):
                history_entry = _history_entry(event)
            elif event.kind in ("user", "item") and event.fields:
                features = to_json([[name, to_json(value)] for name, value in event.fields.items()])
            kind = "item" if event.kind == "item" else "user"
            arguments += [kind, owner_of(event), event.id, event.time_ms, history_entry, features]
        if not events:
            return [], 0
        with self._store_errors(limits.append_timeout_s):
            self._mark_format()
            *accepted, revision = self._append(args=arguments)
        return [bool(new) for new in accepted], int(revision)

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known_revision: int = 0
    ) -> StoredHistory:
        """Read a user's newest events from Redis, as `Store` describes.

        Args:
            user: The user's id.
            limit: Maximum number of events.
            since_ms: Earliest event time, ms UTC.
            known_revision: Revision that the caller already has; 0 for none.
        """
        with self._store_errors():
            if known_revision and since_ms is None:
                stored_revision, total, *members = self._read_new(
                    args=[_PREFIX, user, known_revision, limit]
                )
                revision = int(stored_revision)
                if revision in (0, known_revision):
                    return StoredHistory(revision)
                if members:
                    events = tuple(_event(user, member) for member in members)
                    return StoredHistory(revision, events, after=known_revision, total_events=total)
            with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hget(f"{_PREFIX}users:{user}", "revision")
                pipeline.zrevrangebyscore(
                    f"{_PREFIX}history:{user}",
                    "+inf",
                    "-inf" if since_ms is None else since_ms,
                    start=0,
                    num=limit,
                )
                stored_revision, members = pipeline.execute()
        if stored_revision is None:  # the user has expired
            return StoredHistory()
        return StoredHistory(
            int(stored_revision), tuple(_event(user, member) for member in reversed(members))
        )

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """Read a user's history from Redis, in order of arrival.

        Args:
            user: The user's id.
            until: Last revision to include; None: the current one.
        """
        with self._store_errors():
            members: Any = self._redis.zrange(f"{_PREFIX}history:{user}", 0, -1)
        in_order = sorted(members, key=lambda member: member[:_ARRIVAL_DIGITS])
        return tuple(
            _event(user, member)
            for member in in_order
            if until is None or int(member[:_REVISION_DIGITS]) <= until
        )

    def user(self, user: str) -> LiveFeatures:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._store_errors():
            stored: Any = self._redis.hmget(
                f"{_PREFIX}users:{user}", ["columns_revision", "columns"]
            )
        return _features(*stored)

    def items(self, ids: Sequence[str]) -> dict[str, LiveFeatures]:
        """See :class:`hemix.serving.stores.base.Store`."""
        if not ids:
            return {}
        with self._store_errors():
            values: Any = self._redis.mget([f"{_PREFIX}item:{name}" for name in ids])
        return {
            name: _features(stored[:_REVISION_DIGITS], stored[_REVISION_DIGITS:])
            for name, stored in zip(ids, values, strict=True)
            if stored is not None
        }

    def ping(self) -> None:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._store_errors():
            self._redis.ping()

    def close(self) -> None:
        """See :class:`hemix.serving.stores.base.Store`."""
        if not self._closed:
            self._closed = True
            for client in (self._redis, self._writer):
                client.connection_pool.disconnect()

    def _check_format(self) -> None:
        """Refuse keys of another version, once for each store object."""
        if not self._format_checked:
            version: Any = self._redis.get(_FORMAT_KEY)
            if version is not None:
                _FORMAT.check_bytes(self._name, version)
            self._format_checked = True

    def _mark_format(self) -> None:
        """Write the version before the first event."""
        if not self._format_marked:
            if not self._writer.set(_FORMAT_KEY, _FORMAT.version, nx=True):
                version: Any = self._writer.get(_FORMAT_KEY)
                _FORMAT.check_bytes(self._name, version)
            self._format_marked = True

    @contextmanager
    def _store_errors(self, response_timeout_s: float | None = None) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"{self._name}: closed", code="store_closed")
        timeout_s = response_timeout_s or self._limits.timeout_s
        try:
            self._check_format()
            yield
        except redis.TimeoutError as error:
            raise StoreError(
                f"{self._name}: no answer within {timeout_s:g} s", code="store_timeout"
            ) from error
        except redis.ConnectionError as error:
            refused = isinstance(error, redis.AuthenticationError)
            raise StoreError(
                f"{self._name}: cannot be reached: {error}",
                code="store_unauthorized" if refused else None,
            ) from error
        except redis.RedisError as error:
            full = isinstance(error, redis.OutOfMemoryError)
            raise StoreError(
                f"{self._name}: {error}", code="store_full" if full else None
            ) from error


def _history_entry(event: Event) -> str:
    return to_json(
        [
            event.id,
            event.time_ms,
            event.received_ms,
            event.kind,
            event.item,
            event.action,
            event.ranking,
            event.fields,
        ]
    )


def _event(user: str, member: bytes) -> Event:
    id_, time_ms, received_ms, kind, item, action, ranking, fields = json.loads(
        member[_ARRIVAL_DIGITS:]
    )
    return Event(
        id=id_,
        kind=kind,
        time_ms=time_ms,
        user=user,
        item=item,
        action=action,
        fields=fields,
        ranking=ranking,
        received_ms=received_ms,
    )


def _features(revision: bytes | None, columns: bytes | None) -> LiveFeatures:
    stored = json.loads(columns) if columns is not None else {}
    return to_features(
        int(revision) if revision is not None else 0,
        {name: (int(time_ms), json.loads(value)) for name, (time_ms, value) in stored.items()},
    )
