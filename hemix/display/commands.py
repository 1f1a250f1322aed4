"""Commands that a user can type next: quoted, and with the program where it is."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["command_line"]


def command_line(*words: object) -> str:
    """Return a command of hemix as a shell takes it.

    Args:
        *words: The command and its arguments; paths are quoted where they need it.
    """
    return " ".join([_program(), *(shlex.quote(str(word)) for word in words)])


def _program() -> str:
    """``hemix`` if that is found on PATH, else where it is installed, else as a module."""
    if shutil.which("hemix") is not None:
        return "hemix"
    installed = Path(sys.executable).parent / "hemix"  # not resolved: a venv's python is a link
    if not installed.exists():
        return f"{shlex.quote(sys.executable)} -m hemix"
    shown = os.path.relpath(installed)
    return shlex.quote(str(installed) if shown.startswith("..") else shown)
