"""Housekeeping that can wait until nobody waits for an answer.

Python runs one thread at a time, so a few milliseconds of it are added to whatever is being
answered meanwhile.
"""

from __future__ import annotations

import threading

__all__ = ["Quiet"]


class Quiet:
    """Counts what is in work; any thread may count and any may wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._none = threading.Event()
        self._none.set()
        self.working = 0

    def begin(self) -> None:
        """Something is in work."""
        with self._lock:
            self.working += 1
            self._none.clear()

    def end(self) -> None:
        """It is done, its answer included."""
        with self._lock:
            self.working -= 1
            if not self.working:
                self._none.set()

    def wait(self, seconds: float) -> bool:
        """Until nothing is in work, but no longer than ``seconds``; False where that was too
        short.
        """
        return self._none.wait(seconds)
