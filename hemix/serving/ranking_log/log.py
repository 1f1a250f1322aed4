"""The log of one model's rankings: Parquet files that a thread writes and that appear whole.

FOLDER/rankings/*.parquet: a row per ranked candidate, an impression log for ``hemix prepare``.
FOLDER/events/*.parquet: interactions and impressions in the order of arrival, an event log.
FOLDER/features/*.parquet: features of users and items in the order of arrival.
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
from hemix.serving.idle_maintenance import IdleMaintenance
from hemix.serving.ranking_log.files import TABLES, write_table
from hemix.serving.ranking_log.retention import Retention
from hemix.serving.ranking_log.tables import LoggedRanking, LogTables
from hemix.serving.stores import StoreLimits
from hemix.serving.types import Event

__all__ = ["LogCapacity", "RankingLog"]

_CHUNK_ROWS = 2_000
"""Queued objects are converted to a table after so many rows"""
_IDLE_WAIT_SECONDS = 0.25
_RESERVED_BYTES = 256 * 2**20
"""Free disk space that the log leaves to the store of events, which may share the disk"""
_logger = logging.getLogger("hemix.serving")


@dataclass(frozen=True, slots=True)
class _EventBody:
    events: list[Event]
    revision: int


@dataclass(frozen=True, kw_only=True)
class LogCapacity:
    """Bounds of the queue in memory and of a file."""

    queue_size: int = 1_000
    """Maximum rankings and bodies of events in the queue."""
    queue_rows: int = 50_000
    """Maximum candidates and events in the queue."""
    rows: int = 100_000
    """Rows after which a file is closed."""
    seconds: float = 60.0
    """Seconds after which a file is closed."""


class RankingLog:
    """Logs rankings and events from many threads, without blocking them.

    A full queue or disk drops entries and counts them. A killed process loses what it had not
    written. Call :meth:`close` to write the rest.
    """

    def __init__(
        self,
        folder: str | Path,
        schema: Schema,
        capacity: LogCapacity | None = None,
        *,
        limits: StoreLimits | None = None,
        retention: Retention | None = None,
        idle: IdleMaintenance | None = None,
    ) -> None:
        """Create the folder and start the thread.

        Args:
            folder: Folder of the files.
            schema: Schema of the logged model.
            capacity: Bounds of queue and files.
            limits: Limits of the store, which are logged for replays.
            retention: Deletes old files; None: files are never deleted.
            idle: Tells when no request is in work. The thread waits for such a moment, briefly,
                while the queue is short.

        Raises:
            StorageError: ``folder`` cannot be created.
        """
        self.folder, self.schema = Path(folder), schema
        with storage_errors(self.folder):
            for table in TABLES:
                (self.folder / table).mkdir(parents=True, exist_ok=True)
                for temporary_file in (self.folder / table).glob(".*.part"):
                    temporary_file.unlink()  # left by a killed process
        self._tables = LogTables(schema, limits)
        self._capacity, self._retention = capacity or LogCapacity(), retention
        self._idle = IdleMaintenance() if idle is None else idle
        self._queue: queue.Queue[LoggedRanking | _EventBody | None] = queue.Queue(
            self._capacity.queue_size
        )
        self._queued_rows = 0
        self._lock = threading.Lock()
        self.dropped = 0
        """Rankings and bodies of events that met a full queue, and rows that were not written"""
        self.problem: str | None = None
        """Why the last file could not be written; None after a success"""
        self._file_prefix = f"{time.time_ns() // 1_000_000:012x}-{os.getpid():x}"
        self._files = self._rankings = self._rows = 0
        self._chunks: dict[str, list[pa.Table]] = {table: [] for table in TABLES}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="hemix-log", daemon=True)
        self._thread.start()

    def log_ranking(self, ranking: LoggedRanking) -> None:
        """Log a ranking, unless its request brought its own history, as trials do."""
        if ranking.request.history is None:
            self._put(ranking)

    def log_events(self, events: Sequence[Event], revision: int) -> None:
        """Log accepted events.

        Args:
            events: The events in the order of their arrival.
            revision: The store's revision after them.
        """
        if events:
            self._put(_EventBody(list(events), revision))

    def close(self) -> None:
        """Write the rest and stop the thread; a second close returns at once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _put(self, entry: LoggedRanking | _EventBody) -> None:
        with self._lock:
            rows = self._queued_rows + _row_count(entry)
            fits = not self._queued_rows or rows <= self._capacity.queue_rows
            if fits and not self._closed:
                try:
                    self._queue.put_nowait(entry)
                    self._queued_rows = rows
                    return
                except queue.Full:
                    pass
            self.dropped += 1

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        entries, rows, opened_at, closing = (
            list[LoggedRanking | _EventBody](),
            0,
            time.monotonic(),
            False,
        )
        while not closing:
            remaining_seconds = opened_at + self._capacity.seconds - time.monotonic()
            try:
                entry = self._queue.get(timeout=max(0.01, remaining_seconds))
                if entry is None:
                    closing = True
                else:
                    entries.append(entry)
                    rows += _row_count(entry)
                    with self._lock:
                        self._queued_rows -= _row_count(entry)
            except queue.Empty:
                pass
            large = self._rows + rows >= self._capacity.rows
            old = time.monotonic() - opened_at >= self._capacity.seconds
            file_done = closing or large or old
            if file_done or rows >= _CHUNK_ROWS:
                if not closing and self._queue_is_short():
                    self._idle.wait_until_idle(_IDLE_WAIT_SECONDS)
                self._convert(entries)
                entries, rows = [], 0
            if file_done:
                self._write_files()
                opened_at = time.monotonic()
                if self._retention is not None:
                    self._retention.apply()

    def _queue_is_short(self) -> bool:
        few_rows = self._queued_rows < self._capacity.queue_rows / 4
        return few_rows and self._queue.qsize() < self._queue.maxsize / 4

    def _convert(self, entries: list[LoggedRanking | _EventBody]) -> None:
        """Convert entries to tables, which need a fraction of their memory."""
        try:
            self._convert_rankings([e for e in entries if isinstance(e, LoggedRanking)])
            self._convert_events([e for e in entries if isinstance(e, _EventBody)])
        except Exception as error:  # an unforeseen value must not end the log
            self._count_dropped(len(entries), error)

    def _convert_rankings(self, rankings: list[LoggedRanking]) -> None:
        if not rankings:
            return
        ids = [
            f"{logged.ranking.id}#{self._file_prefix}-{number}"
            for number, logged in enumerate(rankings, self._rankings)
        ]
        self._rankings += len(rankings)
        self._add("rankings", self._tables.rankings(rankings, ids))

    def _convert_events(self, bodies: list[_EventBody]) -> None:
        pairs = [(event, body.revision) for body in bodies for event in body.events]
        in_history = [pair for pair in pairs if pair[0].kind in ("interaction", "impression")]
        features = [pair for pair in pairs if pair[0].kind in ("user", "item")]
        if in_history:
            self._add("events", self._tables.events(*zip(*in_history, strict=True)))
        if features:
            self._add("features", self._tables.features(*zip(*features, strict=True)))

    def _add(self, table: str, chunk: pa.Table) -> None:
        self._chunks[table].append(chunk)
        self._rows += chunk.num_rows

    def _write_files(self) -> None:
        """Write each table as a file, under a hidden name first, so that it appears whole."""
        for table, chunks in self._chunks.items():
            if not chunks:
                continue
            self._files += 1
            path = self.folder / table / f"{self._file_prefix}-{self._files:06d}.parquet"
            temporary_file = path.with_name(f".{path.name}.part")
            rows = pa.concat_tables(chunks)
            try:
                with storage_errors(path):
                    if shutil.disk_usage(path.parent).free < _RESERVED_BYTES:
                        reserved = f"{_RESERVED_BYTES >> 20} MiB of the disk"
                        raise StorageError(
                            f"{path}: not written: the last {reserved} are left to the store of "
                            "events"
                        )
                    write_table(rows, temporary_file)
                    temporary_file.replace(path)
                self.problem = None
            except (HemixError, OSError, pa.ArrowException) as error:
                temporary_file.unlink(missing_ok=True)
                self._count_dropped(rows.num_rows, error)
        self._chunks = {table: [] for table in TABLES}
        self._rows = 0

    def _count_dropped(self, count: int, error: Exception) -> None:
        self.problem = str(error)
        _logger.warning("the ranking log dropped %d entries or rows: %s", count, error)
        with self._lock:
            self.dropped += count


def _row_count(entry: LoggedRanking | _EventBody) -> int:
    if isinstance(entry, LoggedRanking):
        return len(entry.ranking.items)
    return len(entry.events)
