"""Real processes that start at once: forks of a process that has imported the package.

A signal, a kill or a server needs a process of its own, but not the seconds in which a new
interpreter imports PyTorch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hemix.cli import main

__all__ = ["ForkedProcess", "fork_hemix"]

FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["__main__", "tests.forked_imports"])


class ForkedProcess:
    """A started process, with the methods of ``subprocess.Popen`` that tests use."""

    def __init__(
        self,
        target: Callable[..., None],
        *args: Any,
        err: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            target: What it runs, a function of a module.
            *args: Arguments of ``target``.
            err: The file of its stderr; None: a temporary one.
            environment: Variables beside those of the tests.
        """
        self._folder = tempfile.TemporaryDirectory()
        self.out = Path(self._folder.name) / "out"
        self.err = err or Path(self._folder.name) / "err"
        for file in (self.out, self.err):
            file.write_text("")
        self._process = FORK_SERVER.Process(
            target=_redirected, args=(self.out, self.err, dict(environment or {}), target, args)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 120) -> int:
        """Wait for its end; raises ``TimeoutExpired``."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait for its end; returns what it has written to stdout and to stderr."""
        self.wait(timeout)
        return self.out.read_text(), self.err.read_text()

    def first_line(self, seconds: float = 60) -> str:
        """Wait for the first line of stdout; empty where the process ends without one."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            if "\n" in (text := self.out.read_text()):
                return text.partition("\n")[0]
            time.sleep(0.005)
        return ""


def _redirected(
    out: Path,
    err: Path,
    environment: dict[str, str],
    target: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    os.environ.update(environment)
    for file, number in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    target(*args)


def fork_hemix(
    *arguments: object, err: Path | None = None, environment: Mapping[str, str] | None = None
) -> ForkedProcess:
    """Start ``hemix ARGUMENTS``.

    Args:
        *arguments: Of the command line.
        err: The file of its stderr; None: a temporary one.
        environment: Variables beside those of the tests.
    """
    return ForkedProcess(_run_hemix, *map(str, arguments), err=err, environment=environment)


def _run_hemix(*arguments: str) -> None:
    sys.argv = ["hemix", *arguments]
    main()
