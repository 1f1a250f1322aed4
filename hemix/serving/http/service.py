"""The parts of a server that its routes share, and the executors that bound its work.

anyio's ``CapacityLimiter`` bounds the threads, but not the queue before them. A server that is too
slow must refuse work instead of queueing it, so :class:`BoundedExecutor` counts both.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from hemix.errors import StoreError
from hemix.measure import processors
from hemix.serving.http.admission import Access, BodyBudget
from hemix.serving.http.messages import ApiError
from hemix.serving.idle_maintenance import IdleMaintenance
from hemix.serving.loaded_models import LoadedModels
from hemix.serving.metrics import Metrics
from hemix.serving.stores import Store

__all__ = ["BoundedExecutor", "ClientGone", "Completed", "RequestLimits", "Service"]

T = TypeVar("T")

_PING_INTERVAL_SECONDS = 0.5


class ClientGone(Exception):
    """The client has closed its connection."""


@dataclass(frozen=True, slots=True)
class Completed(Generic[T]):
    """A result, and how long its work waited for a thread."""

    value: T
    waited_ms: float


class BoundedExecutor:
    """A few threads behind a bounded queue. For one event loop.

    A full queue refuses work at once (503). Work that misses the deadline is answered with 504.
    Work whose client has gone before it starts is dropped. A slot is free again when its thread is
    done, not when its client has gone.
    """

    def __init__(self, name: str, *, workers: int, queue: int, deadline_seconds: float) -> None:
        """Create the threads.

        Args:
            name: Name for metrics, threads and messages.
            workers: Number of threads.
            queue: Maximum number of calls that wait for a thread.
            deadline_seconds: Maximum time of a call, with its wait.
        """
        self.name = name
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"hemix-{name}")
        self._workers = workers
        self._slots = workers + queue
        self._deadline = deadline_seconds
        self.in_use = 0
        """Slots in use: calls that run or wait"""

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a thread."""
        return max(self.in_use - self._workers, 0)

    async def run(
        self, work: Callable[[], T], client_gone: Callable[[], Awaitable[None]] | None = None
    ) -> Completed[T]:
        """Run ``work`` in a thread.

        Args:
            work: The work; what it raises is raised here.
            client_gone: Returns when the client has closed its connection.

        Raises:
            ApiError: 503 or 504.
            ClientGone: The client has closed its connection.
        """
        future = self._submit(work)
        result = asyncio.wrap_future(future)
        watcher = asyncio.ensure_future(client_gone()) if client_gone is not None else None
        pending: list[asyncio.Future[Any]] = [result] if watcher is None else [result, watcher]
        try:
            await asyncio.wait(pending, timeout=self._deadline, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if watcher is not None and watcher.done():
                raise ClientGone
            message = f"{self.name}: not done within {self._deadline:g} s"
            raise ApiError(504, "deadline", message, retry_after=1)
        finally:
            result.cancel()
            if watcher is not None:
                watcher.cancel()

    def _submit(self, work: Callable[[], T]) -> Future[Completed[T]]:
        if self.in_use >= self._slots:
            message = f"{self.name}: {self._slots} requests are in work; try again"
            raise ApiError(503, "overloaded", message, retry_after=1)
        loop, submitted = asyncio.get_running_loop(), time.perf_counter()
        # the pool's queue keeps cancelled calls; clearing the list frees their request bodies
        work_list = [work]

        def run_timed() -> Completed[T]:
            waited_ms = (time.perf_counter() - submitted) * 1000
            return Completed(work_list.pop()(), waited_ms)

        def release(done: Future[Completed[T]]) -> None:
            work_list.clear()
            if not done.cancelled():
                done.exception()  # marks it as retrieved
            with contextlib.suppress(RuntimeError):  # the loop may have ended before the thread
                loop.call_soon_threadsafe(self._release_slot)

        self.in_use += 1
        future = self._pool.submit(run_timed)
        future.add_done_callback(release)
        return future

    def _release_slot(self) -> None:
        self.in_use -= 1

    def close(self) -> None:
        """Refuse further work, and return when running work is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """Limits on requests."""

    body_bytes: int = 8 * 2**20
    """Maximum decompressed body."""
    all_bodies_bytes: int = 256 * 2**20
    """Maximum memory for the bodies of all requests in work."""
    requests: int = 1_024
    """Maximum requests in work, including those whose body is being read, probes apart."""
    items: int = 2_000
    """Maximum items of a ranking."""
    body_seconds: float = 10.0
    """Maximum time for a body to arrive."""
    deadline_seconds: float = 5.0
    """Maximum time for an answer after the body has arrived."""
    workers: int = field(default_factory=processors)
    """Threads that decode, encode and score rankings."""
    queue: int = 64
    """Maximum rankings, and bodies of events, that wait for a thread."""
    future_ms: int = 60_000
    """Maximum lead of an event's time over the server's clock, in ms."""
    strict: bool = False
    """Refuse users, items and columns that the run does not know."""


@dataclass(eq=False)
class Service:
    """Models, store, limits and executors of one server."""

    models: LoadedModels
    store: Store
    access: Access = field(default_factory=Access)
    limits: RequestLimits = field(default_factory=RequestLimits)
    metrics: Metrics = field(default_factory=Metrics)
    idle: IdleMaintenance = field(default_factory=IdleMaintenance)
    """Counts requests in work, probes apart."""

    def __post_init__(self) -> None:
        queue, deadline = self.limits.queue, self.limits.deadline_seconds
        self.rank_executor = BoundedExecutor(
            "rank", workers=self.limits.workers, queue=queue, deadline_seconds=deadline
        )
        self.store_executor = BoundedExecutor(
            "store", workers=2, queue=queue, deadline_seconds=deadline
        )
        # a long queue or a slow store must not make the server look dead to its probes
        self.probe_executor = BoundedExecutor("probe", workers=1, queue=8, deadline_seconds=2.0)
        # two workers, so that a second load is refused at once while the first one runs
        self.admin_executor = BoundedExecutor("admin", workers=2, queue=2, deadline_seconds=600.0)
        self.metrics.watch_queue("rank", lambda: self.rank_executor.in_use)
        self.metrics.watch_queue("store", lambda: self.store_executor.in_use)
        self.metrics.watch_queue("all", lambda: self.idle.active_requests)
        self.bodies = BodyBudget(self.limits.all_bodies_bytes)
        self._last_ping: tuple[float, str | None] = (0.0, "not pinged yet")

    def ping_store(self) -> str | None:
        """Return why the store does not answer, or None; pings at most twice a second."""
        pinged_at, problem = self._last_ping
        if time.monotonic() - pinged_at < _PING_INTERVAL_SECONDS:
            return problem
        try:
            self.store.ping()
            problem = None
        except StoreError as error:
            problem = str(error)
            self.metrics.store_errors.labels("ping").inc()
        self._last_ping = (time.monotonic(), problem)
        return problem

    def close(self) -> None:
        """Finish running work, then close models and store."""
        for executor in (
            self.rank_executor,
            self.store_executor,
            self.admin_executor,
            self.probe_executor,
        ):
            executor.close()
        self.models.close()
        with contextlib.suppress(StoreError):
            self.store.close()
