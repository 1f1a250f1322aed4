"""Work for many threads, done together: what waits while others work is taken in one go; a large
piece that finds slots free takes them.

Nobody waits for company: a thread that finds a free slot works at once, on whatever has gathered by
then, and the others get their results from it. So an idle server adds no delay and answers by all
its cores, and a busy one joins small pieces and divides none. Knows nothing of what the work is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import pairwise
from typing import Generic, TypeVar

__all__ = ["Joint"]

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Part = TypeVar("Part")


class _Ticket(Generic[Piece, Result]):
    __slots__ = ("done", "error", "piece", "result", "size")

    def __init__(self, piece: Piece, size: int) -> None:
        self.piece, self.size = piece, size
        self.done = False
        self.result: Result | None = None
        self.error: BaseException | None = None


class Joint(Generic[Piece, Result]):
    """Runs ``work`` on pieces from many threads, in the order of their arrival.

    Call :meth:`close` when done.
    """

    def __init__(
        self, work: Callable[[Sequence[Piece]], Sequence[Result]], *, slots: int, most: int
    ) -> None:
        """``work``: pieces to their results; called by at most ``slots`` threads at a time.

        ``most``: the summed size of pieces that are joined; a larger one goes alone.
        """
        assert slots > 0
        self._work, self._slots, self._most = work, slots, most
        self._waiting: deque[_Ticket[Piece, Result]] = deque()
        self._changed = threading.Condition()
        self._working = 0
        self._helpers = (
            ThreadPoolExecutor(slots - 1, thread_name_prefix="hemix-helper") if slots > 1 else None
        )

    def run(self, piece: Piece, size: int) -> Result:
        """The result of one piece.

        Raises what ``work`` raised for it: where joined pieces fail, each is tried again alone.
        """
        ticket: _Ticket[Piece, Result] = _Ticket(piece, size)
        with self._changed:
            self._waiting.append(ticket)
        while True:
            with self._changed:
                while not ticket.done and (self._working >= self._slots or not self._waiting):
                    self._changed.wait()
                if ticket.done:
                    break
                taken = self._take()
                self._working += 1
            self._do(taken)
        if ticket.error is not None:
            error, ticket.error = (
                ticket.error,
                None,
            )  # else the error, its frames and what they hold are one ring
            try:
                raise error
            finally:
                del error
        return ticket.result  # type: ignore[return-value]

    def divide(self, part: Callable[[int, int], Part], size: int, least: int) -> list[Part]:
        """``part(first, last)`` of 0 ..

        ``size``, in as many parts of at least ``least`` as there are slots that nobody needs and
        the caller's own, the others by threads that help. To be called by one who works in a slot.
        What no helper has begun when the caller is done with its own, the caller does too. Raises
        what a part raised.
        """
        with self._spare(size // least - 1) as spare:
            cuts = [size * n // (1 + spare) for n in range(2 + spare)]
            own, *others = pairwise(cuts)
            asked = list[Future[Part]]()
            try:
                for other in others:
                    assert self._helpers is not None
                    asked.append(self._helpers.submit(part, *other))
                done = [part(*own)]
                for other, future in zip(others, asked, strict=True):
                    done.append(part(*other) if future.cancel() else future.result())
                return done
            finally:
                wait([future for future in asked if not future.cancel()])
                asked.clear()  # a future holds its error, and that these frames
                future = None  # type: ignore[assignment]

    def close(self) -> None:
        """Let go of the helping threads. What runs is let finish."""
        if self._helpers is not None:
            self._helpers.shutdown(wait=False)

    @contextmanager
    def _spare(self, most: int) -> Iterator[int]:
        """How many slots, at most ``most``, are the block's beside its own: those that are free
        while nobody waits.
        """
        with self._changed:
            spare = (
                max(min(most, self._slots - max(self._working, 1)), 0) if not self._waiting else 0
            )
            self._working += spare
        try:
            yield spare
        finally:
            if spare:
                with self._changed:
                    self._working -= spare
                    self._changed.notify_all()

    def _take(self) -> list[_Ticket[Piece, Result]]:
        taken = [self._waiting.popleft()]
        total = taken[0].size
        while self._waiting and total + self._waiting[0].size <= self._most:
            taken.append(self._waiting.popleft())
            total += taken[-1].size
        return taken

    def _do(self, taken: list[_Ticket[Piece, Result]]) -> None:
        try:
            if not self._joined(taken):
                for ticket in taken:
                    self._alone(ticket)
        finally:
            with self._changed:
                for ticket in taken:
                    ticket.done = True
                self._working -= 1
                self._changed.notify_all()

    def _joined(self, taken: list[_Ticket[Piece, Result]]) -> bool:
        """Whether several pieces could be done in one go."""
        if len(taken) == 1:
            return False
        try:
            results = self._work([ticket.piece for ticket in taken])
            for ticket, result in zip(taken, results, strict=True):
                ticket.result = result
        except Exception:  # of one of them; which one, each says alone
            return False
        return True

    def _alone(self, ticket: _Ticket[Piece, Result]) -> None:
        try:
            (ticket.result,) = self._work([ticket.piece])
        except BaseException as error:
            ticket.error = error
