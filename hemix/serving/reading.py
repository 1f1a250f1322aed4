"""What a ranking reads from the store, within a bounded time, and what becomes of it when the store
fails.

A store that failed, or was too slow several times in a row, is left alone for a moment, so that
requests do not queue up behind it; then one request tries again. Knows no model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field

from hemix.errors import StoreError
from hemix.serving.stores import Store
from hemix.serving.types import Features, History

__all__ = ["Found", "Reader"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the store said."""

    history: History = field(default_factory=History)
    user: Features = field(default_factory=Features)
    items: dict[str, Features] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    """What could not be read"""


_LATE_IN_A_ROW = 3
"""A machine that is busy for a moment makes no store down."""

LOST = Found(degraded=("history", "features"))


class Reader:
    """Reads for many threads at a time. Call :meth:`close` when done."""

    def __init__(
        self,
        store: Store,
        *,
        limit: int,
        timeout_s: float = 0.25,
        rest_s: float = 1.0,
        readers: int = 4,
    ) -> None:
        """``limit``: events of a user.

        ``timeout_s``: a reading may take so long; ``rest_s``: after a failure none is tried for so
        long.
        """
        self._store, self._limit = store, limit
        self._timeout_s, self._rest_s = timeout_s, rest_s
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="hemix-store")
        self._free = threading.Semaphore(4 * readers)
        self._lock = threading.Lock()
        self._try_again = 0.0
        self._late = 0

    def read(
        self,
        user: str,
        known: int,
        items: Callable[[History], Collection[str]],
        *,
        history: bool = True,
    ) -> Found:
        """The history (of one whose revision ``known`` is had already, only what is new) and
        features of a user, and of the ``items`` that go with that history. Never raises: what the
        store could not say in time is named in ``degraded``.
        """
        now = time.monotonic()
        until = now + self._timeout_s
        with self._lock:
            if now < self._try_again:
                return LOST
            if self._try_again:
                self._try_again = (
                    now + self._rest_s
                )  # this one tries; the others wait for what it finds
        if not self._free.acquire(
            timeout=self._timeout_s
        ):  # many ask at once: not yet a store that is late
            return self._failed(late=True)
        task = self._pool.submit(self._read, user, known, items, history)
        task.add_done_callback(lambda _: self._free.release())
        try:
            found = task.result(max(until - time.monotonic(), 0.0))
        except Late:
            task.cancel()
            return self._failed(late=True)
        except StoreError:
            return self._failed(late=False)
        if self._try_again or self._late:
            with self._lock:
                self._try_again, self._late = 0.0, 0
        return found

    def _read(
        self, user: str, known: int, items: Callable[[History], Collection[str]], history: bool
    ) -> Found:
        events = (
            self._store.history(user, limit=self._limit, known_revision=known)
            if history
            else History()
        )
        return Found(
            history=events,
            user=self._store.user(user),
            items=self._store.items(list(items(events))),
        )

    def _failed(self, *, late: bool) -> Found:
        with self._lock:
            self._late += late
            if not late or self._late >= _LATE_IN_A_ROW:
                self._try_again = time.monotonic() + self._rest_s
        return LOST

    def close(self) -> None:
        """Let go of the threads. Readings under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
