"""What the routes work with, and the limits they keep.

Built once a server; knows neither paths nor bodies.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from hemix.errors import StoreError
from hemix.measure import processors
from hemix.serving.http.access import Access
from hemix.serving.http.body import Budget
from hemix.serving.http.gate import Gate
from hemix.serving.http.metrics import Metrics
from hemix.serving.models import Models
from hemix.serving.quiet import Quiet
from hemix.serving.stores import Store

__all__ = ["Limits", "Service"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes."""

    body_bytes: int = 8 * 2**20
    all_bodies_bytes: int = 256 * 2**20
    """Of all requests in work together"""
    requests: int = 1_024
    """In work at a time, reading their bodies included and probes apart"""
    items: int = 2_000
    body_seconds: float = 10.0
    """For a whole body to arrive"""
    deadline_seconds: float = 5.0
    """For an answer, from the moment that the body is there"""
    workers: int = field(default_factory=processors)
    """Rankings at a time"""
    waiting: int = 64
    """Rankings, and bodies of events, that may wait"""
    future_ms: int = 60_000
    """An event's clock may be so far ahead"""
    strict: bool = False
    """Refuse users, items and columns that the run does not know"""


@dataclass(eq=False)
class Service:
    """A server's parts."""

    models: Models
    store: Store
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    quiet: Quiet = field(default_factory=Quiet)
    """Of requests in work, probes apart"""

    def __post_init__(self) -> None:
        limits = self.limits
        self.rank_gate = Gate(
            "rank",
            workers=limits.workers,
            waiting=limits.waiting,
            deadline_seconds=limits.deadline_seconds,
        )
        self.store_gate = Gate(
            "store", workers=2, waiting=limits.waiting, deadline_seconds=limits.deadline_seconds
        )
        self.probe_gate = Gate("probe", workers=1, waiting=8, deadline_seconds=2.0)
        """Of its own, so that neither a long queue nor a stuck store makes an alive server look
        dead
        """
        self.admin_gate = Gate("admin", workers=2, waiting=2, deadline_seconds=600.0)
        """Two, so that a load is told at once of another one under way"""
        for gate in (self.rank_gate, self.store_gate):
            self.metrics.watch(gate.name, lambda gate=gate: gate.taken)  # type: ignore[misc]
        self.metrics.watch("all", lambda: self.quiet.working)
        self.bodies = Budget(limits.all_bodies_bytes)
        self._pinged = (0.0, "not asked yet")

    def ping_store(self) -> str | None:
        """None where the store answers, else why not. Asked at most once in half a second."""
        asked, problem = self._pinged
        if time.monotonic() - asked < 0.5:
            return problem or None
        try:
            self.store.ping()
            problem = ""
        except StoreError as error:
            problem = str(error)
            self.metrics.store_errors.labels("ping").inc()
        self._pinged = (time.monotonic(), problem)
        return problem or None

    def close(self) -> None:
        """Finish what runs, then let go of models and store."""
        for gate in (self.rank_gate, self.store_gate, self.admin_gate, self.probe_gate):
            gate.close()
        self.models.close()
        with contextlib.suppress(StoreError):
            self.store.close()
