"""Dated statistics of the impression log: rates and counts by key and day.

Rows of all splits count, and rows outside the splits as well. Sums are whole numbers, so they do
not depend on the number of partitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.clock import local_day
from hemix.data.encode import Encoders
from hemix.data.entities import key_features
from hemix.data.layout import Appender, load_array, save_array
from hemix.features.statistics import Statistics, combined_keys
from hemix.files import storage_errors
from hemix.preparation.labels import known_since
from hemix.preparation.lookup import PartitionLookup
from hemix.preparation.rows import (
    GroupedFile,
    Rows,
    as_batch,
    concatenate_rows,
    row_count,
    save_groups,
    take_rows,
)
from hemix.schema import Schema

__all__ = [
    "StatisticKeys",
    "add_up",
    "leading_bits",
    "statistic_columns",
    "statistic_numbers",
    "write_statistics",
]

Array = npt.NDArray[Any]

_MAX_BITS = 8
"""Largest number of key bits that choose a bucket"""


def _key_fields(schema: Schema) -> set[str]:
    return {field for statistic in schema.statistics.values() for field in statistic.by}


def statistic_columns(schema: Schema, rows: Rows) -> Rows:
    """Return the columns of impressions that statistics need.

    Args:
        schema: The schema of the logs.
        rows: Impressions without duplicates.
    """
    fields = _key_fields(schema)
    names = {"user", "item", "time_ms", *fields}
    for level, name, feature in schema.features:
        if f"{level}.{name}" in fields:
            names.update(feature.inputs())
    prefixes = ("label.", "available.")
    return {n: column for n, column in rows.items() if n in names or n.startswith(prefixes)}


class StatisticKeys:
    """The keys of rows of a partition in statistics."""

    def __init__(self, lookup: PartitionLookup, encoders: Encoders, items: Path) -> None:
        """Compute the keys of all versions.

        Args:
            lookup: Users and items of the partition.
            encoders: The encoders, for the keys of values.
            items: The folder ``items`` of the dataset.
        """
        schema = lookup.job.schema
        fields = _key_fields(schema)
        self._lookup, self._encoders = lookup, encoders
        self._versions: dict[str, Array] = {}
        """``user.feature`` or ``item.feature`` -> uint64 [versions]"""
        for name, keys in lookup.entities.keys(encoders).items():
            self._versions[f"user.{name}"] = keys
        names = key_features(schema, "item")
        if any(f"item.{name}" in fields for name in names):
            columns = load_array(items / "keys.npy")
            self._versions |= {f"item.{name}": columns[:, i] for i, name in enumerate(names)}

    def of(self, fields: set[str], rows: Rows, time_ms: Array) -> dict[str, Array]:
        """Return uint64 [n] of every key field.

        Args:
            fields: ``user``, ``item`` and features as ``level.name``.
            rows: Rows with versions of users and items.
            time_ms: int64 [n], UTC, the time of each row.
        """
        needs_coordinates = any(
            feature.inputs() and f"{level}.{name}" in fields
            for level, name, feature in self._lookup.job.schema.features
        )
        coordinates = self._lookup.coordinates(rows) if needs_coordinates else {}
        keys = {}
        for field in sorted(fields):
            level, _, name = field.partition(".")
            if not name:
                of_ids = self._lookup.users.keys if field == "user" else self._lookup.items.keys
                keys[field] = of_ids[np.asarray(rows[field])]
            elif field in self._versions:
                keys[field] = self._versions[field][np.asarray(rows[f"{level}_row"])]
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


def leading_bits(schema: Schema, log_rows: int, memory_rows: int) -> int:
    """Return the number of leading bits of a key that choose its bucket.

    Args:
        schema: The schema with the statistics.
        log_rows: Number of impressions.
        memory_rows: Approximate number of rows in memory at once.
    """
    buckets = -(-log_rows * len(schema.statistics) // memory_rows)
    return min(_MAX_BITS, (buckets - 1).bit_length())


def add_up(
    path: Path, rows: Rows, keys: StatisticKeys, schema: Schema, log_end_ms: int, bits: int
) -> None:
    """Write the sums of rows by statistic, key and day.

    Args:
        path: The file, for :func:`write_statistics`.
        rows: Columns of :func:`statistic_columns`, with versions.
        keys: The keys of the rows.
        schema: The schema of the logs.
        log_end_ms: End of the log in ms UTC. Labels that became known later do not count.
        bits: See :func:`leading_bits`.

    Raises:
        StorageError: The disk is full or read-only.
    """
    time_ms = np.asarray(rows["time_ms"])
    key_of = keys.of(_key_fields(schema), rows, time_ms)
    logged = {name: np.asarray(rows[f"label.{name}"]) for name in schema.tasks}
    available = {
        name: np.asarray(rows[f"available.{name}"])
        for name in schema.tasks
        if f"available.{name}" in rows
    }
    known = known_since(schema.labels, time_ms, available)
    sums: list[Rows] = []
    for number, statistic in enumerate(schema.statistics.values()):
        final_ms, positive_ms = known[statistic.label]
        label = logged[statistic.label]
        counted = np.flatnonzero((label >= 0) & (final_ms <= log_end_ms))
        positive = np.flatnonzero((label == 1) & (positive_ms <= log_end_ms))
        key = combined_keys([key_of[field] for field in statistic.by])
        days = local_day(
            np.concatenate([final_ms[counted], positive_ms[positive]]), schema.clock.timezone
        )
        ones = np.repeat(np.eye(2, dtype=np.int64), [len(counted), len(positive)], axis=0)
        key, days, counts = _summed(key[np.concatenate([counted, positive])], days, ones)
        statistic_of_row = np.full(len(key), number)
        sums.append({"key": key, "day": days, "counts": counts, "statistic": statistic_of_row})
    every = concatenate_rows(sums)
    key = np.asarray(every["key"])
    bucket = (key >> np.uint64(64 - bits) if bits else np.zeros_like(key)).astype(np.int64)
    every = take_rows(every, np.argsort(bucket, kind="stable"))
    save_groups(path, as_batch(every), np.bincount(bucket, minlength=1 << bits))


def write_statistics(schema: Schema, sums: Sequence[Path], bits: int, folder: Path) -> None:
    """Add up the sums of all partitions and write the tables.

    Args:
        schema: The schema of the logs.
        sums: Files of :func:`add_up`.
        bits: As there.
        folder: The new folder ``statistics``.

    Raises:
        StorageError: The disk is full or read-only.
    """
    with storage_errors(folder):
        folder.mkdir()
    names = list(schema.statistics)
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
        for bucket in range(1 << bits):
            tables = [GroupedFile(path).rows(bucket) for path in sums]
            rows = concatenate_rows(tables) if tables else {}
            for number in range(len(names) if rows else 0):
                own = np.asarray(rows["statistic"]) == number
                key, day, counts = _summed(
                    *(np.asarray(rows[name])[own] for name in ("key", "day", "counts"))
                )
                columns = (key, day, _running(key, counts))
                for file, values in zip(out[number], columns, strict=True):
                    file.append(values)
                _, days, counts = _summed(np.zeros_like(key), day, counts)
                day_counts[number].append(np.concatenate([days[:, None], counts], axis=1))
    for name, of_buckets in zip(names, day_counts, strict=True):
        every = np.concatenate(of_buckets)
        _, days, counts = _summed(np.zeros(len(every), np.uint64), every[:, 0], every[:, 1:])
        prior = np.concatenate([days[:, None], np.cumsum(counts, axis=0)], axis=1)
        save_array(folder / f"{name}.prior.npy", prior)


def statistic_numbers(
    schema: Schema, tables: Statistics, keys: StatisticKeys, level: str, rows: Rows
) -> Array:
    """Look up the statistics of a level.

    Args:
        schema: The schema of the logs.
        tables: The statistics.
        keys: The keys of the rows.
        level: ``context`` or ``cross``.
        rows: Sorted rows; for ``context`` the first row of every request.

    Returns:
        float32 [n, 2 * statistics of the level].
    """
    time_ms = np.asarray(rows["request_time_ms"])
    fields = {field for name in schema.statistics_of(level) for field in schema.statistics[name].by}
    day = local_day(time_ms, schema.clock.timezone)
    return tables.numbers(level, keys.of(fields, rows, time_ms), day)


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
