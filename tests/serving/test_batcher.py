"""Pieces of many threads: every one gets its own result or its own error, and what waits is
joined.
"""

from __future__ import annotations

import contextlib
import gc
import random
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hemix.serving.batcher import DynamicBatcher, _Ticket


class Unlucky(Exception):
    pass


class Work:
    """Doubles numbers; can be held up, and refuses 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.at_once = self.most_at_once = 0
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, requests: Sequence[int]) -> list[int]:
        with self._lock:
            self.batches.append(list(requests))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.release()
        assert self.go.wait(20)
        with self._lock:
            self.at_once -= 1
        if 13 in requests:
            raise Unlucky
        return [2 * request for request in requests]


def test_queued_work_is_batched_and_large_requests_run_alone() -> None:
    work = Work()
    batcher: DynamicBatcher[int, int] = DynamicBatcher(work, slots=1, max_batch_size=10)
    assert batcher.run(1, 5) == 2, "with a free slot at once"
    work.go.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.run, 2, 5)
        assert work.began.acquire(timeout=20) and work.began.acquire(timeout=20)
        others = []
        for request, size in ((3, 4), (4, 4), (5, 50), (6, 4), (7, 4), (8, 4)):
            others.append(pool.submit(batcher.run, request, size))
            while len(batcher._queue) < len(others):
                pass
        work.go.set()
        assert [future.result(20) for future in (first, *others)] == [4, 6, 8, 10, 12, 14, 16]
    assert work.batches == [[1], [2], [3, 4], [5], [6, 7], [8]]
    assert work.most_at_once == 1


def test_an_error_reaches_its_own_request_and_no_other_of_the_batch() -> None:
    work = Work()
    batcher: DynamicBatcher[int, int] = DynamicBatcher(work, slots=1, max_batch_size=10)
    with pytest.raises(Unlucky):
        batcher.run(13, 1)
    work.batches.clear()
    work.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher.run, 1, 1)
        while not work.batches:
            pass
        others = []
        for request in (2, 13, 3):
            others.append(pool.submit(batcher.run, request, 1))
            while len(batcher._queue) < len(others):
                pass
        work.go.set()
        assert [future.result(20) for future in (first, others[0], others[2])] == [2, 4, 6]
        with pytest.raises(Unlucky):
            others[1].result(20)
    assert work.batches == [[1], [2, 13, 3], [2], [13], [3]]
    assert batcher.run(1, 1) == 2


def test_no_slot_stays_free_while_a_request_is_queued() -> None:
    """Whichever thread took the third request, the fourth starts beside it."""
    for _ in range(20):
        began, gates = threading.Semaphore(0), [threading.Event() for _ in range(4)]

        def work(
            requests: Sequence[int], gates: list[threading.Event] = gates, began: Any = began
        ) -> list[int]:
            began.release()
            assert all(gates[request].wait(20) for request in requests)
            return list(requests)

        batcher: DynamicBatcher[int, int] = DynamicBatcher(work, slots=2, max_batch_size=1)
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(batcher.run, request, 1) for request in range(2)]
            assert began.acquire(timeout=20) and began.acquire(timeout=20)
            for request in (2, 3):
                futures.append(pool.submit(batcher.run, request, 1))
                while len(batcher._queue) < request - 1:
                    pass
            gates[0].set()
            assert began.acquire(timeout=20), "the third"
            gates[1].set()
            assert began.acquire(timeout=20), "the fourth, while the third runs"
            gates[2].set(), gates[3].set()
            assert [future.result(20) for future in futures] == [0, 1, 2, 3]
        batcher.close()


@pytest.mark.parametrize("slots", [1, 3])
def test_answers_are_never_mixed_up(slots: int) -> None:
    work = Work()
    batcher: DynamicBatcher[int, int] = DynamicBatcher(work, slots=slots, max_batch_size=20)
    draw = random.Random(0)
    requests = [request for request in range(2_000) if request != 13]
    with ThreadPoolExecutor(16) as pool:
        assert list(
            pool.map(lambda request: batcher.run(request, draw.randrange(1, 15)), requests)
        ) == [2 * request for request in requests]
    assert sorted(request for batch in work.batches for request in batch) == requests
    assert work.most_at_once <= slots


def test_a_large_request_is_divided_among_free_slots() -> None:
    def work(requests: Sequence[int]) -> list[list[tuple[int, int]]]:
        return [
            batcher.divide(lambda first, last: (first, last), request, 10) for request in requests
        ]

    batcher: DynamicBatcher[int, list[tuple[int, int]]] = DynamicBatcher(
        work, slots=4, max_batch_size=1
    )
    assert batcher.run(9, 9) == [(0, 9)], "too small to divide"
    assert batcher.run(25, 25) == [(0, 12), (12, 25)]
    assert batcher.run(103, 103) == [(0, 25), (25, 51), (51, 77), (77, 103)], (
        "no more than there are slots"
    )
    batcher.close()


def test_a_request_is_not_divided_among_slots_in_use_or_awaited() -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def work(requests: Sequence[int]) -> list[int]:
        if requests[0] == 0:
            begun.release()
            assert go.wait(20)
            return [0]
        return [len(batcher.divide(lambda first, last: last - first, 100, 10)) for _ in requests]

    batcher: DynamicBatcher[int, int] = DynamicBatcher(work, slots=3, max_batch_size=1)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher.run, 0, 1)
        assert begun.acquire(timeout=20)
        assert batcher.run(1, 1) == 2, "one of three is taken"
        second = pool.submit(batcher.run, 0, 1)
        assert begun.acquire(timeout=20)
        assert batcher.run(1, 1) == 1
        go.set()
        assert (first.result(20), second.result(20)) == (0, 0)
    assert batcher.run(1, 1) == 3, "all slots are free again"
    assert batcher.divide(lambda first, last: last - first, 100, 10) == [33, 33, 34], (
        "as many for one outside of run"
    )
    batcher._queue.append(_Ticket(1, 1))
    assert batcher.divide(lambda first, last: last - first, 100, 10) == [100], "somebody waits"
    batcher.close()
    alone: DynamicBatcher[int, int] = DynamicBatcher(work, slots=1, max_batch_size=1)
    assert alone.divide(lambda first, last: last - first, 300, 10) == [300]


@pytest.mark.parametrize("slots", [1, 3])
def test_a_failed_request_leaves_nothing_for_the_collector(slots: int) -> None:
    class Held:
        """What a request holds."""

    def part(first: int, _last: int) -> int:
        if first >= (100 if slots > 1 else 0):
            raise ValueError("unlucky")
        return first

    batcher: DynamicBatcher[Held, int] = DynamicBatcher(
        lambda requests: [sum(batcher.divide(part, 300, 10)) for _ in requests],
        slots=slots,
        max_batch_size=1,
    )
    gc.collect()
    gc.disable()
    try:
        request = Held()
        held = weakref.ref(request)
        with contextlib.suppress(ValueError):
            batcher.run(request, 1)
        del request
        until = time.monotonic() + 20
        while (
            held() is not None and time.monotonic() < until
        ):  # a helper's thread may be about to let go
            time.sleep(0.01)
        assert held() is None
    finally:
        gc.enable()
    batcher.close()


def test_a_failing_part_fails_its_request_after_all_parts_ended() -> None:
    def part(first: int, _last: int) -> None:
        began.add(first)
        if first != bad:
            time.sleep(0.05 if first < 75 else 0.3)
        ended.add(first)
        if first == bad:
            raise Unlucky

    batcher: DynamicBatcher[int, int] = DynamicBatcher(
        lambda requests: [len(batcher.divide(part, 100, 25)) for _ in requests],
        slots=4,
        max_batch_size=1,
    )
    for bad in (0, 50, 0):  # noqa: B007  # part reads it
        began, ended = set[int](), set[int]()
        with pytest.raises(Unlucky):
            batcher.run(1, 1)
        assert ended == began, "nothing goes on behind it"
    batcher.close()


def test_what_no_helper_has_begun_the_caller_does_too() -> None:
    batcher: DynamicBatcher[int, list[int]] = DynamicBatcher(
        lambda requests: [batcher.divide(part, 30, 10) for _ in requests], slots=3, max_batch_size=1
    )
    go, by = threading.Event(), dict[int, str]()

    def part(first: int, _last: int) -> int:
        by[first] = threading.current_thread().name
        return first

    assert batcher._helpers is not None
    stuck = [batcher._helpers.submit(go.wait, 20) for _ in range(2)]
    assert batcher.run(1, 1) == [0, 10, 20]
    assert set(by.values()) == {threading.current_thread().name}
    go.set()
    assert all(one.result(20) for one in stuck)
    batcher.close()
