"""The protocol of a store of live events, and its limits.

Event fields are JSON values under their raw column names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hemix.errors import SettingsError
from hemix.serving.types import Event, LiveFeatures, StoredHistory

__all__ = ["DAY_MS", "DEFAULT_LIMITS", "Store", "StoreLimits", "now_ms", "owner_of"]

DAY_MS = 86_400_000


def now_ms() -> int:
    """Return the wall clock in ms UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class StoreLimits:
    """Bounds on what a store keeps and on how long callers wait for it.

    Raises:
        SettingsError: A value is out of range.
    """

    cap: int = 10_000
    """Maximum events in one user's history; the newest by event time stay."""
    ttl_ms: int | None = 90 * DAY_MS
    """A user's history, features and ids expire so long after the user's last accepted event.

    None: never. The time counts from when the store accepted the event, not from the event's own
    time. Otherwise a backfill of old logs would expire at once. A duplicate does not count.
    """
    item_ttl_ms: int | None = 365 * DAY_MS
    """An item's features and ids expire so long after its last accepted ``item`` event.

    None: never.
    """
    max_columns: int = 256
    """Maximum feature columns of one user or item; those with the oldest event times go first."""
    impressions: bool = False
    """Whether ``impression`` events enter histories."""
    duplicate_window: int = 1_000
    """Number of a user's dropped event ids that the store still recognises as duplicates."""
    item_duplicate_window: int = 100
    """The same number for an item's feature events."""
    timeout_s: float = 1.0
    """Maximum wait for a connection or for the answer to a read, in seconds."""
    append_timeout_s: float = 3.0
    """Maximum wait for other writers or for the answer to an append, in seconds."""
    clock_ms: Callable[[], int] = now_ms
    """Clock for the time to live; Redis uses its own clock."""

    def __post_init__(self) -> None:
        for name, least in (
            ("cap", 1),
            ("ttl_ms", 1),
            ("item_ttl_ms", 1),
            ("max_columns", 1),
            ("duplicate_window", 0),
            ("item_duplicate_window", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingsError(
                    f"store {name}: expected at least {least}, got {value}", field=name
                )
        for name in ("timeout_s", "append_timeout_s"):
            if getattr(self, name) <= 0:
                raise SettingsError(
                    f"store {name}: expected more than 0, got {getattr(self, name)}", field=name
                )

    def enters_history(self, event: Event) -> bool:
        """Return whether an event is stored in its user's history."""
        return event.kind == "interaction" or (event.kind == "impression" and self.impressions)

    def ttl_of(self, kind: str) -> int | None:
        """Return the time to live (ms) of a ``user`` or an ``item``."""
        return self.item_ttl_ms if kind == "item" else self.ttl_ms

    def duplicate_window_of(self, kind: str) -> int:
        """Return the number of dropped event ids to remember of a ``user`` or an ``item``."""
        return self.item_duplicate_window if kind == "item" else self.duplicate_window

    def expired(self, last_event_ms: int, kind: str = "user") -> bool:
        """Return whether a user or an item has expired.

        Args:
            last_event_ms: When the store accepted its last event, ms UTC.
            kind: ``user`` or ``item``.
        """
        ttl_ms = self.ttl_of(kind)
        return ttl_ms is not None and self.clock_ms() - last_event_ms > ttl_ms


DEFAULT_LIMITS = StoreLimits()


def owner_of(event: Event) -> str:
    """Return the item of an ``item`` event, or the user of any other event.

    Raises:
        ValueError: The event names no owner.
    """
    owner = event.item if event.kind == "item" else event.user
    if owner is None:
        missing = "an item" if event.kind == "item" else "a user"
        raise ValueError(f"event {event.id!r}: {event.kind} without {missing}")
    return owner


class Store(Protocol):
    """Live events by user, and the features that events set for users and items.

    :class:`StoreLimits` bounds a store. ``interaction`` events enter histories; ``impression``
    events do if the limits allow them; ``user`` and ``item`` events never do. Events outside
    histories are still accepted only once. Every method is thread-safe, takes bounded time and
    raises :class:`hemix.errors.StoreError` with a message of one line where the store fails.

    A revision names the content of a user's history, or of the features of a user or an item. It
    changes with every write and with expiry, and never repeats for other content. It is the time of
    the write by the store's clock, in microseconds, or one more than the last revision where the
    clock has not moved on. A replay compares revisions with the time to live
    (:func:`hemix.serving.ranking_log.logged_events.history_at`).
    """

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Store events in this order, durably, all or none.

        A ``user`` or ``item`` event sets the columns that it names and leaves others. A column
        that a newer event (by event time) has set stays.

        Returns:
            For each event True where accepted, False for a duplicate of an earlier call or within
            this call.
        """
        ...

    def append_with_revision(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """Store events as :meth:`append` does, and report the new revision.

        Returns:
            The result of :meth:`append`, and the revision of the histories and features that
            changed; 0 for no events.
        """
        ...

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known_revision: int = 0
    ) -> StoredHistory:
        """Return a user's newest events.

        Args:
            user: The user's id.
            limit: Maximum number of events.
            since_ms: Earliest event time, ms UTC. Timeless events are earlier than all others.
            known_revision: Revision of an answer that the caller still has, read with the same
                ``limit``; 0 for none. Where it is still the current revision, the history has no
                events. Where events have arrived since, the history may have these only; then its
                ``after`` is this revision.

        Returns:
            The history; empty and of revision 0 where there are no events or they have expired.
        """
        ...

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """Return a user's history in order of arrival.

        Args:
            user: The user's id.
            until: Last history revision to include. A ranking that logged this revision read the
                events returned here, except those that the cap has dropped since.
        """
        ...

    def user(self, user: str) -> LiveFeatures:
        """Return the features that events set for a user; empty and of revision 0 without any."""
        ...

    def items(self, ids: Sequence[str]) -> dict[str, LiveFeatures]:
        """Return the features that events set for these items; items without any are left out."""
        ...

    def ping(self) -> None:
        """Raise StoreError where the store cannot be reached."""
        ...

    def close(self) -> None:
        """Close files and connections; further calls raise StoreError, a second close returns."""
        ...
