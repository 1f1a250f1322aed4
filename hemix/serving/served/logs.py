"""The logs of all models of a server: rankings to their own model's, events to every one. Knows no HTTP and no engine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hemix.schema import Schema
from hemix.serving.served.log import ServedLog
from hemix.serving.types import Event

__all__ = ["ServedLogs"]


@dataclass
class _Open:
    log: ServedLog
    users: int = 1


class ServedLogs:
    """Logs under ``folder``, one for each model, version and schema that serves: ``folder/NAME-VERSION-SCHEMA/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._left_out = 0

    def open(self, name: str, version: str, schema: Schema) -> ServedLog:
        """The log of a model that begins to serve; :meth:`close_one` ends it. Raises StorageError where it cannot be made."""
        key = f"{name}-{version}-{schema.meaning()}"
        with self._lock:
            known = self._open.get(key)
            if known is not None:  # the same version, loaded again
                known.users += 1
                return known.log
            log = ServedLog(self.folder / key, schema)
            self._open[key] = _Open(log)
            return log

    def close_one(self, log: ServedLog) -> None:
        """A model has ended that wrote there."""
        with self._lock:
            [(key, known)] = [(key, one) for key, one in self._open.items() if one.log is log]
            known.users -= 1
            if known.users:
                return
            del self._open[key]
        log.close()
        with self._lock:
            self._left_out += log.left_out

    def events(self, events: Sequence[Event]) -> None:
        """Keep accepted events, in this order, in every log."""
        with self._lock:
            logs = [one.log for one in self._open.values()]
        for log in logs:
            log.events(events)

    @property
    def left_out(self) -> int:
        """Rankings and bodies of events that no file holds."""
        with self._lock:
            return self._left_out + sum(one.log.left_out for one in self._open.values())
