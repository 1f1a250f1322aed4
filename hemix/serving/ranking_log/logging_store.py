"""A store that logs every event it accepts."""

from __future__ import annotations

from collections.abc import Sequence

from hemix.serving.ranking_log.log import RankingLog
from hemix.serving.ranking_log.log_set import RankingLogSet
from hemix.serving.stores import Store
from hemix.serving.types import Event, LiveFeatures, StoredHistory

__all__ = ["LoggingStore"]


class LoggingStore:
    """A :class:`hemix.serving.stores.Store` that wraps and owns another one.

    The caller closes the log.
    """

    def __init__(self, store: Store, log: RankingLog | RankingLogSet) -> None:
        """Wrap a store.

        Args:
            store: The wrapped store; :meth:`close` closes it.
            log: Receives the accepted events.
        """
        self._store, self._log = store, log

    def append(self, events: Sequence[Event]) -> list[bool]:
        """See :class:`hemix.serving.stores.Store`."""
        return self.append_with_revision(events)[0]

    def append_with_revision(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See :class:`hemix.serving.stores.Store`."""
        accepted, revision = self._store.append_with_revision(events)
        new_events = [event for event, new in zip(events, accepted, strict=True) if new]
        self._log.log_events(new_events, revision)
        return accepted, revision

    def history(
        self, user: str, *, limit: int, since_ms: int | None = None, known_revision: int = 0
    ) -> StoredHistory:
        """Read a user's newest events from the wrapped store, as `Store` describes.

        Args:
            user: The user's id.
            limit: Maximum number of events.
            since_ms: Earliest event time, ms UTC.
            known_revision: Revision that the caller already has; 0 for none.
        """
        return self._store.history(
            user, limit=limit, since_ms=since_ms, known_revision=known_revision
        )

    def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
        """Read a user's history from the wrapped store, in order of arrival.

        Args:
            user: The user's id.
            until: Last revision to include; None: the current one.
        """
        return self._store.arrivals(user, until=until)

    def user(self, user: str) -> LiveFeatures:
        """See :class:`hemix.serving.stores.Store`."""
        return self._store.user(user)

    def items(self, ids: Sequence[str]) -> dict[str, LiveFeatures]:
        """See :class:`hemix.serving.stores.Store`."""
        return self._store.items(ids)

    def ping(self) -> None:
        """See :class:`hemix.serving.stores.Store`."""
        self._store.ping()

    def close(self) -> None:
        """See :class:`hemix.serving.stores.Store`."""
        self._store.close()
