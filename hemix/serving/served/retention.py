"""How long the log of what was served is kept: files that have grown too old are deleted, and
nothing else. Knows no table.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from pathlib import Path

__all__ = ["TABLES", "Retention", "log_files"]

TABLES = ("rankings", "events", "features")
_NAME = re.compile(r"[0-9a-f]{12,}-[0-9a-f]+-\d{6,}\.parquet")
"""What a log calls its files"""
_EVERY_S = 3_600.0
_DAY_S = 86_400.0
_logger = logging.getLogger("hemix.serving")


def log_files(folder: Path, table: str) -> list[Path]:
    """The files of one table of all the logs that lie in ``folder``, in the order of their
    names.
    """
    return sorted(
        path for path in folder.glob(f"*/{table}/*.parquet") if _NAME.fullmatch(path.name)
    )


class Retention:
    """Of the logs in one folder, also of versions that serve no more. For many threads."""

    def __init__(self, folder: Path, days: float) -> None:
        """``days``: a file that was finished so long ago is deleted."""
        self._folder, self._days = folder, days
        self._lock = threading.Lock()
        self._next = 0.0

    def apply(self) -> int:
        """Delete what is too old, at most once an hour; returns how many files.

        Never raises: what cannot be deleted is told and tried again.
        """
        with self._lock:
            if time.monotonic() < self._next:
                return 0
            self._next = time.monotonic() + _EVERY_S
        before, deleted = time.time() - self._days * _DAY_S, 0
        for table in TABLES:
            for path in log_files(self._folder, table):
                try:
                    if path.stat().st_mtime < before:
                        path.unlink()
                        deleted += 1
                except OSError as error:
                    _logger.warning(
                        "%s: too old, and cannot be deleted: %s", path, error.strerror or error
                    )
        return deleted
