"""What the engine asks of a store of live events.

Knows no schema and no model: fields are JSON values under their raw names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hemix.serving.types import Event, Features, History

__all__ = ["Store"]


class Store(Protocol):
    """Live events by user, and the features that events gave to users and items.

    A store is opened with a cap on each user's events (the newest by time stay), one on the columns
    that events give to a user or an item (those of the oldest events go), a time to live, counted
    from when the newest event of a user or an item was accepted, and whether ``impression`` events
    enter histories (``interaction`` events always do; the other kinds never). What does not enter a
    history is still accepted once. Every method may be called from many threads, takes a bounded
    time and raises :class:`hemix.errors.StoreError`, one line, where the store fails.
    """

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Take events in this order: True accepted, False a duplicate (of an earlier call, or
        within this one). Durable when it returns; all of them or, where it raises, none. A ``user``
        or ``item`` event sets the columns that it names and leaves others; a column that a newer
        event (by time) has set stays.
        """
        ...

    def append_at(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """:meth:`append`, and the revision of the histories and features that it changed; 0 for no
        events.
        """
        ...

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known: int = 0
    ) -> History:
        """The newest ``limit`` events of a user, not older than ``since_ms`` (timeless ones are
        older than all). Empty, of revision 0, where there are none or they have expired.

        With ``known`` (not 0) the caller has what this method said of the user at that revision,
        with the same ``limit``. Where that is still the revision, the History has no events; where
        events have come since, it may have these alone, and says so in ``after``.
        """
        ...

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """The events of a user's history in the order in which they arrived, up to history revision
        ``until``: what a ranking saw that noted this revision, but for events that the cap has
        dropped since.
        """
        ...

    def user(self, user: str) -> Features:
        """The features that events gave to a user; empty, of revision 0, where none did."""
        ...

    def items(self, ids: Sequence[str]) -> dict[str, Features]:
        """The features that events gave to these items; items of which no event told are left
        out.
        """
        ...

    def ping(self) -> None:
        """Raise StoreError where the store cannot be reached."""
        ...

    def close(self) -> None:
        """Let go of files and connections; further calls raise StoreError.

        A second close does nothing.
        """
        ...
