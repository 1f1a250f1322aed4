"""The log of what was served: Parquet files that appear whole, written by a thread of its own.

    FOLDER/rankings/*.parquet   a row per ranked candidate: an impression log, as `hemix prepare` reads it
    FOLDER/events/*.parquet     interactions and impressions in the order of their arrival: an event log
    FOLDER/features/*.parquet   features of users and items as they arrived

Serving never waits for it: where the queue is full, what comes is left out and counted. A file is written when it has grown old or
large; a process that is killed loses what it had not written yet. Knows no store and no model.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import HemixError
from hemix.files import storage_errors
from hemix.schema import Schema
from hemix.serving.served.columns import Served, ServedColumns
from hemix.serving.types import Event

__all__ = ["ServedLog"]

_TABLES = ("rankings", "events", "features")
_END = None
_logger = logging.getLogger("hemix.serving")


class ServedLog:
    """Takes rankings and events from many threads. Call :meth:`close` when done: it writes what is left."""

    def __init__(
        self, folder: str | Path, schema: Schema, *, queue_size: int = 1_000, rows: int = 200_000, seconds: float = 60.0
    ) -> None:
        """``queue_size``: rankings and bodies of events that may wait. A file is closed after so many ``rows`` or ``seconds``. Raises
        StorageError where ``folder`` cannot be made."""
        self.folder, self.schema = Path(folder), schema
        with storage_errors(self.folder):
            for table in _TABLES:
                (self.folder / table).mkdir(parents=True, exist_ok=True)
                for part in (self.folder / table).glob(".*.part"):
                    part.unlink()  # of a process that was killed
        self._columns = ServedColumns(schema)
        self._most_rows, self._most_seconds = rows, seconds
        self._queue: queue.Queue[Served | list[Event] | None] = queue.Queue(queue_size)
        self._lock = threading.Lock()
        self.left_out = 0
        """Rankings and bodies of events that found the queue full, or that could not be written"""
        self.problem: str | None = None
        """Why the last file could not be written; None where it could"""
        self._name = f"{time.time_ns() // 1_000_000:012x}-{os.getpid():x}"
        self._files = self._rankings = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="hemix-served", daemon=True)
        self._thread.start()

    def ranking(self, served: Served) -> None:
        """Keep a ranking; one with a history of its own is a trial and is not kept."""
        if served.request.history is None:
            self._put(served)

    def events(self, events: Sequence[Event]) -> None:
        """Keep accepted events, in this order."""
        if events:
            self._put(list(events))

    def close(self) -> None:
        """Write what is left. A second close does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._queue.put(_END)
        self._thread.join()

    def _put(self, one: Served | list[Event]) -> None:
        with self._lock:
            if not self._closed:
                try:
                    self._queue.put_nowait(one)
                    return
                except queue.Full:
                    pass
            self.left_out += 1

    # -- the thread --------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        rankings, events, rows, since = list[Served](), list[Event](), 0, time.monotonic()
        ended = False
        while not ended:
            try:
                one = self._queue.get(timeout=max(0.01, since + self._most_seconds - time.monotonic()))
                if isinstance(one, Served):
                    rankings.append(one)
                    rows += len(one.ranking.items)
                elif one is not None:
                    events += one
                    rows += len(one)
                else:
                    ended = True
            except queue.Empty:
                pass
            if ended or rows >= self._most_rows or time.monotonic() - since >= self._most_seconds:
                self._write(rankings, events)
                rankings, events, rows, since = [], [], 0, time.monotonic()

    def _write(self, rankings: list[Served], events: list[Event]) -> None:
        history = [e for e in events if e.kind in ("interaction", "impression")]
        said = [e for e in events if e.kind in ("user", "item")]
        if rankings:
            ids = [f"{one.ranking.id}#{self._name}-{self._rankings + n}" for n, one in enumerate(rankings)]
            self._rankings += len(rankings)
            self._file("rankings", lambda: self._columns.rankings(rankings, ids), len(rankings))
        if history:
            self._file("events", lambda: self._columns.events(history), len(history))
        if said:
            self._file("features", lambda: self._columns.features(said), len(said))

    def _file(self, table: str, made: Callable[[], pa.Table], count: int) -> None:
        """Write a file under a hidden name first, so that it appears whole or not at all."""
        self._files += 1
        path = self.folder / table / f"{self._name}-{self._files:06d}.parquet"
        part = path.with_name(f".{path.name}.part")
        try:
            with storage_errors(path):
                pq.write_table(made(), part)
                part.replace(path)
            self.problem = None
        except (HemixError, OSError, pa.ArrowException) as error:
            part.unlink(missing_ok=True)
            self.problem = str(error)
            _logger.warning("the log of what is served leaves out %d: %s", count, error)
            with self._lock:
                self.left_out += count
