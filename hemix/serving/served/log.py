"""The log of what was served: Parquet files that appear whole, written by a thread of its own.

    FOLDER/rankings/*.parquet   a row per ranked candidate: an impression log, as `hemix prepare`
                                reads it
    FOLDER/events/*.parquet     interactions and impressions in the order of their arrival: an event
                                log
    FOLDER/features/*.parquet   features of users and items as they arrived

Serving never waits for it: where the queue or the disk is full, what comes is left out and counted.
A file is written when it has grown old or large; a process that is killed loses what it had not
written yet. Nothing is deleted but by a :class:`Retention`. Knows no model.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from hemix.errors import HemixError, StorageError
from hemix.files import storage_errors
from hemix.schema import Schema
from hemix.serving.quiet import Quiet
from hemix.serving.served.columns import Served, ServedColumns
from hemix.serving.served.files import write_log_table
from hemix.serving.served.retention import TABLES, Retention
from hemix.serving.stores import StoreLimits
from hemix.serving.types import Event

__all__ = ["LogCapacity", "ServedLog"]

_END = None
_PIECE_ROWS = 2_000
_QUIET_SECONDS = 0.25
_FREE_BYTES = 256 * 2**20
"""Of a disk that is fuller the log takes no more: the store of events may lie on the same one, and
rows can be done without
"""
_logger = logging.getLogger("hemix.serving")


@dataclass(frozen=True, slots=True)
class _Body:
    events: list[Event]
    revision: int


@dataclass(frozen=True, kw_only=True)
class LogCapacity:
    """How much of the log waits in memory, and when a file is closed."""

    queue_size: int = 1_000
    """Rankings and bodies of events that may wait"""
    queue_rows: int = 50_000
    """Candidates and events of them all together"""
    rows: int = 100_000
    """A file is closed after so many rows"""
    seconds: float = 60.0
    """Or after so long"""


class ServedLog:
    """Takes rankings and events from many threads.

    Call :meth:`close` when done: it writes what is left.
    """

    def __init__(
        self,
        folder: str | Path,
        schema: Schema,
        capacity: LogCapacity | None = None,
        *,
        limits: StoreLimits | None = None,
        keep: Retention | None = None,
        quiet: Quiet | None = None,
    ) -> None:
        """Make the folder and start the thread.

        Args:
            folder: Where the files appear.
            schema: Of the model whose rankings are logged.
            capacity: How much waits in memory, and how large a file grows.
            limits: Those of the store, noted for replays.
            keep: Deletes old files; None: nothing does.
            quiet: Tells when no request is in work. While the queue leaves time, rows are made
                then, or after a moment.

        Raises:
            StorageError: If ``folder`` cannot be made.
        """
        self.folder, self.schema = Path(folder), schema
        with storage_errors(self.folder):
            for table in TABLES:
                (self.folder / table).mkdir(parents=True, exist_ok=True)
                for temporary in (self.folder / table).glob(".*.part"):
                    temporary.unlink()  # of a process that was killed
        self._columns = ServedColumns(schema, limits)
        self._capacity, self._keep = capacity or LogCapacity(), keep
        self._quiet = Quiet() if quiet is None else quiet
        self._queue: queue.Queue[Served | _Body | None] = queue.Queue(self._capacity.queue_size)
        self._queued_rows = 0
        self._lock = threading.Lock()
        self.left_out = 0
        """Rankings and bodies of events that met a full queue, and rows that were not written"""
        self.problem: str | None = None
        """Why the last file could not be written; None where it could"""
        self._name = f"{time.time_ns() // 1_000_000:012x}-{os.getpid():x}"
        self._files = self._rankings = self._rows = 0
        self._pieces: dict[str, list[pa.Table]] = {table: [] for table in TABLES}
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="hemix-served", daemon=True)
        self._thread.start()

    def ranking(self, served: Served) -> None:
        """Keep a ranking; one with a history of its own is a trial and is not kept."""
        if served.request.history is None:
            self._put(served)

    def events(self, events: Sequence[Event], revision: int) -> None:
        """Keep accepted events, in this order, with the revision that the store made of them."""
        if events:
            self._put(_Body(list(events), revision))

    def close(self) -> None:
        """Write what is left. A second close does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._queue.put(_END)
        self._thread.join()

    def _put(self, one: Served | _Body) -> None:
        with self._lock:
            most = self._capacity.queue_rows
            fits = not self._queued_rows or self._queued_rows + _rows(one) <= most
            if fits and not self._closed:
                try:
                    self._queue.put_nowait(one)
                    self._queued_rows += _rows(one)
                    return
                except queue.Full:
                    pass
            self.left_out += 1

    # -- the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        waiting, rows, since, ended = list[Served | _Body](), 0, time.monotonic(), False
        while not ended:
            try:
                one = self._queue.get(
                    timeout=max(0.01, since + self._capacity.seconds - time.monotonic())
                )
                if one is None:
                    ended = True
                else:
                    waiting.append(one)
                    rows += _rows(one)
                    with self._lock:
                        self._queued_rows -= _rows(one)
            except queue.Empty:
                pass
            large = self._rows + rows >= self._capacity.rows
            full = ended or large or time.monotonic() - since >= self._capacity.seconds
            if full or rows >= _PIECE_ROWS:
                if not ended and self._has_time():
                    self._quiet.wait(_QUIET_SECONDS)
                try:
                    self._take(waiting)
                except (
                    Exception
                ) as error:  # whatever a value leads to, the log goes on with the next ones
                    self._lost(len(waiting), error)
                waiting, rows = [], 0
            if full:
                self._write()
                since = time.monotonic()
                if self._keep is not None:
                    self._keep.apply()

    def _has_time(self) -> bool:
        """Whether what waits is far from what may."""
        few_rows = self._queued_rows < self._capacity.queue_rows / 4
        return few_rows and self._queue.qsize() < self._queue.maxsize / 4

    def _take(self, waiting: list[Served | _Body]) -> None:
        """Objects into tables, which are a fraction of their size."""
        rankings = [one for one in waiting if isinstance(one, Served)]
        events = [
            (event, one.revision)
            for one in waiting
            if isinstance(one, _Body)
            for event in one.events
        ]
        history = [pair for pair in events if pair[0].kind in ("interaction", "impression")]
        said = [pair for pair in events if pair[0].kind in ("user", "item")]
        if rankings:
            ids = [
                f"{one.ranking.id}#{self._name}-{self._rankings + n}"
                for n, one in enumerate(rankings)
            ]
            self._rankings += len(rankings)
            self._add("rankings", self._columns.rankings(rankings, ids))
        if history:
            self._add("events", self._columns.events(*zip(*history, strict=True)))
        if said:
            self._add("features", self._columns.features(*zip(*said, strict=True)))

    def _add(self, table: str, piece: pa.Table) -> None:
        self._pieces[table].append(piece)
        self._rows += piece.num_rows

    def _write(self) -> None:
        """Every table's pieces as a file, under a hidden name first, so that it appears whole or
        not at all.
        """
        for table, pieces in self._pieces.items():
            if not pieces:
                continue
            self._files += 1
            path = self.folder / table / f"{self._name}-{self._files:06d}.parquet"
            part = path.with_name(f".{path.name}.part")
            whole = pa.concat_tables(pieces)
            try:
                with storage_errors(path):
                    if shutil.disk_usage(path.parent).free < _FREE_BYTES:
                        left = f"{_FREE_BYTES >> 20} MiB of the disk"
                        raise StorageError(
                            f"{path}: not written: the last {left} are left to the store of events"
                        )
                    write_log_table(whole, part)
                    part.replace(path)
                self.problem = None
            except (HemixError, OSError, pa.ArrowException) as error:
                part.unlink(missing_ok=True)
                self._lost(whole.num_rows, error)
        self._pieces = {table: [] for table in TABLES}
        self._rows = 0

    def _lost(self, count: int, error: Exception) -> None:
        self.problem = str(error)
        _logger.warning("the log of what is served leaves out %d: %s", count, error)
        with self._lock:
            self.left_out += count


def _rows(one: Served | _Body) -> int:
    return len(one.ranking.items) if isinstance(one, Served) else len(one.events)
