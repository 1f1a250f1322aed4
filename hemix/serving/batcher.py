"""Dynamic batching: requests that queue while workers are busy are scored together.

A thread that finds a free slot starts at once with the requests queued so far; it never waits for
more. An idle server thus adds no delay and divides a large request among free slots; a busy one
batches small requests and divides none.

There are no worker threads. A thread in :meth:`DynamicBatcher.run` brings one request, a ticket::

    queued -- some thread takes it into a batch --> running -- the batch ends --> done

Under the lock ``_changed``:

- A slot is in use for every batch that runs, and for every range that :meth:`DynamicBatcher.divide`
  gives to a helper; never more than there are slots.
- A thread whose ticket is not done takes the next batch as soon as a slot is free and tickets are
  queued, whether its own is among them or not. Otherwise it sleeps.

So no slot stays free while tickets are queued. There are as many threads as tickets that are not
done: the queued ones, and at least one in each running batch. Only one thread runs each batch, so
at least as many threads sleep as tickets are queued. Whoever frees a slot wakes them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import pairwise
from typing import Generic, TypeVar

__all__ = ["DynamicBatcher"]

Request = TypeVar("Request")
Result = TypeVar("Result")
RangeResult = TypeVar("RangeResult")


class _Ticket(Generic[Request, Result]):
    """A request and its result."""

    __slots__ = ("done", "error", "request", "result", "size")

    def __init__(self, request: Request, size: int) -> None:
        self.request, self.size = request, size
        self.done = False
        self.result: Result | None = None
        self.error: BaseException | None = None


class DynamicBatcher(Generic[Request, Result]):
    """Runs ``work`` on requests from many threads, in the order of their arrival.

    Call :meth:`close` when done.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Request]], Sequence[Result]],
        *,
        slots: int,
        max_batch_size: int,
    ) -> None:
        """Create the slots.

        Args:
            work: Returns the results of a batch of requests.
            slots: Maximum number of threads that run ``work`` at a time.
            max_batch_size: Maximum summed size of a batch; a larger request runs alone.
        """
        assert slots > 0
        self._work, self._slots, self._max_batch_size = work, slots, max_batch_size
        self._queue: deque[_Ticket[Request, Result]] = deque()
        self._changed = threading.Condition()
        self._slots_in_use = 0
        self._helpers = (
            ThreadPoolExecutor(slots - 1, thread_name_prefix="hemix-helper") if slots > 1 else None
        )

    def run(self, request: Request, size: int) -> Result:
        """Return the result of one request, computed by this or another thread.

        A failed batch is repeated one by one, so that a request fails by its own error only.

        Args:
            request: The request.
            size: Its size.
        """
        ticket: _Ticket[Request, Result] = _Ticket(request, size)
        with self._changed:
            self._queue.append(ticket)
        while batch := self._batch_to_run(ticket):
            self._run_batch(batch)
        if ticket.error is not None:
            # the error's traceback refers to this frame: without these deletions, a cycle
            error, ticket.error = ticket.error, None
            try:
                raise error
            finally:
                del error
        return ticket.result  # type: ignore[return-value]

    def divide(
        self, work: Callable[[int, int], RangeResult], size: int, min_size: int
    ) -> list[RangeResult]:
        """Divide a request that holds a slot among it and the free slots.

        A range that no helper has started when the caller is done is computed by the caller. After
        an error the ranges that have not started are cancelled, and the running ones are awaited,
        because they use the caller's request.

        Args:
            work: Returns the result of the range from first to last (exclusive).
            size: Size of the request.
            min_size: Minimum size of a range.

        Returns:
            The results of the ranges, in their order. The first error of a range is raised.
        """
        with self._reserve_free_slots(size // min_size - 1) as free:
            bounds = [size * n // (1 + free) for n in range(2 + free)]
            own, *others = pairwise(bounds)
            futures = list[Future[RangeResult]]()
            try:
                for other in others:
                    assert self._helpers is not None
                    futures.append(self._helpers.submit(work, *other))
                results = [work(*own)]
                for other, future in zip(others, futures, strict=True):
                    results.append(work(*other) if future.cancel() else future.result())
                return results
            finally:
                wait([future for future in futures if not future.cancel()])
                # a future holds its error, whose traceback holds these frames
                futures.clear()
                future = None  # type: ignore[assignment]

    def close(self) -> None:
        """Stop the helper threads; running work ends on its own."""
        if self._helpers is not None:
            self._helpers.shutdown(wait=False)

    @contextmanager
    def _reserve_free_slots(self, max_slots: int) -> Iterator[int]:
        """Reserve up to ``max_slots`` slots for the block, unless requests are queued."""
        with self._changed:
            free = 0
            if not self._queue:
                free = max(min(max_slots, self._slots - max(self._slots_in_use, 1)), 0)
            self._slots_in_use += free
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._slots_in_use -= free
                    self._changed.notify_all()

    def _batch_to_run(
        self, ticket: _Ticket[Request, Result]
    ) -> list[_Ticket[Request, Result]] | None:
        """Wait until the ticket is done, then return None; or take a slot and return a batch."""
        with self._changed:
            while not ticket.done and (self._slots_in_use >= self._slots or not self._queue):
                self._changed.wait()
            if ticket.done:
                return None
            self._slots_in_use += 1
            return self._take_batch()

    def _take_batch(self) -> list[_Ticket[Request, Result]]:
        """Take the first tickets from the queue, at least one; the caller holds the lock."""
        batch = [self._queue.popleft()]
        total = batch[0].size
        while self._queue and total + self._queue[0].size <= self._max_batch_size:
            batch.append(self._queue.popleft())
            total += batch[-1].size
        return batch

    def _run_batch(self, batch: list[_Ticket[Request, Result]]) -> None:
        try:
            if len(batch) == 1 or not self._try_together(batch):
                for ticket in batch:
                    self._run_alone(ticket)
        finally:
            with self._changed:
                for ticket in batch:
                    ticket.done = True
                self._slots_in_use -= 1
                self._changed.notify_all()

    def _try_together(self, batch: list[_Ticket[Request, Result]]) -> bool:
        """Run a batch; return False where it fails."""
        try:
            results = self._work([ticket.request for ticket in batch])
            for ticket, result in zip(batch, results, strict=True):
                ticket.result = result
        except Exception:  # each request runs again alone and reports its own error
            return False
        return True

    def _run_alone(self, ticket: _Ticket[Request, Result]) -> None:
        try:
            (ticket.result,) = self._work([ticket.request])
        except BaseException as error:
            ticket.error = error
