"""How much a store keeps, and for how long it may be waited for. Knows no store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hemix.errors import SettingsError
from hemix.serving.types import Event

__all__ = ["DAY_MS", "Limits", "now_ms", "owner_of"]

DAY_MS = 86_400_000


def now_ms() -> int:
    """The wall clock, ms UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds a store. Raises SettingsError for a value out of range."""

    cap: int = 10_000
    """Most events of one user's history; the newest by time stay"""
    ttl_ms: int | None = 90 * DAY_MS
    """A user of whom no event came for so long is forgotten, history, features and ids; None:
    never. It counts from when the store took the user's newest event (a duplicate is none), not
    from that event's own time: else a backfill of old logs, and whatever a client sends of times
    long past, would be accepted and forgotten at once.
    """
    item_ttl_ms: int | None = 365 * DAY_MS
    """The same of an item's features and ids, by the events that say something of it; None:
    never
    """
    columns: int = 256
    """Most columns that are kept of what events said of one user or item; those that the oldest
    events (by time) gave go first
    """
    impressions: bool = False
    """Whether ``impression`` events enter histories"""
    remembered: int = 1_000
    """So many ids of a user's events that are not, or no longer, kept are still known as
    duplicates
    """
    remembered_of_item: int = 100
    """The same of an item's feature events"""
    timeout_s: float = 1.0
    """Longest wait for a connection, or for the answer to a reading"""
    append_timeout_s: float = 3.0
    """Longest wait for other writers, or for the answer to a body of events, which may be large"""
    clock_ms: Callable[[], int] = now_ms
    """What the time to live goes by; Redis goes by its own"""

    def __post_init__(self) -> None:
        for name, least in (
            ("cap", 1),
            ("ttl_ms", 1),
            ("item_ttl_ms", 1),
            ("columns", 1),
            ("remembered", 0),
            ("remembered_of_item", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingsError(f"store {name}: expected at least {least}, got {value}")
        for name in ("timeout_s", "append_timeout_s"):
            if getattr(self, name) <= 0:
                raise SettingsError(
                    f"store {name}: expected more than 0, got {getattr(self, name)}"
                )

    def enters_history(self, event: Event) -> bool:
        """Whether an event is kept in its user's history."""
        return event.kind == "interaction" or (event.kind == "impression" and self.impressions)

    def ttl_of(self, kind: str) -> int | None:
        """The time to live (ms) of a ``user`` or an ``item``."""
        return self.item_ttl_ms if kind == "item" else self.ttl_ms

    def expired(self, heard_ms: int, kind: str = "user") -> bool:
        """Whether a user or an item of whom an event last came then is forgotten by now."""
        ttl_ms = self.ttl_of(kind)
        return ttl_ms is not None and self.clock_ms() - heard_ms > ttl_ms


def owner_of(event: Event) -> str:
    """Whose event it is: the item of an ``item`` event, else the user.

    Raises ValueError where that is missing.
    """
    owner = event.item if event.kind == "item" else event.user
    if owner is None:
        raise ValueError(
            f"event {event.id!r}: {event.kind} without "
            f"{'an item' if event.kind == 'item' else 'a user'}"
        )
    return owner
