"""Reads of the store for a ranking, within a bounded time, and behaviour when the store fails.

After a failure, or several slow reads in a row, the store is not read for a moment, so that
requests do not queue behind it. Then one request tries again (a circuit breaker, whose two fields
are no reason for a package).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

from hemix.errors import StoreError
from hemix.serving.stores import Store
from hemix.serving.types import LiveFeatures, StoredHistory

__all__ = ["StoreReader", "StoreSnapshot"]

_TIMEOUTS_IN_A_ROW = 3
"""A single timeout may come from a busy machine"""
_READS_PER_THREAD = 4
"""Reads in work and waiting, per thread"""


@dataclass(frozen=True, kw_only=True)
class StoreSnapshot:
    """What a ranking reads from the store."""

    history: StoredHistory = field(default_factory=StoredHistory)
    user: LiveFeatures = field(default_factory=LiveFeatures)
    items: dict[str, LiveFeatures] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    """What could not be read."""


_UNAVAILABLE = StoreSnapshot(degraded=("history", "features"))


class StoreReader:
    """Reads for many threads. Call :meth:`close` when done."""

    def __init__(
        self,
        store: Store,
        *,
        limit: int,
        timeout_s: float = 0.25,
        retry_s: float = 1.0,
        threads: int = 4,
    ) -> None:
        """Start the threads.

        Args:
            store: The store.
            limit: Maximum events of a user.
            timeout_s: Maximum time of a read, in seconds.
            retry_s: Time without reads after a failure, in seconds.
            threads: Number of threads.
        """
        self._store, self._limit = store, limit
        self._timeout_s, self._retry_s = timeout_s, retry_s
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="hemix-store")
        self._free = threading.Semaphore(_READS_PER_THREAD * threads)
        self._lock = threading.Lock()
        self._retry_at = 0.0
        """0: the store works"""
        self._timeouts = 0

    def read(
        self,
        user: str,
        known_revision: int,
        items_of: Callable[[StoredHistory], Collection[str]],
        *,
        history: bool = True,
    ) -> StoreSnapshot:
        """Read a user's history and features, and the features of items.

        Args:
            user: The user's id.
            known_revision: Revision of a history that the caller has; 0 for none.
            items_of: Returns the items to read, given the history.
            history: Whether to read the history.

        Returns:
            The snapshot. What could not be read in time is named in its ``degraded``.
        """
        now = time.monotonic()
        deadline = now + self._timeout_s
        with self._lock:
            if now < self._retry_at:
                return _UNAVAILABLE
            if self._retry_at:  # this read tries; others wait for its result
                self._retry_at = now + self._retry_s
        if not self._free.acquire(timeout=self._timeout_s):
            return self._failed(timeout=True)
        task = self._pool.submit(self._read, user, known_revision, items_of, history)
        task.add_done_callback(lambda _: self._free.release())
        try:
            snapshot = task.result(max(deadline - time.monotonic(), 0.0))
        except FutureTimeout:
            task.cancel()
            return self._failed(timeout=True)
        except StoreError:
            return self._failed(timeout=False)
        if self._retry_at or self._timeouts:
            with self._lock:
                self._retry_at, self._timeouts = 0.0, 0
        return snapshot

    def _read(
        self,
        user: str,
        known_revision: int,
        items_of: Callable[[StoredHistory], Collection[str]],
        with_history: bool,
    ) -> StoreSnapshot:
        history = StoredHistory()
        if with_history:
            history = self._store.history(user, limit=self._limit, known_revision=known_revision)
        return StoreSnapshot(
            history=history,
            user=self._store.user(user),
            items=self._store.items(list(items_of(history))),
        )

    def _failed(self, *, timeout: bool) -> StoreSnapshot:
        with self._lock:
            self._timeouts += timeout
            if not timeout or self._timeouts >= _TIMEOUTS_IN_A_ROW:
                self._retry_at = time.monotonic() + self._retry_s
        return _UNAVAILABLE

    def close(self) -> None:
        """Stop the threads; running reads end on their own."""
        self._pool.shutdown(wait=False, cancel_futures=True)
