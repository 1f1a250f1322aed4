"""Retention of the ranking log: files older than a number of days are deleted."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from hemix.serving.ranking_log.files import TABLES, log_files

__all__ = ["Retention"]

_INTERVAL_SECONDS = 3_600.0
_DAY_SECONDS = 86_400.0
_logger = logging.getLogger("hemix.serving")


class Retention:
    """Deletes old files of all logs in one folder, inactive versions included. Thread-safe."""

    def __init__(self, folder: Path, days: float) -> None:
        """Set the folder and the age.

        Args:
            folder: Folder with one log folder per model and version.
            days: Files that were finished longer ago are deleted.
        """
        self._folder, self._days = folder, days
        self._lock = threading.Lock()
        self._next_run = 0.0

    def apply(self) -> int:
        """Delete old files, at most once an hour, and return their number.

        Files that cannot be deleted are logged and retried; nothing is raised.
        """
        with self._lock:
            if time.monotonic() < self._next_run:
                return 0
            self._next_run = time.monotonic() + _INTERVAL_SECONDS
        oldest, deleted = time.time() - self._days * _DAY_SECONDS, 0
        for table in TABLES:
            for path in log_files(self._folder, table):
                try:
                    if path.stat().st_mtime < oldest:
                        path.unlink()
                        deleted += 1
                except OSError as error:
                    reason = error.strerror or error
                    _logger.warning("%s: too old, and cannot be deleted: %s", path, reason)
        return deleted
