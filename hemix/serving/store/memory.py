"""Live events in this process's memory: for tests and trials. Nothing outlives the process."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from hemix.errors import StoreError
from hemix.serving.store.columns import Columns, as_features, set_columns
from hemix.serving.store.limits import Limits, owner_of
from hemix.serving.types import Event, Features, History

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Owner:
    """A user or an item."""

    events: list[tuple[int, int, int, Event]] = field(default_factory=list)
    """(time, number of its arrival, revision that it made, event), ascending"""
    kept: set[str] = field(default_factory=set)
    """Ids of ``events``"""
    dropped: dict[str, None] = field(default_factory=dict)
    """Ids of events that are not, or no longer, kept, in the order of dropping"""
    columns: Columns = field(default_factory=dict)
    revision: int = 0
    columns_revision: int = 0
    heard_ms: int = 0


class MemoryStore:
    """A :class:`hemix.serving.store.protocol.Store` of dictionaries."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._lock = threading.Lock()
        self._users: dict[str, _Owner] = {}  # in the order in which they were last heard of
        self._items: dict[str, _Owner] = {}  # likewise
        self._arrived = 0
        self._revision = 0
        self._closed = False

    def append(self, events: Sequence[Event]) -> list[bool]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        return self.append_at(events)[0]

    def append_at(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        owners = [owner_of(event) for event in events]
        with self._lock:
            self._check_open()
            if not events:
                return [], 0
            self._revision = max(self._revision + 1, self._limits.clock_ms() * 1000)
            self._forget_expired()
            return [
                self._take(name, event) for name, event in zip(owners, events, strict=True)
            ], self._revision

    def _take(self, name: str, event: Event) -> bool:
        limits = self._limits
        owners = self._items if event.kind == "item" else self._users
        owner = self._known(owners, name) or _Owner()
        if event.id in owner.kept or event.id in owner.dropped:
            return False
        owners.pop(name, None)
        owners[name] = owner
        owner.heard_ms = limits.clock_ms()
        self._arrived += 1
        if limits.enters_history(event):
            insort(owner.events, (event.time_ms, self._arrived, self._revision, event))
            owner.kept.add(event.id)
            owner.revision = self._revision
            if len(owner.events) > limits.cap:
                *_, oldest = owner.events.pop(0)
                owner.kept.discard(oldest.id)
                owner.dropped[oldest.id] = None
        else:
            owner.dropped[event.id] = None
            if event.kind in ("user", "item") and event.fields:
                set_columns(owner.columns, event, limits.columns)
                owner.columns_revision = self._revision
        most = limits.remembered_of_item if event.kind == "item" else limits.remembered
        while len(owner.dropped) > most:
            del owner.dropped[next(iter(owner.dropped))]
        return True

    def _forget_expired(self) -> None:
        for owners in (self._users, self._items):
            while owners:
                name = next(iter(owners))
                if self._known(owners, name) is not None:
                    break
                del owners[name]

    def _known(self, owners: dict[str, _Owner], name: str) -> _Owner | None:
        """None where unknown or forgotten."""
        owner = owners.get(name)
        kind = "item" if owners is self._items else "user"
        return None if owner is None or self._limits.expired(owner.heard_ms, kind) else owner

    def _user(self, name: str) -> _Owner:
        self._check_open()
        return self._known(self._users, name) or _Owner()

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known: int = 0
    ) -> History:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._lock:
            owner = self._user(user)
            if owner.revision == known:
                return History(known)
            if known and since_ms is None:
                new = tuple(event for _, _, revision, event in owner.events if revision > known)
                if len(new) < min(limit, len(owner.events)):
                    return History(owner.revision, new, after=known, kept=len(owner.events))
            first = (
                0
                if since_ms is None
                else bisect_left(owner.events, since_ms, key=lambda row: row[0])
            )
            rows = owner.events[max(first, len(owner.events) - limit) :]
            return History(owner.revision, tuple(event for *_, event in rows))

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._lock:
            rows = sorted(self._user(user).events, key=lambda row: row[1])
            return tuple(
                event for _, _, revision, event in rows if until is None or revision <= until
            )

    def user(self, user: str) -> Features:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._lock:
            owner = self._user(user)
            return as_features(owner.columns_revision, owner.columns)

    def items(self, ids: Sequence[str]) -> dict[str, Features]:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._lock:
            self._check_open()
            found = {name: self._known(self._items, name) for name in ids}
            return {
                n: as_features(o.columns_revision, o.columns)
                for n, o in found.items()
                if o is not None and o.columns
            }

    def ping(self) -> None:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._lock:
            self._check_open()

    def close(self) -> None:
        """See :class:`hemix.serving.store.protocol.Store`."""
        with self._lock:
            self._closed = True
            self._users, self._items = {}, {}

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("memory://: closed")
