"""``hemix train --processes N`` on one machine: start the same command N times, as torchrun does.

On several machines torchrun starts the processes itself.
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

from hemix.errors import HemixError, ProcessLost

__all__ = ["LAUNCHED", "free_port", "launch"]

LAUNCHED = "HEMIX_LAUNCHED"
"""Environment variable of the processes of :func:`launch`, which reports a lost process for them"""
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 20.0
_POLL_SECONDS = 0.05
_RESUME = "Continue from the last checkpoint with --resume"


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run ``hemix`` in several processes until all have ended.

    When one fails, the others are stopped within seconds. They also end with this process, however
    it ends, kill -9 included.

    Args:
        processes: Number of processes.
        arguments: Those of the command line.

    Returns:
        The exit code of rank 0, which has printed its own error.

    Raises:
        HemixError: If another rank failed, or rank 0 was killed: which, and how.
    """
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
        LAUNCHED: "1",
    }
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    end_with_parent = _end_with(os.getpid())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hemix-train-")))
        children = list[subprocess.Popen[bytes]]()
        stack.callback(_stop, children)
        for rank in range(processes):
            log = stack.enter_context(_log_path(folder, rank).open("wb")) if rank else None
            children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "hemix", *arguments],
                    env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.DEVNULL if rank else None,
                    stderr=log,
                    preexec_fn=end_with_parent,
                )
            )
        with _forwarded_signals(children):
            codes = _wait(children)
        return _exit_code(codes, folder)


def _log_path(folder: Path, rank: int) -> Path:
    """Where the stderr of a rank above 0 goes."""
    return folder / f"{rank}.log"


def _exit_code(codes: Sequence[int], folder: Path) -> int:
    """Return the exit code of rank 0, or raise the error of the process that failed."""
    processes = len(codes)
    failed = next(
        (rank for rank, code in enumerate(codes) if code not in (0, ProcessLost.exit_code)), None
    )
    if failed is None:
        lost = ", ".join(
            str(rank) for rank, code in enumerate(codes) if code == ProcessLost.exit_code
        )
        if lost:
            raise HemixError(
                f"process {lost} of {processes} lost the others, and none says why: does "
                f"127.0.0.1 answer? {_RESUME}",
                code="process_lost",
            )
        return 0
    if failed == 0 and codes[0] > 0:
        return codes[0]
    log = _log_path(folder, failed).read_text(errors="replace") if failed else ""
    ending = _ending(codes[failed], log.strip().splitlines())
    raise HemixError(
        f"process {failed} of {processes} {ending}; the others were stopped. {_RESUME}"
    )


def _end_with(parent: int) -> Callable[[], None]:
    """Return a function for the child: the kernel shall kill the child when its parent has ended.

    The child calls it before it becomes another program.
    """
    library = ctypes.CDLL(None)

    def request_signal() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # the parent ended before the call
            os._exit(ProcessLost.exit_code)

    return request_signal


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Return all exit codes; stop the others some time after the first failure."""
    failed_at = None
    while any(process.poll() is None for process in processes):
        if failed_at is None and any(process.returncode for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() > failed_at + _GRACE_SECONDS:
            codes = [
                ProcessLost.exit_code if process.poll() is None else process.returncode
                for process in processes
            ]
            _stop(processes)
            return codes
        time.sleep(_POLL_SECONDS)
    return [process.returncode for process in processes]


def _ending(code: int, log: Sequence[str]) -> str:
    """Describe how a process ended, given the lines of its stderr."""
    if code < 0:
        reason = f": {log[-1]}" if log and code == -signal.SIGABRT else ""
        return f"was killed by {signal.Signals(-code).name}{reason}"
    return f"ended: {log[-1].removeprefix('hemix: ')}" if log else f"ended with exit code {code}"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def _forwarded_signals(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Send SIGTERM and Ctrl-C to every process instead of ending this one."""

    def forward(number: int, _frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
