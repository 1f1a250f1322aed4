"""The ranking logs of all models of a server: one per model, version and schema."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hemix.schema import Schema
from hemix.serving.idle_maintenance import IdleMaintenance
from hemix.serving.ranking_log.log import RankingLog
from hemix.serving.ranking_log.retention import Retention
from hemix.serving.stores import StoreLimits
from hemix.serving.types import Event

__all__ = ["RankingLogSet"]


@dataclass
class _OpenLog:
    log: RankingLog
    users: int = 1
    """Loaded models that write to it; 0 while it is being closed"""


class RankingLogSet:
    """Logs in ``folder/NAME-VERSION-SCHEMA/``: rankings go to their model's, events to all."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: StoreLimits | None = None,
        keep_days: float | None = None,
        idle: IdleMaintenance | None = None,
    ) -> None:
        """Set the folder; :meth:`open` creates logs.

        Args:
            folder: Folder of all logs.
            limits: Limits of the store, which are logged for replays.
            keep_days: Older files are deleted, those of inactive versions too; None: never.
            idle: Tells when no request is in work, which is when logs write.
        """
        self.folder, self._limits, self._idle = folder, limits, idle
        self._retention = None if keep_days is None else Retention(folder, keep_days)
        self._open: dict[str, _OpenLog] = {}
        self._lock = threading.Lock()
        self._log_closed = threading.Condition(self._lock)
        self._dropped = 0

    def open(self, name: str, version: str, schema: Schema) -> RankingLog:
        """Open the log of a model; :meth:`release` ends its use.

        Args:
            name: Name of the model.
            version: Version of the model.
            schema: Schema of the model.

        Raises:
            StorageError: The log's folder cannot be created.
        """
        key = f"{name}-{version}-{schema.columns_fingerprint()}"
        with self._lock:
            while (opened := self._open.get(key)) is not None and not opened.users:
                # a second log in the folder would delete the first one's temporary files
                self._log_closed.wait()
            if opened is not None:  # the same version, loaded again
                opened.users += 1
                return opened.log
            log = RankingLog(
                self.folder / key,
                schema,
                limits=self._limits,
                retention=self._retention,
                idle=self._idle,
            )
            self._open[key] = _OpenLog(log)
            return log

    def release(self, log: RankingLog) -> None:
        """End one use of a log; the last one closes it."""
        with self._lock:
            [(key, opened)] = [
                (key, opened) for key, opened in self._open.items() if opened.log is log
            ]
            opened.users -= 1
            if opened.users:
                return
        log.close()
        with self._lock:
            del self._open[key]
            self._dropped += log.dropped
            self._log_closed.notify_all()

    def log_events(self, events: Sequence[Event], revision: int) -> None:
        """Log accepted events in every open log.

        Args:
            events: The events in the order of their arrival.
            revision: The store's revision after them.
        """
        with self._lock:
            logs = [opened.log for opened in self._open.values() if opened.users]
        for log in logs:
            log.log_events(events, revision)

    @property
    def dropped(self) -> int:
        """Number of rankings and bodies of events that no file contains."""
        with self._lock:
            return self._dropped + sum(opened.log.dropped for opened in self._open.values())
