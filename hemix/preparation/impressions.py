"""The impression log: partitioned by user, then cleaned and grouped into requests, then encoded.

Three steps, because the encoders can only be learned once duplicates are gone: ``partition``,
``sort_and_deduplicate`` and ``write``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.encode import Encoders, learning_columns, level_features
from hemix.data.entities import coordinates_features
from hemix.data.keys import keys_of
from hemix.data.raw_columns import RawColumn
from hemix.features.base import RowContext
from hemix.preparation.duplicates import chunk_hashes
from hemix.preparation.entities import Entities
from hemix.preparation.fit import EncoderFitter, in_sample
from hemix.preparation.job import Progress
from hemix.preparation.label_rates import LabelRates
from hemix.preparation.labels import apply_given_labels, labels_as_of
from hemix.preparation.log_table import Chunk
from hemix.preparation.logs import Logs
from hemix.preparation.numbering import LogNumbers
from hemix.preparation.partition_files import PartitionFiles, Rows, row_count, take_rows
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

__all__ = ["ImpressionPass", "Span", "count_out_of_order", "drop_duplicates"]

Array = npt.NDArray[Any]


@dataclass
class Span:
    """What the whole impression log says of time."""

    train_end_ms: int = 0
    """One past the newest train impression."""
    log_begin_ms: int = 2**62
    """Time of the oldest impression."""
    log_end_ms: int = 0
    """Time of the newest impression."""


@dataclass
class Counts:
    """What was counted on the way, for the manifest."""

    duplicates: int = 0
    disorder: int = 0
    outside_split: int = 0
    given_violated: dict[str, int] = field(default_factory=dict)


class ImpressionPass:
    """Everything about impressions."""

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
        """Impressions of every split that point to each user version"""
        self.item_rows = np.zeros((3, items.rows), dtype=np.int64)
        self.train_positives = np.zeros((len(items.versions.first_row) - 1, tasks), dtype=np.int64)
        self.train_known = np.zeros_like(self.train_positives)

    # -- step 1: read ------------------------------------------------------------------------------

    def partition(
        self, numbers: LogNumbers, spill: PartitionFiles, rows: int, progress: Progress
    ) -> None:
        """Read and check the whole log, and write it into the files of a spill.

        Args:
            numbers: User and item number of every row.
            spill: Temporary files by user.
            rows: How many rows to read at once.
            progress: Called after every chunk.

        Raises:
            DataError: For the first wrong value.
        """
        table, in_split = self._logs.impressions, np.zeros(3, dtype=np.int64)
        for chunk in table.chunks(None, rows):
            at = slice(chunk.first_row, chunk.first_row + chunk.rows)
            found = self._read(chunk)
            found |= {"user": numbers.user[at], "item": numbers.item[at]}
            time_ms, split = found["time_ms"], found["split"]
            assert isinstance(time_ms, np.ndarray) and isinstance(split, np.ndarray)
            in_split += np.bincount(split[split >= 0], minlength=3)
            self.span.log_begin_ms = min(self.span.log_begin_ms, int(time_ms.min()))
            self.span.log_end_ms = max(self.span.log_end_ms, int(time_ms.max()))
            if (split == 0).any():
                self.span.train_end_ms = max(
                    self.span.train_end_ms, int(time_ms[split == 0].max()) + 1
                )
            spill.add(found, numbers.user[at])
            progress("reading impressions", at.stop / table.rows)
        self._splitter.require_rows(in_split, str(table.path))

    def _read(self, chunk: Chunk) -> Rows:
        schema, where, columns, roles = self._schema, chunk.where, chunk.columns, self._schema.roles
        clock = schema.clock
        check_not_null(clock.column, columns[clock.column], where)
        time_ms = times_of(clock.column, columns[clock.column], clock, where, own=True)
        found: Rows = {
            "time_ms": time_ms,
            "log_row": np.arange(chunk.first_row, chunk.first_row + chunk.rows, dtype=np.int64),
            "hash": chunk_hashes(chunk, self._logs.clocks),
            "split": self._splitter.assign(chunk, time_ms),
        }
        for name, label in schema.labels.items():
            found[f"label.{name}"] = labels_of(
                label.column or name, columns[label.column or name], where
            )
            if label.available_at is not None:
                found[f"available.{name}"] = times_of(
                    label.available_at, columns[label.available_at], clock, where
                )
        if roles.request_id is not None:
            check_ids(roles.request_id, columns[roles.request_id], where)
            found["request"] = keys_of(columns[roles.request_id])
        if roles.weight is not None:
            found["weight"] = weights_of(roles.weight, columns[roles.weight], where)
        if roles.bias is not None:
            bias = roles.bias
            found["bias"] = positions_of(
                bias.column, columns[bias.column], where, serve_as=bias.serve_as, most=bias.max
            )
        levels = ["context", "cross"] + (
            ["event"] if schema.history_source == "impressions" else []
        )
        for level in levels:
            raw: dict[str, RawColumn | None] = {}
            for name, feature in level_features(schema, level).items():
                if level == "event" and name == "action":
                    continue
                raw[name] = feature.read(name, columns, chunk.rows, where)
            self._fitter.see(level, raw, columns)
            found |= {
                f"{level}.{name}": column for name, column in raw.items() if column is not None
            }
        return found

    # -- step 2: clean, sort, count ----------------------------------------------------------------

    def sort_and_deduplicate(self, rows: Rows) -> tuple[Rows | None, Rows]:
        """Clean one partition, sort it and group it into requests.

        Args:
            rows: The rows of a partition.

        Returns:
            The rows inside the splits, sorted, or None where all are outside; and all clean rows,
            for histories and statistics.
        """
        rows = take_rows(rows, drop_duplicates(rows, self.counts))
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
            here = split == number
            self.user_rows[number] += np.bincount(
                np.asarray(rows["user_row"])[here], minlength=self._users.rows
            )
            self.item_rows[number] += np.bincount(
                np.asarray(rows["item_row"])[here], minlength=self._items.rows
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
            for of, total in (
                (labels[:, task] == 1, self.train_positives),
                (labels[:, task] >= 0, self.train_known),
            ):
                total[:, task] += np.bincount(item[of], minlength=len(total))

    def _sample_computed(self, rows: Rows) -> None:
        """Sample the computed features that learn from numbers."""
        schema = self._schema
        request = RowContext(
            rows=row_count(rows),
            time_ms=np.asarray(rows["request_time_ms"]),
            timezone=schema.clock.timezone,
            coordinates=self.places(rows) if any(f.inputs() for _, _, f in schema.features) else {},
        )
        raw = {level: learning_columns(schema, level, request) for level in ("context", "cross")}
        if schema.history_source == "impressions":
            event = replace(request, time_ms=np.asarray(rows["time_ms"]), coordinates={})
            raw["event"] = learning_columns(schema, "event", event)
        for level, columns in raw.items():
            for name, column in columns.items():
                self._fitter.sample(f"{level}.{name}", column)

    def places(self, rows: Rows) -> dict[str, Array]:
        """``level.feature`` -> float64 [n, 2] of both ends of the rows' distances."""
        places = {
            k: cell[rows["user_row"]] for k, cell in self._users.coordinates(self._schema).items()
        }
        places |= {
            k: cell[rows["item_row"]] for k, cell in self._items.coordinates(self._schema).items()
        }
        for name in coordinates_features(self._schema, "context"):
            places[f"context.{name}"] = np.asarray(rows[f"context.{name}"])
        return places

    def labels(self, rows: Rows) -> Array:
        """int8 [n, T], as known when the rows' split was trained or judged."""
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
        """Encode a sorted partition, append it to the shards of every split, count its labels.

        Args:
            rows: Sorted rows of a partition.
            encoders: Turn values into ids and numbers.
            writers: The shards by number of the split.
            statistics: Look-up of dated statistics; None where the schema has none.
            label_rates: Counts labels of known and unknown values.
        """
        split = np.asarray(rows["split"])
        for number, writer in writers.items():
            here = np.flatnonzero(split == number)
            if len(here):
                encoded = self._encoded(take_rows(rows, here), encoders, statistics)
                writer.write(encoded)
                label_rates.add(number, encoded)

    def _encoded(
        self, rows: Rows, encoders: Encoders, statistics: StatisticsPass | None
    ) -> ShardRows:
        begin, count = np.flatnonzero(rows["starts"]), row_count(rows)
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
            coordinates=self.places(rows),
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


def drop_duplicates(rows: Rows, counts: Any) -> Array:
    """int64: the rows that repeat no earlier one in every column, in their order; the others are
    counted as duplicates.
    """
    hashes = np.asarray(rows["hash"])
    order = np.argsort(hashes, kind="stable")
    repeated = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
    kept = np.ones(len(hashes), dtype=bool)
    kept[repeated] = False
    counts.duplicates += len(repeated)
    return np.flatnonzero(kept)


def count_out_of_order(rows: Rows, timed: Array | None = None) -> int:
    """How many rows lie before the row that precedes them in their user's log."""
    user, time_ms = np.asarray(rows["user"]), np.asarray(rows["time_ms"])
    if timed is not None:
        user, time_ms = user[timed], time_ms[timed]
    order = np.argsort(user, kind="stable")
    user, time_ms = user[order], time_ms[order]
    return int(((user[1:] == user[:-1]) & (time_ms[1:] < time_ms[:-1])).sum())
