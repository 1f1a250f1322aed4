"""Nothing is in work: waited for, and not for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hemix.serving.idle_maintenance import IdleMaintenance


def test_whoever_waits_goes_on_when_the_last_is_done() -> None:
    idle = IdleMaintenance()
    assert idle.wait_until_idle(0), "nothing has begun"
    idle.request_started()
    idle.request_started()
    assert not idle.wait_until_idle(0.01) and idle.active_requests == 2
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(idle.wait_until_idle, 20)
        idle.request_finished()
        assert not waiting.done()
        idle.request_finished()
        assert waiting.result(20)


def test_many_threads_count() -> None:
    idle, done = IdleMaintenance(), threading.Barrier(8)

    def one() -> None:
        done.wait(20)
        for _ in range(2_000):
            idle.request_started()
            idle.request_finished()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(one) for _ in range(8)]:
            future.result(60)
    assert idle.active_requests == 0 and idle.wait_until_idle(0)
