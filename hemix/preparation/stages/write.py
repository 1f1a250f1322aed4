"""Stage 6: the folder of a partition: its users, histories and impressions, and its manifest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.encode import Encoders
from hemix.data.layout import MANIFEST_FORMAT, SPLITS, Block, file_hash, load_array, save_array
from hemix.features.statistics import Statistics
from hemix.preparation.cleaned import HISTORY, IMPRESSIONS, read_ranges
from hemix.preparation.history_writer import HistoryLengths, HistoryWriter
from hemix.preparation.impressions import Span, known_labels
from hemix.preparation.job import PrepareJob
from hemix.preparation.label_rates import LabelRates, vocabulary_states
from hemix.preparation.lookup import PartitionLookup
from hemix.preparation.manifest import listed_files
from hemix.preparation.raw_ids import save_ids
from hemix.preparation.rows import Rows, row_count, take_rows
from hemix.preparation.shared_files import load_encoders, load_statistics
from hemix.preparation.split_writer import SplitCounts, SplitRows, SplitWriter, value_counts
from hemix.preparation.stages.count import USER_ROWS
from hemix.preparation.statistics import StatisticKeys, statistic_numbers

__all__ = ["WriteAnswer", "WriteTask", "write"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """What to write."""

    number: int
    """Number of the partition"""
    cleaned: Path
    """The partition's folder of the stage ``clean``"""
    counted: Path
    """The partition's folder of the stage ``count``"""
    items: Path
    """The folder of :class:`hemix.preparation.items.ItemIndex`"""
    item_states: Path
    """int8 [rows, features]: the states of all items, see ``vocabulary_states``"""
    span: Span
    """Times of all impressions"""
    ids_as_int64: bool
    truth: Path | None
    """float64 [log rows, T]: true probabilities; None if the logs have none"""


@dataclass(frozen=True, kw_only=True)
class WriteAnswer:
    """Counts of a partition."""

    users: int
    user_rows: int
    events: int
    splits: dict[str, SplitCounts]
    user_values: dict[str, Array]
    """By split, see ``value_counts``"""
    event_values: Array
    """See ``value_counts``"""
    lengths: HistoryLengths
    label_rates: tuple[Array, Array]
    """See :meth:`LabelRates.sums`"""
    manifest_xxh64: str

    def entry(self) -> dict[str, Any]:
        """Return the entry of the dataset's manifest."""
        return {
            "users": self.users,
            "user_rows": self.user_rows,
            "events": self.events,
            "splits": {
                name: {"rows": c.rows, "requests": c.requests, "users": c.users}
                for name, c in self.splits.items()
            },
        }


def write(job: PrepareJob, task: WriteTask, folder: Path) -> WriteAnswer:
    """Write a partition.

    Args:
        job: Schema and dataset folder, which has encoders, items and statistics already.
        task: What to write.
        folder: The new folder of the partition.

    Raises:
        StorageError: The disk is full or read-only.
    """
    return _Writer(job, task, folder).run()


