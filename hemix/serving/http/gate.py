"""A bounded queue before a few threads: what the event loop must not do itself.

Whoever finds the queue full is refused at once (503), whoever waits or works longer than the
deadline is answered 504, and work whose client has gone is never begun. A place is free again when
its thread is, not when its client is. Knows nothing of the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hemix.serving.http.refusal import Refusal

__all__ = ["ClientGone", "Done", "Gate"]

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What came of the work, and how long it waited for a thread."""

    value: T
    waited_ms: float


class Gate:
    """``workers`` threads and ``waiting`` places before them. One event loop uses it."""

    def __init__(self, name: str, *, workers: int, waiting: int, deadline_seconds: float) -> None:
        self.name = name
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"hemix-{name}")
        self._workers = workers
        self._places = workers + waiting
        self._deadline = deadline_seconds
        self.taken = 0
        """Places in use, working ones too."""

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return max(self.taken - self._workers, 0)

    async def run(
        self, work: Callable[[], T], gone: Callable[[], Awaitable[None]] | None = None
    ) -> Done[T]:
        """Do ``work`` in a thread.

        ``gone`` returns when nobody waits any more. Raises Refusal (503, 504), ClientGone, or what
        the work raises.
        """
        if self.taken >= self._places:
            raise Refusal(
                503,
                "overloaded",
                f"{self.name}: {self._places} requests are in work; try again",
                retry_after=1,
            )
        loop = asyncio.get_running_loop()
        asked = time.perf_counter()

        box = [work]

        def timed() -> Done[T]:
            waited_ms = (time.perf_counter() - asked) * 1000
            return Done(box.pop()(), waited_ms)

        self.taken += 1
        future = self._pool.submit(timed)
        future.add_done_callback(lambda done: self._release(loop, done, box))
        answer = asyncio.wrap_future(future)
        watch = asyncio.ensure_future(gone()) if gone is not None else None
        awaited: list[asyncio.Future[Any]] = [answer] if watch is None else [answer, watch]
        try:
            await asyncio.wait(awaited, timeout=self._deadline, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if watch is not None and watch.done():
                raise ClientGone
            raise Refusal(
                504, "deadline", f"{self.name}: not done within {self._deadline:g} s", retry_after=1
            )
        finally:
            answer.cancel()
            if watch is not None:
                watch.cancel()

    def _release(
        self, loop: asyncio.AbstractEventLoop, done: Future[Done[T]], box: list[Callable[[], T]]
    ) -> None:
        # a cancelled task stays in the pool's queue, and would hold its body there after its place
        # is given back
        box.clear()
        if not done.cancelled():
            done.exception()
        with contextlib.suppress(
            RuntimeError
        ):  # a thread that outlives the loop has no place to give back
            loop.call_soon_threadsafe(self._free)

    def _free(self) -> None:
        self.taken -= 1

    def close(self) -> None:
        """Take no more work; what runs is let finish."""
        self._pool.shutdown(wait=True, cancel_futures=True)
