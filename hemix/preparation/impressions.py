"""The impression log, in three steps: ``partition``, ``sort_and_deduplicate`` and ``write``.

Encoding is the last step because encoders are learned from rows without duplicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.encode import Encoders
from hemix.data.entities import coordinates_features
from hemix.data.keys import keys_of
from hemix.data.levels import learning_columns, level_features
from hemix.data.raw_columns import RawColumn
from hemix.features.base import RowContext
from hemix.preparation.cleaning import count_out_of_order, distinct_rows
from hemix.preparation.duplicates import chunk_hashes
from hemix.preparation.entities import Entities
from hemix.preparation.fit import EncoderFitter, in_sample
from hemix.preparation.job import Progress
from hemix.preparation.label_rates import LabelRates
from hemix.preparation.labels import apply_given_labels, labels_as_of
from hemix.preparation.chunks import Chunk
from hemix.preparation.logs import Logs
from hemix.preparation.numbering import LogNumbers
from hemix.preparation.rows import PartitionFiles, Rows, row_count, take_rows
from hemix.preparation.requests import RequestGroups
from hemix.preparation.role_columns import (
    check_ids,
    check_not_null,
    labels_of,
    positions_of,
    weights_of,
)
from hemix.preparation.shards import ShardRows, ShardWriter
from hemix.preparation.splits import OUTSIDE, Splitter
from hemix.preparation.statistics import StatisticsPass
from hemix.preparation.times import times_of

__all__ = ["ImpressionPass", "Span"]

Array = npt.NDArray[Any]


@dataclass
class Span:
    """Times of the impression log, in ms UTC."""

    train_end_ms: int = 0
    """One millisecond after the newest train impression"""
    log_begin_ms: int = 2**62
    """Time of the oldest impression"""
    log_end_ms: int = 0
    """Time of the newest impression"""

    def add(self, time_ms: Array, is_train: Array) -> None:
        """Extend the span by some impressions.

        Args:
            time_ms: int64 [n], their times in UTC.
            is_train: bool [n], which of them are in the train split.
        """
        self.log_begin_ms = min(self.log_begin_ms, int(time_ms.min()))
        self.log_end_ms = max(self.log_end_ms, int(time_ms.max()))
        if is_train.any():
            self.train_end_ms = max(self.train_end_ms, int(time_ms[is_train].max()) + 1)


@dataclass
class Counts:
    """Counts of the impression log for the manifest."""

    duplicates: int = 0
    disorder: int = 0
    outside_split: int = 0
    given_violated: dict[str, int] = field(default_factory=dict)


class ImpressionPass:
    """Reads, cleans and encodes the impressions, and counts what the encoders learn from."""

    def __init__(
        self,
        logs: Logs,
        splitter: Splitter,
        fitter: EncoderFitter,
        users: Entities,
        items: Entities,
    ) -> None:
        self._logs, self._schema, self._splitter, self._fitter = (
            logs,
            logs.schema,
            splitter,
            fitter,
        )
        self._users, self._items = users, items
        tasks = len(self._schema.tasks)
        self.span = Span()
        self.counts = Counts()
        self.requests = RequestGroups(logs)
        self.user_rows = np.zeros((3, users.rows), dtype=np.int64)
        """int64 [3, rows]: impressions of every split that refer to each user version"""
        self.item_rows = np.zeros((3, items.rows), dtype=np.int64)
        """int64 [3, rows]: impressions of every split that refer to each item version"""
        self.train_positives = np.zeros((len(items.versions.first_row) - 1, tasks), dtype=np.int64)
        """int64 [items, T]: positive labels of the train impressions"""
        self.train_known = np.zeros_like(self.train_positives)
        """int64 [items, T]: known labels of the train impressions"""

    # -- step 1: read ------------------------------------------------------------------------------

    def partition(
        self, numbers: LogNumbers, files: PartitionFiles, rows: int, progress: Progress
    ) -> None:
        """Read and check the whole log, and write its rows into partitions.

        Args:
            numbers: User and item number of every row.
            files: Temporary files by user.
            rows: Number of rows to read at once.
            progress: Called after every chunk.

        Raises:
            DataError: A value cannot be used, or a split is empty.
        """
        table, in_split = self._logs.impressions, np.zeros(3, dtype=np.int64)
        for chunk in table.chunks(None, rows):
            at = slice(chunk.first_row, chunk.first_row + chunk.rows)
            read = self._read(chunk)
            read |= {"user": numbers.user[at], "item": numbers.item[at]}
            time_ms, split = np.asarray(read["time_ms"]), np.asarray(read["split"])
            in_split += np.bincount(split[split >= 0], minlength=3)
            self.span.add(time_ms, split == 0)
            files.add(read, numbers.user[at])
            progress("reading impressions", at.stop / table.rows)
        self._splitter.require_rows(in_split, str(table.path))

    def _read(self, chunk: Chunk) -> Rows:
        """Raw columns of a chunk: time, split, hash, labels, roles and features."""
        where, columns, clock = chunk.where, chunk.columns, self._schema.clock
        check_not_null(clock.column, columns[clock.column], where)
        time_ms = times_of(clock.column, columns[clock.column], clock, where, is_clock=True)
        return {
            "time_ms": time_ms,
            "log_row": np.arange(chunk.first_row, chunk.first_row + chunk.rows, dtype=np.int64),
            "hash": chunk_hashes(chunk, self._logs.clocks),
            "split": self._splitter.assign(chunk, time_ms),
            **self._read_labels(chunk),
            **self._read_roles(chunk),
            **self._read_features(chunk),
        }

    def _read_labels(self, chunk: Chunk) -> Rows:
        where, columns = chunk.where, chunk.columns
        rows: Rows = {}
        for name, label in self._schema.labels.items():
            column = label.column or name
            rows[f"label.{name}"] = labels_of(column, columns[column], where)
            if label.available_at is not None:
                rows[f"available.{name}"] = times_of(
                    label.available_at, columns[label.available_at], self._schema.clock, where
                )
        return rows

    def _read_roles(self, chunk: Chunk) -> Rows:
        where, columns, roles = chunk.where, chunk.columns, self._schema.roles
        rows: Rows = {}
        if roles.request_id is not None:
            check_ids(roles.request_id, columns[roles.request_id], where)
            rows["request"] = keys_of(columns[roles.request_id])
        if roles.weight is not None:
            rows["weight"] = weights_of(roles.weight, columns[roles.weight], where)
        if roles.bias is not None:
            bias = roles.bias
            rows["bias"] = positions_of(
                bias.column, columns[bias.column], where, serve_as=bias.serve_as, maximum=bias.max
            )
        return rows

    def _read_features(self, chunk: Chunk) -> Rows:
        schema = self._schema
        levels = ["context", "cross"]
        if schema.history_source == "impressions":
            levels.append("event")
        rows: Rows = {}
        for level in levels:
            raw: dict[str, RawColumn | None] = {
                name: feature.read(name, chunk.columns, chunk.rows, chunk.where)
                for name, feature in level_features(schema, level).items()
                if (level, name) != ("event", "action")
            }
            self._fitter.observe(level, raw, chunk.columns)
            rows |= {
                f"{level}.{name}": values for name, values in raw.items() if values is not None
            }
        return rows

    # -- step 2: clean, sort, count ----------------------------------------------------------------

    def sort_and_deduplicate(self, rows: Rows) -> tuple[Rows | None, Rows]:
        """Drop the duplicates of a partition, sort it and group it into requests.

        Returns:
            The sorted rows inside the splits, or None if there are none; and all rows without
            duplicates, for histories and statistics.
        """
        unique = distinct_rows(rows)
        self.counts.duplicates += row_count(rows) - len(unique)
        rows = take_rows(rows, unique)
        self.counts.disorder += count_out_of_order(rows)
        logged = {name: np.asarray(rows[f"label.{name}"]) for name in self._schema.tasks}
        labels, changed = apply_given_labels(self._schema.labels, logged)
        for name, count in changed.items():
            self.counts.given_violated[name] = self.counts.given_violated.get(name, 0) + count
        rows |= {f"label.{name}": values for name, values in labels.items()}
        history = rows

        inside = np.asarray(rows["split"]) != OUTSIDE
        self.counts.outside_split += int((~inside).sum())
        if not inside.any():
            return None, history
        rows = self.requests.group(take_rows(rows, np.flatnonzero(inside)))
        self._look_up(rows)
        self._count(rows)
        return rows, history

    def _look_up(self, rows: Rows) -> None:
        time_ms = np.asarray(rows["request_time_ms"])
        rows["user_row"] = self._users.versions.row_at(np.asarray(rows["user"]), time_ms).astype(
            np.int32
        )
        rows["item_row"] = self._items.versions.row_at(np.asarray(rows["item"]), time_ms).astype(
            np.int32
        )

    def _count(self, rows: Rows) -> None:
        split = np.asarray(rows["split"])
        for number in range(3):
            in_split = split == number
            self.user_rows[number] += np.bincount(
                np.asarray(rows["user_row"])[in_split], minlength=self._users.rows
            )
            self.item_rows[number] += np.bincount(
                np.asarray(rows["item_row"])[in_split], minlength=self._items.rows
            )
        train = take_rows(rows, np.flatnonzero(split == 0))
        sample = in_sample(np.asarray(train["log_row"]), self._logs.impressions.rows)
        for level in ("context", "cross"):
            features = self._schema.features.level(level)
            self._fitter.count(
                level, {n: train.get(f"{level}.{n}") for n in features}, sample=sample
            )
        if self._schema.history_source == "impressions":
            self._fitter.count(
                "event",
                {n: train.get(f"event.{n}") for n in self._schema.history.fields},
                sample=sample,
            )
        self._sample_computed(take_rows(train, np.flatnonzero(sample)))
        labels, item = self.labels(train), np.asarray(train["item"])
        for task in range(labels.shape[1]):
            for selected, total in (
                (labels[:, task] == 1, self.train_positives),
                (labels[:, task] >= 0, self.train_known),
            ):
                total[:, task] += np.bincount(item[selected], minlength=len(total))

    def _sample_computed(self, rows: Rows) -> None:
        """Sample the computed features that learn from numbers."""
        schema = self._schema
        request = RowContext(
            rows=row_count(rows),
            time_ms=np.asarray(rows["request_time_ms"]),
            timezone=schema.clock.timezone,
            coordinates=(
                self.coordinates(rows) if any(f.inputs() for _, _, f in schema.features) else {}
            ),
        )
        raw = {level: learning_columns(schema, level, request) for level in ("context", "cross")}
        if schema.history_source == "impressions":
            event = replace(request, time_ms=np.asarray(rows["time_ms"]), coordinates={})
            raw["event"] = learning_columns(schema, "event", event)
        for level, columns in raw.items():
            for name, column in columns.items():
                self._fitter.sample(f"{level}.{name}", column)

    def coordinates(self, rows: Rows) -> dict[str, Array]:
        """Look up the coordinates between which distances are computed.

        Returns:
            ``level.feature`` -> float64 [n, 2], latitude and longitude in degrees.
        """
        coordinates = {
            f"context.{name}": np.asarray(rows[f"context.{name}"])
            for name in coordinates_features(self._schema, "context")
        }
        for entities, name in ((self._users, "user_row"), (self._items, "item_row")):
            of_versions, row = entities.coordinates(self._schema), np.asarray(rows[name])
            coordinates |= {key: values[row] for key, values in of_versions.items()}
        return coordinates

    def labels(self, rows: Rows) -> Array:
        """Return the labels as they were known when the rows' split was trained or evaluated.

        Returns:
            int8 [n, T]; -1 is unknown.
        """
        before_valid = self._splitter.valid_from_ms
        train_as_of = self.span.train_end_ms if before_valid is None else before_valid
        as_of_ms = np.where(np.asarray(rows["split"]) == 0, train_as_of, self.span.log_end_ms)
        return labels_as_of(
            self._schema.labels,
            {n: np.asarray(rows[f"label.{n}"]) for n in self._schema.tasks},
            np.asarray(rows["time_ms"]),
            {
                n: np.asarray(rows[f"available.{n}"])
                for n in self._schema.tasks
                if f"available.{n}" in rows
            },
            as_of_ms,
        )

    # -- step 3: encode ----------------------------------------------------------------------------

    def write(
        self,
        rows: Rows,
        encoders: Encoders,
        writers: Mapping[int, ShardWriter],
        statistics: StatisticsPass | None,
        label_rates: LabelRates,
    ) -> None:
        """Encode a sorted partition, append it to the shards of every split, and count its labels.

        Args:
            rows: Sorted rows of a partition.
            encoders: The learned encoders.
            writers: The shards by number of the split.
            statistics: The dated statistics; None if the schema has none.
            label_rates: Counts labels of known and unknown values.
        """
        split = np.asarray(rows["split"])
        for number, writer in writers.items():
            in_split = np.flatnonzero(split == number)
            if len(in_split):
                encoded = self._encoded(take_rows(rows, in_split), encoders, statistics)
                writer.write(encoded)
                label_rates.add(number, encoded)

    def _encoded(
        self, rows: Rows, encoders: Encoders, statistics: StatisticsPass | None
    ) -> ShardRows:
        begin, count = np.flatnonzero(np.asarray(rows["starts"])), row_count(rows)
        first = take_rows(rows, begin)
        time_ms = np.asarray(first["request_time_ms"])
        context = {n: first.get(f"context.{n}") for n in self._schema.features.context}
        cross = {n: rows.get(f"cross.{n}") for n in self._schema.features.cross}
        context_block = encoders.block("context", context, len(begin), time_ms=time_ms)
        cross_block = encoders.block(
            "cross",
            cross,
            count,
            time_ms=np.asarray(rows["request_time_ms"]),
            coordinates=self.coordinates(rows),
        )
        if statistics is not None:
            context_block = context_block.with_numbers(statistics.numbers("context", first))
            cross_block = cross_block.with_numbers(statistics.numbers("cross", rows))
        return ShardRows(
            user=np.asarray(first["user"]),
            user_row=np.asarray(first["user_row"]),
            time_ms=time_ms,
            context=context_block,
            counts=np.diff(np.append(begin, count)),
            item_row=np.asarray(rows["item_row"]),
            cross=cross_block,
            bias=np.asarray(rows["bias"]) if "bias" in rows else np.zeros(count, np.int32),
            labels=self.labels(rows),
            weight=np.asarray(rows["weight"]) if "weight" in rows else np.ones(count, np.float32),
            log_row=np.asarray(rows["log_row"]),
        )
