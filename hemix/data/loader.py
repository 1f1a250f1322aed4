"""Threads that make batches ahead of the loop that uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["read_ahead"]

Key = TypeVar("Key")
Batch = TypeVar("Batch")

_AHEAD = 1
"""Finished batches that wait, in addition to the one of every thread"""


def read_ahead(make: Callable[[Key], Batch], keys: Iterable[Key], workers: int) -> Iterator[Batch]:
    """Yield ``make(key)`` of every key, in order.

    Args:
        make: Makes one batch; called from the threads.
        keys: What batches to make.
        workers: Threads that make batches ahead; 0: none, a batch is made when it is needed.
    """
    if not workers:
        yield from map(make, keys)
        return
    remaining = iter(keys)
    with ThreadPoolExecutor(workers, thread_name_prefix="hemix-loader") as pool:
        waiting: deque[Future[Batch]] = deque(
            pool.submit(make, key) for key in islice(remaining, workers + _AHEAD)
        )
        try:
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(make, key) for key in islice(remaining, 1))
                yield batch
        finally:
            for future in waiting:
                future.cancel()
