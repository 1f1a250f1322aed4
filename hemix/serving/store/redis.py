"""Live events in Redis, for several servers behind one store.

What is durable when ``append`` returns is Redis's own setting: ``appendonly yes`` with
``appendfsync always`` loses nothing, ``everysec`` up to two seconds, anything else more.

A body of events is one script (append.lua), so it is taken whole; keys are laid out there. Not for
Redis Cluster: the script touches the keys of many users. A connection that broke is made again by
the next call. Knows no schema.
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
from hemix.serving.store.columns import as_features, as_json
from hemix.serving.store.limits import Limits, owner_of
from hemix.serving.types import Event, Features, History

__all__ = ["RedisStore"]

_FORMAT = SavedFormat(version=2, error=StoreError, remedy="name another Redis with --store")
_FORMAT_KEY = "hemix:format_version"
"""Holds the version of the layout; the only key without the prefix"""
_PREFIX = f"hemix:{_FORMAT.version}:"
_REVISION_DIGITS, _ARRIVAL_DIGITS = 16, 22
_CONNECTIONS = 64


class RedisStore:
    """A :class:`hemix.serving.store.protocol.Store` at a ``redis://`` URL.

    Making one connects to nothing: a server starts while its store is down. Raises StoreError for a
    URL that Redis's client does not understand.
    """

    def __init__(self, url: str, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._closed = False
        self._format_checked = self._format_marked = False
        try:
            parts = urlsplit(url)
            at = f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
            self._name = f"{parts.scheme}://{at}{parts.path}"  # no password in messages
            self._redis = self._client(url, limits.timeout_s)
            self._writer = self._client(url, limits.append_timeout_s)
        except ValueError as error:
            raise StoreError(
                f"{url.partition('?')[0].rpartition('@')[2]}: not a URL of a Redis: {error}"
            ) from error
        scripts = files("hemix.serving.store")
        self._append = self._writer.register_script(
            (scripts / "append.lua").read_text(encoding="utf-8")
        )
        self._new = self._redis.register_script((scripts / "new.lua").read_text(encoding="utf-8"))

    def _client(self, url: str, answer_s: float) -> redis.Redis:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=self._limits.timeout_s,
            socket_timeout=answer_s,
            socket_connect_timeout=self._limits.timeout_s,
            protocol=2,
            # once more at once where a kept connection turns out to be dead; a second try of an
            # append finds duplicates
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        )
        return redis.Redis(connection_pool=pool)

    def append(self, events: Sequence[Event]) -> list[bool]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        return self.append_at(events)[0]

    def append_at(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        limits = self._limits
        arguments: list[str | int] = [
            _PREFIX,
            limits.cap,
            *("" if ttl is None else ttl for ttl in (limits.ttl_ms, limits.item_ttl_ms)),
            limits.remembered,
            limits.remembered_of_item,
            limits.columns,
        ]
        for event in events:
            kept, features = "", ""
            if limits.enters_history(event):
                kept = as_json(
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
            elif event.kind in ("user", "item") and event.fields:
                features = as_json([[name, as_json(value)] for name, value in event.fields.items()])
            kind = "item" if event.kind == "item" else "user"
            arguments += [kind, owner_of(event), event.id, event.time_ms, kept, features]
        if not events:
            return [], 0
        with self._failures(limits.append_timeout_s):
            self._mark_format()
            *accepted, revision = self._append(args=arguments)
        return [bool(new) for new in accepted], int(revision)

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known: int = 0
    ) -> History:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._failures():
            if known and since_ms is None:
                found, kept, *members = self._new(args=[_PREFIX, user, known, limit])
                if int(found) in (0, known):
                    return History(int(found))
                if members:
                    return History(
                        int(found),
                        tuple(_event(user, member) for member in members),
                        after=known,
                        kept=kept,
                    )
            with self._redis.pipeline(transaction=True) as both:
                both.hget(f"{_PREFIX}users:{user}", "revision")
                both.zrevrangebyscore(
                    f"{_PREFIX}history:{user}",
                    "+inf",
                    "-inf" if since_ms is None else since_ms,
                    start=0,
                    num=limit,
                )
                found, members = both.execute()
        revision = _whole(found)  # expired with all else of the user
        return History(
            revision,
            tuple(_event(user, member) for member in reversed(members)) if revision else (),
        )

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._failures():
            members: Any = self._redis.zrange(f"{_PREFIX}history:{user}", 0, -1)
        arrived = sorted(members, key=lambda member: member[:_ARRIVAL_DIGITS])
        return tuple(
            _event(user, m) for m in arrived if until is None or int(m[:_REVISION_DIGITS]) <= until
        )

    def user(self, user: str) -> Features:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._failures():
            found: Any = self._redis.hmget(
                f"{_PREFIX}users:{user}", ["columns_revision", "columns"]
            )
        return _features(*found)

    def items(self, ids: Sequence[str]) -> dict[str, Features]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        if not ids:
            return {}
        with self._failures():
            found: Any = self._redis.mget([f"{_PREFIX}item:{name}" for name in ids])
        return {
            name: _features(stored[:_REVISION_DIGITS], stored[_REVISION_DIGITS:])
            for name, stored in zip(ids, found, strict=True)
            if stored is not None
        }

    def ping(self) -> None:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._failures():
            self._redis.ping()

    def close(self) -> None:
        """See :class:`hemix.serving.store.protocol.Store`."""
        if not self._closed:
            self._closed = True
            for client in (self._redis, self._writer):
                client.connection_pool.disconnect()

    def _check_format(self) -> None:
        """Refuse a Redis whose keys another hemix laid out; asks once."""
        if not self._format_checked:
            found: Any = self._redis.get(_FORMAT_KEY)
            if found is not None:
                _FORMAT.check_bytes(self._name, found)
            self._format_checked = True

    def _mark_format(self) -> None:
        """Note the version of the layout before the first write."""
        if not self._format_marked:
            if not self._writer.set(_FORMAT_KEY, _FORMAT.version, nx=True):
                found: Any = self._writer.get(_FORMAT_KEY)
                _FORMAT.check_bytes(self._name, found)
            self._format_marked = True

    @contextmanager
    def _failures(self, answer_s: float | None = None) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"{self._name}: closed")
        try:
            self._check_format()
            yield
        except redis.TimeoutError as error:
            raise StoreError(
                f"{self._name}: no answer within {answer_s or self._limits.timeout_s:g} s"
            ) from error
        except redis.ConnectionError as error:
            raise StoreError(f"{self._name}: cannot be reached: {_one_line(error)}") from error
        except redis.RedisError as error:
            raise StoreError(f"{self._name}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _whole(found: Any) -> int:
    return int(found) if found is not None else 0


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


def _features(revision: bytes | None, columns: bytes | None) -> Features:
    stored = json.loads(columns) if columns is not None else {}
    return as_features(
        _whole(revision),
        {name: (int(time), json.loads(value)) for name, (time, value) in stored.items()},
    )
