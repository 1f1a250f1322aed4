"""Ctrl-C and SIGTERM as a request that the training loop answers after the step in progress."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_signals"]


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether a stop signal has arrived.

    Further signals change nothing, so that the checkpoint is saved. Outside the main thread no
    signal can be handled, and the function always returns False.
    """
    requested = threading.Event()

    def request(_number: int, _frame: FrameType | None) -> None:
        requested.set()

    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, request) for number in numbers}
    try:
        yield requested.is_set
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
