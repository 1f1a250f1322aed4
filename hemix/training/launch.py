"""``hemix train --processes N`` on one machine: the same command N times, as torchrun would start
it, and one answer when one ends.

On several machines torchrun starts the processes itself. Knows commands and processes, nothing of
training.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from hemix.errors import HemixError

__all__ = ["LAUNCHED", "LOST", "free_port", "launch"]

LAUNCHED = "HEMIX_LAUNCHED"
"""Set for the processes of :func:`launch`: they leave it to this one to say that another of them is
gone
"""
LOST = 75
"""Exit code of a process that lost the others"""
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 20.0
_POLL_SECONDS = 0.05


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run ``hemix`` with ``arguments`` in so many processes; returns the first one's exit code when
    all ended alike.

    A process that ends otherwise ends them all within seconds. Raises HemixError saying which and
    how; not where the first process has said it already: then its exit code is returned. However
    this process ends, kill -9 included, the others end with it.
    """
    base = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
        LAUNCHED: "1",
    }
    base.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    ends_with_this = _ends_with(os.getpid())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hemix-train-")))
        started = list[subprocess.Popen[bytes]]()
        stack.callback(_stop, started)
        for rank in range(processes):
            silent = (folder / f"{rank}.log").open("wb") if rank else None
            if silent is not None:
                stack.enter_context(silent)
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "hemix", *arguments],
                    env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.DEVNULL if rank else None,
                    stderr=silent,
                    preexec_fn=ends_with_this,
                )
            )
        with _passed_on(started):
            codes = _wait(started)
        first_bad = next((rank for rank, code in enumerate(codes) if code not in (0, LOST)), None)
        if first_bad is None:
            lost = ", ".join(str(rank) for rank, code in enumerate(codes) if code == LOST)
            if lost:
                raise HemixError(
                    f"process {lost} of {processes} lost the others, and none says why: does "
                    "127.0.0.1 answer? "
                    "Go on from the last checkpoint with --resume"
                )
            return 0
        if first_bad == 0 and codes[0] > 0:
            return codes[0]
        said = (
            (folder / f"{first_bad}.log").read_text(errors="replace").strip().splitlines()
            if first_bad
            else []
        )
        raise HemixError(
            f"process {first_bad} of {processes} {_ending(codes[first_bad], said)}; the others "
            "were stopped. "
            "Go on from the last checkpoint with --resume"
        )


def _ends_with(parent: int) -> Callable[[], None]:
    """For a child to call before it becomes another program: the kernel kills it when its parent is
    gone.
    """
    library = ctypes.CDLL(None)

    def tie() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # gone already
            os._exit(LOST)

    return tie


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes of all, the others stopped a while after the first one failed."""
    failed_at = None
    while any(process.poll() is None for process in processes):
        if failed_at is None and any(process.returncode for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() > failed_at + _GRACE_SECONDS:
            codes = [
                LOST if process.poll() is None else process.returncode for process in processes
            ]
            _stop(processes)
            return codes
        time.sleep(_POLL_SECONDS)
    return [process.returncode for process in processes]


def _ending(code: int, said: Sequence[str]) -> str:
    if code < 0:
        reason = f": {said[-1]}" if said and code == -signal.SIGABRT else ""
        return f"was killed by {signal.Signals(-code).name}{reason}"
    return f"ended: {said[-1].removeprefix('hemix: ')}" if said else f"ended with exit code {code}"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def _passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """SIGTERM and Ctrl-C reach every process; this one waits for them."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
