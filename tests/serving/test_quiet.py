"""Nothing is in work: waited for, and not for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hemix.serving.quiet import Quiet


def test_whoever_waits_goes_on_when_the_last_is_done() -> None:
    quiet = Quiet()
    assert quiet.wait(0), "nothing has begun"
    quiet.begin()
    quiet.begin()
    assert not quiet.wait(0.01) and quiet.working == 2
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(quiet.wait, 20)
        quiet.end()
        assert not waiting.done()
        quiet.end()
        assert waiting.result(20)


def test_many_threads_count() -> None:
    quiet, done = Quiet(), threading.Barrier(8)

    def one() -> None:
        done.wait(20)
        for _ in range(2_000):
            quiet.begin()
            quiet.end()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(one) for _ in range(8)]:
            future.result(60)
    assert quiet.working == 0 and quiet.wait(0)
