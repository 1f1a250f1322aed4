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

import pytest

from hemix.serving.joint import Joint, _Ticket


class Work:
    """Doubles numbers; can be held up, and refuses 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.at_once = self.most_at_once = 0
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, pieces: Sequence[int]) -> list[int]:
        with self._lock:
            self.batches.append(list(pieces))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.release()
        assert self.go.wait(20)
        with self._lock:
            self.at_once -= 1
        if 13 in pieces:
            raise ValueError("unlucky")
        return [2 * piece for piece in pieces]


def test_what_waits_is_taken_in_one_go_and_large_pieces_go_alone() -> None:
    work = Work()
    joint: Joint[int, int] = Joint(work, slots=1, most=10)
    assert joint.run(1, 5) == 2, "with a free slot at once"
    work.go.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(joint.run, 2, 5)
        assert work.began.acquire(timeout=20) and work.began.acquire(timeout=20)
        others = []
        for piece, size in ((3, 4), (4, 4), (5, 50), (6, 4), (7, 4), (8, 4)):
            others.append(pool.submit(joint.run, piece, size))
            while len(joint._waiting) < len(others):
                pass
        work.go.set()
        assert [future.result(20) for future in (first, *others)] == [4, 6, 8, 10, 12, 14, 16]
    assert work.batches == [[1], [2], [3, 4], [5], [6, 7], [8]]
    assert work.most_at_once == 1


def test_an_error_reaches_its_own_piece_and_nobody_who_was_joined_with_it() -> None:
    work = Work()
    joint: Joint[int, int] = Joint(work, slots=1, most=10)
    with pytest.raises(ValueError, match="unlucky"):
        joint.run(13, 1)
    work.batches.clear()
    work.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(joint.run, 1, 1)
        while not work.batches:
            pass
        others = []
        for piece in (2, 13, 3):
            others.append(pool.submit(joint.run, piece, 1))
            while len(joint._waiting) < len(others):
                pass
        work.go.set()
        assert [future.result(20) for future in (first, others[0], others[2])] == [2, 4, 6]
        with pytest.raises(ValueError, match="unlucky"):
            others[1].result(20)
    assert work.batches == [[1], [2, 13, 3], [2], [13], [3]]
    assert joint.run(1, 1) == 2


@pytest.mark.parametrize("slots", [1, 3])
def test_answers_are_never_mixed_up(slots: int) -> None:
    work = Work()
    joint: Joint[int, int] = Joint(work, slots=slots, most=20)
    draw = random.Random(0)
    pieces = [piece for piece in range(2_000) if piece != 13]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda piece: joint.run(piece, draw.randrange(1, 15)), pieces)) == [
            2 * piece for piece in pieces
        ]
    assert sorted(piece for batch in work.batches for piece in batch) == pieces
    assert work.most_at_once <= slots


def test_a_large_piece_is_divided_among_free_slots() -> None:
    def work(pieces: Sequence[int]) -> list[list[tuple[int, int]]]:
        return [joint.divide(lambda first, last: (first, last), piece, 10) for piece in pieces]

    joint: Joint[int, list[tuple[int, int]]] = Joint(work, slots=4, most=1)
    assert joint.run(9, 9) == [(0, 9)], "too small to divide"
    assert joint.run(25, 25) == [(0, 12), (12, 25)]
    assert joint.run(103, 103) == [(0, 25), (25, 51), (51, 77), (77, 103)], (
        "no more than there are slots"
    )
    joint.close()


def test_a_piece_is_divided_among_no_slot_that_is_taken_or_waited_for() -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def work(pieces: Sequence[int]) -> list[int]:
        if pieces[0] == 0:
            begun.release()
            assert go.wait(20)
            return [0]
        return [len(joint.divide(lambda first, last: last - first, 100, 10)) for _ in pieces]

    joint: Joint[int, int] = Joint(work, slots=3, most=1)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(joint.run, 0, 1)
        assert begun.acquire(timeout=20)
        assert joint.run(1, 1) == 2, "one of three is taken"
        second = pool.submit(joint.run, 0, 1)
        assert begun.acquire(timeout=20)
        assert joint.run(1, 1) == 1
        go.set()
        assert (first.result(20), second.result(20)) == (0, 0)
    assert joint.run(1, 1) == 3, "all slots are free again"
    assert joint.divide(lambda first, last: last - first, 100, 10) == [33, 33, 34], (
        "as many for one outside of run"
    )
    joint._waiting.append(_Ticket(1, 1))
    assert joint.divide(lambda first, last: last - first, 100, 10) == [100], "somebody waits"
    joint.close()
    alone: Joint[int, int] = Joint(work, slots=1, most=1)
    assert alone.divide(lambda first, last: last - first, 300, 10) == [300]


@pytest.mark.parametrize("slots", [1, 3])
def test_a_piece_that_failed_leaves_nothing_for_the_collector(slots: int) -> None:
    class Held:
        """What a piece holds."""

    def part(first: int, _last: int) -> int:
        if first >= (100 if slots > 1 else 0):
            raise ValueError("unlucky")
        return first

    joint: Joint[Held, int] = Joint(
        lambda pieces: [sum(joint.divide(part, 300, 10)) for _ in pieces], slots=slots, most=1
    )
    gc.collect()
    gc.disable()
    try:
        piece = Held()
        held = weakref.ref(piece)
        with contextlib.suppress(ValueError):
            joint.run(piece, 1)
        del piece
        until = time.monotonic() + 20
        while (
            held() is not None and time.monotonic() < until
        ):  # a helper's thread may be about to let go
            time.sleep(0.01)
        assert held() is None
    finally:
        gc.enable()
    joint.close()


def test_a_part_that_fails_fails_its_piece_once_all_parts_have_ended() -> None:
    def part(first: int, _last: int) -> None:
        began.add(first)
        if first != bad:
            time.sleep(0.05 if first < 75 else 0.3)
        ended.add(first)
        if first == bad:
            raise ValueError("unlucky")

    joint: Joint[int, int] = Joint(
        lambda pieces: [len(joint.divide(part, 100, 25)) for _ in pieces], slots=4, most=1
    )
    for bad in (0, 50, 0):  # noqa: B007  # part reads it
        began, ended = set[int](), set[int]()
        with pytest.raises(ValueError, match="unlucky"):
            joint.run(1, 1)
        assert ended == began, "nothing goes on behind it"
    joint.close()


def test_what_no_helper_has_begun_the_caller_does_too() -> None:
    joint: Joint[int, list[int]] = Joint(
        lambda pieces: [joint.divide(part, 30, 10) for _ in pieces], slots=3, most=1
    )
    go, by = threading.Event(), dict[int, str]()

    def part(first: int, _last: int) -> int:
        by[first] = threading.current_thread().name
        return first

    assert joint._helpers is not None
    stuck = [joint._helpers.submit(go.wait, 20) for _ in range(2)]
    assert joint.run(1, 1) == [0, 10, 20]
    assert set(by.values()) == {threading.current_thread().name}
    go.set()
    assert all(one.result(20) for one in stuck)
    joint.close()
