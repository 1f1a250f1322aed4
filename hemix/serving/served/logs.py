"""The logs of all models of a server: rankings to their own model's, events to every one.

Knows no HTTP and no engine.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hemix.schema import Schema
from hemix.serving.quiet import Quiet
from hemix.serving.served.log import ServedLog
from hemix.serving.served.retention import Retention
from hemix.serving.stores import StoreLimits
from hemix.serving.types import Event

__all__ = ["ServedLogs"]


@dataclass
class _Open:
    log: ServedLog
    users: int = 1
    """0: it is being closed"""


class ServedLogs:
    """Logs under ``folder``, one for each model, version and schema that serves:
    ``folder/NAME-VERSION-SCHEMA/``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limits: StoreLimits | None = None,
        keep_days: float | None = None,
        quiet: Quiet | None = None,
    ) -> None:
        """``limits``: of the store, noted for replays.

        ``keep_days``: files older than that are deleted, those of versions that serve no more too;
        None: nothing ever is. ``quiet``: of requests in work; rows are made beside as few of them
        as may be.
        """
        self.folder, self._limits, self._quiet = folder, limits, quiet
        self._keep = None if keep_days is None else Retention(folder, keep_days)
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._closed_one = threading.Condition(self._lock)
        self._left_out = 0

    def open(self, name: str, version: str, schema: Schema) -> ServedLog:
        """The log of a model that begins to serve; :meth:`close_one` ends it.

        Raises StorageError where it cannot be made.
        """
        key = f"{name}-{version}-{schema.columns_fingerprint()}"
        with self._lock:
            while (known := self._open.get(key)) is not None and not known.users:
                # two logs in one folder would take each other's unfinished files for a dead
                # process's
                self._closed_one.wait()
            if known is not None:  # the same version, loaded again
                known.users += 1
                return known.log
            log = ServedLog(
                self.folder / key, schema, limits=self._limits, keep=self._keep, quiet=self._quiet
            )
            self._open[key] = _Open(log)
            return log

    def close_one(self, log: ServedLog) -> None:
        """A model has ended that wrote there."""
        with self._lock:
            [(key, known)] = [(key, one) for key, one in self._open.items() if one.log is log]
            known.users -= 1
            if known.users:
                return
        log.close()
        with self._lock:
            del self._open[key]
            self._left_out += log.left_out
            self._closed_one.notify_all()

    def events(self, events: Sequence[Event], revision: int) -> None:
        """Keep accepted events, in this order, with the revision that the store made of them, in
        every log.
        """
        with self._lock:
            logs = [one.log for one in self._open.values() if one.users]
        for log in logs:
            log.events(events, revision)

    @property
    def left_out(self) -> int:
        """Rankings and bodies of events that no file holds."""
        with self._lock:
            return self._left_out + sum(one.log.left_out for one in self._open.values())