class _Writer:
    def __init__(self, job: PrepareJob, task: WriteTask, folder: Path) -> None:
        self._job, self._schema, self._task, self._folder = job, job.schema, task, folder
        self._lookup = PartitionLookup.load(job, task.cleaned, task.items)
        self._encoders: Encoders = load_encoders(job)
        self._statistics: Statistics | None = None
        if job.schema.statistics:
            self._keys = StatisticKeys(self._lookup, self._encoders, job.folder / "items")
            self._statistics = load_statistics(job)

    def run(self) -> WriteAnswer:
        """Write all files."""
        user_rows = load_array(self._task.counted / USER_ROWS)
        users = self._write_users(user_rows)
        states = vocabulary_states(self._schema, "user", users)
        rates = LabelRates(self._schema, states, load_array(self._task.item_states))
        splits = self._write_splits(rates)
        history = self._write_history()
        lengths = HistoryLengths()
        lengths.add(history.events)
        answer = WriteAnswer(
            users=len(history.events),
            user_rows=users.rows,
            events=int(history.events.sum()),
            splits=splits,
            user_values={
                name: value_counts(users, rows)
                for name, rows in zip(SPLITS, user_rows, strict=True)
            },
            event_values=history.values,
            lengths=lengths,
            label_rates=rates.sums(),
            manifest_xxh64="",
        )
        return self._with_manifest(answer)

    def _with_manifest(self, answer: WriteAnswer) -> WriteAnswer:
        position = {"partition": self._task.number, "partitions": self._job.partitions}
        files = {"files": listed_files(self._folder, self._folder)}
        path = self._folder / "manifest.json"
        MANIFEST_FORMAT.write(path, position | answer.entry() | files)
        return replace(answer, manifest_xxh64=file_hash(path))

    def _write_users(self, user_rows: Array) -> Block:
        entities, folder = self._lookup.entities, self._folder / "users"
        block = entities.encode(self._encoders)
        entities.save(folder, block, self._encoders)
        save_array(folder / "train_impressions.npy", entities.by_number(user_rows[0]))
        ids = self._lookup.users.texts
        save_ids(self._folder / "ids.parquet", ids, as_int64=self._task.ids_as_int64)
        return block

    def _write_history(self) -> HistoryWriter:
        users = len(self._lookup.users.keys)
        writer = HistoryWriter(self._folder / "history", self._encoders, users)
        for rows in read_ranges(self._task.cleaned, HISTORY):
            item_row = self._lookup.items.row_at(
                np.asarray(rows["item"]), np.asarray(rows["time_ms"])
            )
            writer.write(rows | {"item_row": item_row})
        writer.close()
        return writer

    def _write_splits(self, rates: LabelRates) -> dict[str, SplitCounts]:
        truth = None if self._task.truth is None else load_array(self._task.truth)
        int64_keys = self._job.logs.row_keys_are_int64
        writers = [
            SplitWriter(self._folder, name, self._schema, truth=truth, int64_keys=int64_keys)
            for name in SPLITS
        ]
        for rows in read_ranges(self._task.cleaned, IMPRESSIONS):
            rows = self._lookup.with_versions(rows, "request_time_ms")
            split = np.asarray(rows["split"])
            for number, writer in enumerate(writers):
                own = np.flatnonzero(split == number)
                if len(own):
                    encoded = self._encoded(take_rows(rows, own))
                    writer.write(encoded)
                    rates.add(number, encoded)
        for writer in writers:
            writer.close()
        return {name: writer.counts for name, writer in zip(SPLITS, writers, strict=True)}

    def _encoded(self, rows: Rows) -> SplitRows:
        begin, count = np.flatnonzero(np.asarray(rows["starts"])), row_count(rows)
        first = take_rows(rows, begin)
        time_ms = np.asarray(first["request_time_ms"])
        features = self._schema.features
        context = self._encoders.block(
            "context",
            {name: first.get(f"context.{name}") for name in features.context},
            len(begin),
            time_ms=time_ms,
        )
        cross = self._encoders.block(
            "cross",
            {name: rows.get(f"cross.{name}") for name in features.cross},
            count,
            time_ms=np.asarray(rows["request_time_ms"]),
            coordinates=self._lookup.coordinates(rows),
        )
        if self._statistics is not None:
            context = context.with_numbers(self._numbers("context", first))
            cross = cross.with_numbers(self._numbers("cross", rows))
        return SplitRows(
            user=np.asarray(first["user"]),
            user_row=np.asarray(first["user_row"]),
            time_ms=time_ms,
            context=context,
            counts=np.diff(np.append(begin, count)),
            item_row=np.asarray(rows["item_row"]),
            cross=cross,
            bias=np.asarray(rows["bias"]) if "bias" in rows else np.zeros(count, np.int32),
            labels=known_labels(self._job, rows, self._task.span),
            weight=np.asarray(rows["weight"]) if "weight" in rows else np.ones(count, np.float32),
            log_row=np.asarray(rows["log_row"]),
            row_key=rows.get("row_key"),
        )

    def _numbers(self, level: str, rows: Rows) -> Array:
        assert self._statistics is not None
        return statistic_numbers(self._schema, self._statistics, self._keys, level, rows)
