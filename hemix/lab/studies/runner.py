"""Runs the cells of a study side by side, each in a process of its own, and keeps what is finished.

A cell that fails is reported in one line and the rest goes on; asking again runs what is missing.
Ctrl-C asks every process to save and stop, and leaves nothing half-written. Knows cells, not what
they are compared for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from hemix.errors import UsageError
from hemix.files import storage_errors
from hemix.lab.studies.cells import Cell, Judged

__all__ = ["Failure", "Options", "StudyCallback", "check_study_folder", "run_cells", "study_folder"]

Failure = dict[str, str]
"""``{"cell", "error"}``"""

_STOP_SECONDS = 60.0
_PATIENCE_SECONDS = 0.1


class StudyCallback(Protocol):
    """Receive what a study reports."""

    def on_plan(self, plan: dict[str, Any], /) -> None:
        """Before a study begins: what will be done, and its estimated cost."""

    def on_cell(self, what: str, done: int, total: int, /) -> None:
        """Something happened to a cell; ``done`` of ``total`` cells are done."""


class Options:
    """How a study runs, and whom it tells. A :class:`StudyCallback` gives both functions."""

    def __init__(
        self,
        *,
        jobs: int | None = None,
        threads: int = 1,
        on_plan: Callable[[dict[str, Any]], None] = lambda _: None,
        on_cell: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        """Check the numbers.

        Args:
            jobs: Cells at a time; None: as many as cores allow.
            threads: Threads of each.
            on_plan: As :meth:`StudyCallback.on_plan`.
            on_cell: As :meth:`StudyCallback.on_cell`.

        Raises:
            UsageError: For numbers below 1.
        """
        cores = len(os.sched_getaffinity(0))
        if threads < 1 or (jobs is not None and jobs < 1):
            raise UsageError(f"--jobs {jobs} --threads {threads}: expected 1 or more")
        self.threads = threads
        self.jobs = jobs or max(1, cores // threads)
        self.on_plan = on_plan
        self.on_cell = on_cell


def check_study_folder(root: Path) -> None:
    """Raise UsageError unless ``root`` is absent, empty or a study's folder."""
    if root.exists() and not root.is_dir():
        raise UsageError(f"--out {root}: is a file; name a new folder")
    if root.exists() and any(root.iterdir()) and not (root / "cells").is_dir():
        raise UsageError(
            f"--out {root}: exists already and is not a study's folder; name a new folder"
        )


@contextmanager
def study_folder(root: Path) -> Iterator[None]:
    """Make ``root`` where it is not there, and hold it: one study works in a folder at a time.

    Raises UsageError, StorageError.
    """
    check_study_folder(root)
    with storage_errors(root):
        (root / "cells").mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"--out {root}: another study works in this folder") from error
            yield


def run_cells(cells: Sequence[Cell], options: Options, *, split: Judged = "valid") -> list[Failure]:
    """Bring all cells to where their results of ``split`` are there; returns those that failed.

    Cells that are done are left untouched. On KeyboardInterrupt all processes are stopped before it
    goes on.
    """
    waiting = list({cell.folder: cell for cell in cells if not cell.done(split)}.values())
    total = len({cell.folder for cell in cells})
    done, failed, working = (
        total - len(waiting),
        list[Failure](),
        dict[subprocess.Popen[bytes], Cell](),
    )
    try:
        while waiting or working:
            while waiting and len(working) < options.jobs:
                cell = waiting.pop(0)
                working[_start(cell, split, options.threads)] = cell
                options.on_cell(f"{cell.folder.name} begins", done, total)
            time.sleep(_PATIENCE_SECONDS)
            for process in [p for p in working if p.poll() is not None]:
                cell = working.pop(process)
                done += 1
                if process.returncode == 0 and cell.done(split):
                    options.on_cell(f"{cell.folder.name} is done", done, total)
                    continue
                failed.append(
                    {"cell": cell.folder.name, "error": _error(cell.folder, process.returncode)}
                )
                options.on_cell(f"{cell.folder.name} failed: {failed[-1]['error']}", done, total)
    finally:
        _stop(list(working))
    return failed


def _start(cell: Cell, split: Judged, threads: int) -> subprocess.Popen[bytes]:
    cell.begin()
    flags = ["--open-test"] if split == "test" else []
    with (cell.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hemix.lab.studies.cell", str(cell.folder), *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            # Ctrl-C reaches us alone, and we ask the cells to save and stop
            start_new_session=True,
        )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    until = time.monotonic() + _STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _error(folder: Path, code: int) -> str:
    """Why a cell failed, in one line."""
    lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (
            " (out of memory?)" if code == -signal.SIGKILL else ""
        )
    return " ".join(lines[-1].split()) if lines else f"ended with exit code {code}"
