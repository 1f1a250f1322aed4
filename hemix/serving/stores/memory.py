"""Live events in this process's memory, for tests and trials; lost when the process ends."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from hemix.errors import StoreError
from hemix.serving.stores.base import DEFAULT_LIMITS, StoreLimits, owner_of
from hemix.serving.stores.feature_columns import FeatureColumns, set_columns, to_features
from hemix.serving.types import Event, LiveFeatures, StoredHistory

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Owner:
    """A user or an item."""

    events: list[tuple[int, int, int, Event]] = field(default_factory=list)
    """(time, arrival number, revision at arrival, event), ascending"""
    history_ids: set[str] = field(default_factory=set)
    """Ids of ``events``"""
    dropped_ids: dict[str, None] = field(default_factory=dict)
    """Ids of accepted events that are not in ``events``, in the order of dropping"""
    columns: FeatureColumns = field(default_factory=dict)
    revision: int = 0
    columns_revision: int = 0
    last_event_ms: int = 0


class MemoryStore:
    """A :class:`hemix.serving.stores.base.Store` of dictionaries."""

    def __init__(self, limits: StoreLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._users: dict[str, _Owner] = {}  # in the order of their last events
        self._items: dict[str, _Owner] = {}  # likewise
        self._arrivals = 0
        self._revision = 0
        self._closed = False

    def append(self, events: Sequence[Event]) -> list[bool]:
        """See :class:`hemix.serving.stores.base.Store`."""
        return self.append_with_revision(events)[0]

    def append_with_revision(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See :class:`hemix.serving.stores.base.Store`."""
        owners = [owner_of(event) for event in events]
        with self._lock:
            self._check_open()
            if not events:
                return [], 0
            self._revision = max(self._revision + 1, self._limits.clock_ms() * 1000)
            self._delete_expired()
            accepted = [
                self._append_event(name, event) for name, event in zip(owners, events, strict=True)
            ]
            return accepted, self._revision

    def _append_event(self, name: str, event: Event) -> bool:
        limits = self._limits
        owners = self._items if event.kind == "item" else self._users
        owner = self._unexpired(owners, name) or _Owner()
        if event.id in owner.history_ids or event.id in owner.dropped_ids:
            return False
        owners.pop(name, None)
        owners[name] = owner
        owner.last_event_ms = limits.clock_ms()
        self._arrivals += 1
        if limits.enters_history(event):
            insort(owner.events, (event.time_ms, self._arrivals, self._revision, event))
            owner.history_ids.add(event.id)
            owner.revision = self._revision
            if len(owner.events) > limits.cap:
                *_, oldest = owner.events.pop(0)
                owner.history_ids.discard(oldest.id)
                owner.dropped_ids[oldest.id] = None
        else:
            owner.dropped_ids[event.id] = None
            if event.kind in ("user", "item") and event.fields:
                set_columns(owner.columns, event, limits.max_columns)
                owner.columns_revision = self._revision
        while len(owner.dropped_ids) > limits.duplicate_window_of(event.kind):
            del owner.dropped_ids[next(iter(owner.dropped_ids))]
        return True

    def _delete_expired(self) -> None:
        for owners in (self._users, self._items):
            while owners:
                name = next(iter(owners))
                if self._unexpired(owners, name) is not None:
                    break
                del owners[name]

    def _unexpired(self, owners: dict[str, _Owner], name: str) -> _Owner | None:
        """Return a user or an item; None where unknown or expired."""
        owner = owners.get(name)
        kind = "item" if owners is self._items else "user"
        return None if owner is None or self._limits.expired(owner.last_event_ms, kind) else owner

    def _user(self, name: str) -> _Owner:
        self._check_open()
        return self._unexpired(self._users, name) or _Owner()

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known_revision: int = 0
    ) -> StoredHistory:
        """Read a user's newest events from memory, as `Store` describes.

        Args:
            user: The user's id.
            limit: Maximum number of events.
            since_ms: Earliest event time, ms UTC.
            known_revision: Revision that the caller already has; 0 for none.
        """
        with self._lock:
            owner = self._user(user)
            if owner.revision == known_revision:
                return StoredHistory(known_revision)
            total = len(owner.events)
            if known_revision and since_ms is None:
                new = tuple(
                    event for _, _, revision, event in owner.events if revision > known_revision
                )
                if len(new) < min(limit, total):
                    return StoredHistory(
                        owner.revision, new, after=known_revision, total_events=total
                    )
            first = (
                0
                if since_ms is None
                else bisect_left(owner.events, since_ms, key=lambda row: row[0])
            )
            rows = owner.events[max(first, total - limit) :]
            return StoredHistory(owner.revision, tuple(event for *_, event in rows))

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """Read a user's history from memory, in order of arrival.

        Args:
            user: The user's id.
            until: Last revision to include; None: the current one.
        """
        with self._lock:
            rows = sorted(self._user(user).events, key=lambda row: row[1])
            return tuple(
                event for _, _, revision, event in rows if until is None or revision <= until
            )

    def user(self, user: str) -> LiveFeatures:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._lock:
            owner = self._user(user)
            return to_features(owner.columns_revision, owner.columns)

    def items(self, ids: Sequence[str]) -> dict[str, LiveFeatures]:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._lock:
            self._check_open()
            owners = {name: self._unexpired(self._items, name) for name in ids}
            return {
                name: to_features(owner.columns_revision, owner.columns)
                for name, owner in owners.items()
                if owner is not None and owner.columns
            }

    def ping(self) -> None:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._lock:
            self._check_open()

    def close(self) -> None:
        """See :class:`hemix.serving.stores.base.Store`."""
        with self._lock:
            self._closed = True
            self._users, self._items = {}, {}

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("memory://: closed", code="store_closed")
