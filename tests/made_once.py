"""Folders that a test session writes once, whichever of its processes needs them first."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["make_once"]


def make_once(factory: pytest.TempPathFactory, name: str, write: Callable[[Path], object]) -> Path:
    """Return a folder that all processes of the session share; tests only read it.

    The first process that asks for the folder writes it under a lock, and the others wait.

    Args:
        factory: pytest's ``tmp_path_factory``.
        name: Path of the folder within the session's shared folder, such as ``planted/logs``.
        write: Writes the content into the path that it gets.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # a worker's folder lies in that of the session
    folder = root / "shared" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    complete = folder.with_name(f"{folder.name}.complete")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a writer that failed
            write(folder)
            complete.touch()
    return folder
