"""Dated statistics of the impression log: rates and counts by key and day (stage 6).

`select_columns` copies columns while partitions are sorted, `build` sums them by key and day, and
`numbers` looks up the sums of earlier days. Rows of all splits count, and rows outside the splits
as well. Sums are integers, so they do not depend on the size of the partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.clock import local_day
from hemix.data.encode import Encoders
from hemix.data.keys import KeyIndex
from hemix.data.layout import Appender, save_array
from hemix.features.statistics import Statistics, combined_keys
from hemix.preparation.entities import Entities
from hemix.preparation.job import PrepareJob, Progress
from hemix.preparation.labels import known_since
from hemix.preparation.rows import PartitionFiles, Rows, row_count
from hemix.schema import Schema

__all__ = ["StatisticsPass"]

Array = npt.NDArray[Any]
CoordinatesOf = Callable[[Rows], Mapping[str, Array]]
"""Returns ``level.feature`` -> float64 [n, 2], the coordinates of rows"""

_MAX_BITS = 8
"""Largest number of key bits that choose a temporary file"""


class StatisticsPass:
    """Builds the statistics and looks them up."""

    def __init__(
        self,
        schema: Schema,
        users: Entities,
        items: Entities,
        indices: tuple[KeyIndex, KeyIndex],
        coordinates: CoordinatesOf,
    ) -> None:
        """Make a pass without statistics.

        Args:
            schema: The schema of the logs.
            users: All users.
            items: All items.
            indices: Numbers of the users and of the items.
            coordinates: Looks up the coordinates of rows, for distances.
        """
        self._schema, self._entities = schema, {"user": users, "item": items}
        self._coordinates = coordinates
        self._key_fields = {
            field for statistic in schema.statistics.values() for field in statistic.by
        }
        self._id_keys = {
            level: index.keys()
            for level, index in zip(("user", "item"), indices, strict=True)
            if level in self._key_fields
        }
        """``user`` or ``item`` -> uint64 [ids]"""
        self._version_keys: dict[str, Array] = {}
        """``user.feature`` or ``item.feature`` -> uint64 [versions]"""
        self._encoders: Encoders | None = None
        self._tables: Statistics | None = None

    # -- while partitions are sorted -----------------------------------------------------------

    def select_columns(self, rows: Rows) -> Rows:
        """Return the columns of a partition that statistics need."""
        names = {"user", "item", "time_ms", *self._key_fields}
        for level, name, feature in self._schema.features:
            if f"{level}.{name}" in self._key_fields:
                names.update(feature.inputs())
        prefixes = ("label.", "available.")
        return {n: column for n, column in rows.items() if n in names or n.startswith(prefixes)}

    # -- sums ----------------------------------------------------------------------------------

    def build(
        self,
        job: PrepareJob,
        partitions: PartitionFiles,
        encoders: Encoders,
        log_end_ms: int,
    ) -> None:
        """Write the tables into the folder ``statistics``.

        Args:
            job: Dataset folder and memory limit.
            partitions: The columns of `select_columns`; the files are deleted.
            encoders: The encoders, for the keys of values.
            log_end_ms: End of the log in ms UTC. Labels that became known later do not count.
        """
        self._encoders = encoders
        for level, entities in self._entities.items():
            for name in self._schema.features.level(level):
                if f"{level}.{name}" in self._key_fields:
                    keys = encoders.keys(level, name, entities.columns[name], entities.rows)
                    self._version_keys[f"{level}.{name}"] = keys
        bits = self._leading_bits(job.logs.impressions.rows, job.memory_rows)
        folder = job.folder / "statistics"
        with PartitionFiles(job.temporary / "sums", np.arange((1 << bits) + 1)) as sums:
            for _, rows in job.partitions(partitions, "adding up statistics"):
                self._add(rows, sums, bits, log_end_ms)
        self._write(sums, folder, job.progress)
        self._tables = Statistics.load(folder, self._schema.statistics)

    def _leading_bits(self, log_rows: int, memory_rows: int) -> int:
        """Number of leading bits of a key that choose its temporary file."""
        files = -(-log_rows * len(self._schema.statistics) // memory_rows)
        return min(_MAX_BITS, (files - 1).bit_length())

    def _add(self, rows: Rows, sums: PartitionFiles, bits: int, log_end_ms: int) -> None:
        """Sum a partition by key and day, into files by the leading bits of the key."""
        schema = self._schema
        time_ms = np.asarray(rows["time_ms"])
        for level, entities in self._entities.items():
            rows[f"{level}_row"] = entities.versions.row_at(np.asarray(rows[level]), time_ms)
        keys = self._keys(self._key_fields, rows, time_ms)
        logged = {name: np.asarray(rows[f"label.{name}"]) for name in schema.tasks}
        available = {
            name: np.asarray(rows[f"available.{name}"])
            for name in schema.tasks
            if f"available.{name}" in rows
        }
        known = known_since(schema.labels, time_ms, available)
        for number, statistic in enumerate(schema.statistics.values()):
            final_ms, positive_ms = known[statistic.label]
            label = logged[statistic.label]
            counted = np.flatnonzero((label >= 0) & (final_ms <= log_end_ms))
            positive = np.flatnonzero((label == 1) & (positive_ms <= log_end_ms))
            key = combined_keys([keys[field] for field in statistic.by])
            days = local_day(
                np.concatenate([final_ms[counted], positive_ms[positive]]),
                schema.clock.timezone,
            )
            ones = np.repeat(np.eye(2, dtype=np.int64), [len(counted), len(positive)], axis=0)
            key, days, counts = _summed(key[np.concatenate([counted, positive])], days, ones)
            if len(key):
                file = key >> np.uint64(64 - bits) if bits else np.zeros_like(key)
                summed: Rows = {
                    "key": key,
                    "day": days,
                    "counts": counts,
                    "statistic": np.full(len(key), number),
                }
                sums.add(summed, file.astype(np.int64))

    def _write(self, sums: PartitionFiles, folder: Path, progress: Progress) -> None:
        folder.mkdir()
        names = list(self._schema.statistics)
        day_counts: list[list[Array]] = [[np.zeros((0, 3), dtype=np.int64)] for _ in names]
        with ExitStack() as stack:
            out = [
                (
                    stack.enter_context(Appender(folder / f"{name}.keys.npy", np.uint64)),
                    stack.enter_context(Appender(folder / f"{name}.days.npy", np.int32)),
                    stack.enter_context(Appender(folder / f"{name}.counts.npy", np.int64, 2)),
                )
                for name in names
            ]
            for bucket in range(len(sums)):
                progress("writing statistics", bucket / len(sums))
                rows = sums.read(bucket)
                if rows is None:
                    continue
                for number in range(len(names)):
                    own = np.asarray(rows["statistic"]) == number
                    key, day, counts = _summed(
                        *(np.asarray(rows[name])[own] for name in ("key", "day", "counts"))
                    )
                    for file, values in zip(
                        out[number],
                        (key, day, _running(key, counts)),
                        strict=True,
                    ):
                        file.append(values)
                    _, days, counts = _summed(np.zeros_like(key), day, counts)
                    day_counts[number].append(np.concatenate([days[:, None], counts], axis=1))
        for name, of_files in zip(names, day_counts, strict=True):
            every = np.concatenate(of_files)
            _, days, counts = _summed(np.zeros(len(every), np.uint64), every[:, 0], every[:, 1:])
            save_array(
                folder / f"{name}.prior.npy",
                np.concatenate([days[:, None], np.cumsum(counts, axis=0)], axis=1),
            )

    # -- look-up -------------------------------------------------------------------------------

    def numbers(self, level: str, rows: Rows) -> Array:
        """Look up the statistics of a level.

        Args:
            level: ``context`` or ``cross``.
            rows: Sorted rows; for ``context`` the first row of every request.

        Returns:
            float32 [n, 2 * statistics of the level].
        """
        assert self._tables is not None
        time_ms = np.asarray(rows["request_time_ms"])
        fields = {
            field
            for name in self._schema.statistics_of(level)
            for field in self._schema.statistics[name].by
        }
        return self._tables.numbers(
            level,
            self._keys(fields, rows, time_ms),
            local_day(time_ms, self._schema.clock.timezone),
        )

    def _keys(self, fields: set[str], rows: Rows, time_ms: Array) -> dict[str, Array]:
        """uint64 [n] of every key field; rows have user_row and item_row."""
        assert self._encoders is not None
        needs_coordinates = any(
            f.inputs() and f"{level}.{n}" in fields for level, n, f in self._schema.features
        )
        coordinates = self._coordinates(rows) if needs_coordinates else {}
        keys = {}
        for field in sorted(fields):
            level, _, name = field.partition(".")
            if not name:
                keys[field] = self._id_keys[field][np.asarray(rows[field])]
            elif field in self._version_keys:
                keys[field] = self._version_keys[field][np.asarray(rows[f"{level}_row"])]
            else:
                keys[field] = self._encoders.keys(
                    level,
                    name,
                    rows.get(field),
                    row_count(rows),
                    time_ms=time_ms,
                    coordinates=coordinates,
                )
        return keys


def _summed(keys: Array, days: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Keys, days and sums of ``counts`` [n, 2] over equal (key, day), sorted by key, then day."""
    order = np.lexsort((days, keys))
    keys, days = keys[order], days[order]
    if len(keys) == 0:
        return keys, days, counts
    begin = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]) | (days[1:] != days[:-1])))
    return keys[begin], days[begin], np.add.reduceat(counts[order], begin, axis=0)


def _running(keys: Array, counts: Array) -> Array:
    """Cumulative sums of ``counts`` [n, 2] over the rows of equal keys."""
    totals: Array = np.cumsum(counts, axis=0)
    if len(keys) == 0:
        return totals
    begin = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    before = (totals - counts)[begin]
    totals -= np.repeat(before, np.diff(np.append(begin, len(keys))), axis=0)
    return totals
