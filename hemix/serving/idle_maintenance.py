"""Maintenance work that waits until no request is in work.

Python runs one thread at a time, so maintenance would delay the requests that run meanwhile.
"""

from __future__ import annotations

import threading

__all__ = ["IdleMaintenance"]


class IdleMaintenance:
    """Counts requests in work, and lets maintenance wait for an idle moment. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self.active_requests = 0

    def request_started(self) -> None:
        """Count a request that starts."""
        with self._lock:
            self.active_requests += 1
            self._idle.clear()

    def request_finished(self) -> None:
        """Count a request whose response has been sent."""
        with self._lock:
            self.active_requests -= 1
            if not self.active_requests:
                self._idle.set()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait at most ``seconds`` until no request is in work; return whether that is so."""
        return self._idle.wait(seconds)
