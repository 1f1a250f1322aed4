"""Stage 6: dated statistics of the impression log.

A key (an item, say) has rows in many partitions. So `select_columns` sets columns aside while
partitions are sorted; `build` adds them up by key and day, once the encoders are learned; `numbers`
looks up what each row of a shard may know. Rows of every split count, and rows outside all splits
too: a later day may use what an earlier one showed. Sums are of integers, so the size of the
partitions changes nothing.
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
from hemix.preparation.partition_files import PartitionFiles, Rows, row_count
from hemix.schema import Schema

__all__ = ["StatisticsPass"]

Array = npt.NDArray[Any]
Places = Callable[[Rows], Mapping[str, Array]]
"""``level.feature`` -> float64 [n, 2] of the coordinates that rows refer to."""

_MOST_BITS = 8


class StatisticsPass:
    """Everything about statistics. ``places`` gives the ends of distances."""

    def __init__(
        self,
        schema: Schema,
        users: Entities,
        items: Entities,
        indices: tuple[KeyIndex, KeyIndex],
        places: Places,
    ) -> None:
        self._schema, self._entities, self._places = schema, {"user": users, "item": items}, places
        self._parts = {part for statistic in schema.statistics.values() for part in statistic.by}
        self._own_keys = {
            level: index.keys()
            for level, index in zip(("user", "item"), indices, strict=True)
            if level in self._parts
        }
        self._version_keys: dict[str, Array] = {}
        """``user.feature`` or ``item.feature`` -> uint64 [versions]"""
        self._encoders: Encoders | None = None
        self._tables: Statistics | None = None

    # -- set aside, while partitions are sorted ------------------------------------------------

    def select_columns(self, rows: Rows) -> Rows:
        """Return the columns of one partition's clean rows that statistics are made of."""
        names = {"user", "item", "time_ms", *self._parts}
        for level, name, feature in self._schema.features:
            if f"{level}.{name}" in self._parts:
                names.update(feature.inputs())
        prefixes = ("label.", "available.")
        return {n: cell for n, cell in rows.items() if n in names or n.startswith(prefixes)}

    # -- added up ------------------------------------------------------------------------------

    def build(
        self,
        job: PrepareJob,
        partitions: PartitionFiles,
        encoders: Encoders,
        log_end_ms: int,
    ) -> None:
        """Write the tables into the folder ``statistics``.

        Args:
            job: Where to write, and how much memory to use.
            partitions: What `select_columns` kept; the files are deleted.
            encoders: Give the keys of values.
            log_end_ms: Labels that were not known by then count nowhere.
        """
        self._encoders = encoders
        for level, entities in self._entities.items():
            for name in self._schema.features.level(level):
                if f"{level}.{name}" in self._parts:
                    keys = encoders.keys(level, name, entities.cells[name], entities.rows)
                    self._version_keys[f"{level}.{name}"] = keys
        bits = self._leading_bits(job.logs.impressions.rows, job.memory_rows)
        folder = job.folder / "statistics"
        with PartitionFiles(job.temporary / "sums", np.arange((1 << bits) + 1)) as sums:
            for _, rows in job.partitions(partitions, "adding up statistics"):
                self._add(rows, sums, bits, log_end_ms)
        self._write(sums, folder, job.progress)
        self._tables = Statistics.load(folder, self._schema.statistics)

    def _leading_bits(self, log_rows: int, memory_rows: int) -> int:
        """How many leading bits of a key choose its temporary file."""
        files = -(-log_rows * len(self._schema.statistics) // memory_rows)
        return min(_MOST_BITS, (files - 1).bit_length())

    def _add(self, rows: Rows, sums: PartitionFiles, bits: int, log_end_ms: int) -> None:
        """One part's sums by key and day."""
        schema = self._schema
        time_ms = np.asarray(rows["time_ms"])
        for level, entities in self._entities.items():
            rows[f"{level}_row"] = entities.versions.row_at(np.asarray(rows[level]), time_ms)
        keys = self._keys(self._parts, rows, time_ms)
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
            key = combined_keys([keys[part] for part in statistic.by])
            days = local_day(
                np.concatenate([final_ms[counted], positive_ms[positive]]),
                schema.clock.timezone,
            )
            ones = np.repeat(np.eye(2, dtype=np.int64), [len(counted), len(positive)], axis=0)
            key, days, counts = _summed(key[np.concatenate([counted, positive])], days, ones)
            found: Rows = {
                "key": key,
                "day": days,
                "counts": counts,
                "statistic": np.full(len(key), number),
            }
            if len(key):
                sums.add(
                    found,
                    (key >> np.uint64(64 - bits) if bits else np.zeros_like(key)).astype(np.int64),
                )

    def _write(self, sums: PartitionFiles, folder: Path, progress: Progress) -> None:
        folder.mkdir()
        names = list(self._schema.statistics)
        totals: list[list[Array]] = [[np.zeros((0, 3), dtype=np.int64)] for _ in names]
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
                    here = np.asarray(rows["statistic"]) == number
                    key, day, counts = _summed(
                        *(np.asarray(rows[name])[here] for name in ("key", "day", "counts"))
                    )
                    for file, values in zip(
                        out[number],
                        (key, day, _running(key, counts)),
                        strict=True,
                    ):
                        file.append(values)
                    _, days, of_day = _summed(np.zeros_like(key), day, counts)
                    totals[number].append(np.concatenate([days[:, None], of_day], axis=1))
        for name, pieces in zip(names, totals, strict=True):
            every = np.concatenate(pieces)
            _, days, counts = _summed(np.zeros(len(every), np.uint64), every[:, 0], every[:, 1:])
            save_array(
                folder / f"{name}.prior.npy",
                np.concatenate([days[:, None], np.cumsum(counts, axis=0)], axis=1),
            )

    # -- looked up -----------------------------------------------------------------------------

    def numbers(self, level: str, rows: Rows) -> Array:
        """float32 [n, 2 * statistics of the level] of sorted rows (context: of every request's
        first row).
        """
        assert self._tables is not None
        time_ms = np.asarray(rows["request_time_ms"])
        parts = {
            part
            for name in self._schema.statistics_of(level)
            for part in self._schema.statistics[name].by
        }
        return self._tables.numbers(
            level,
            self._keys(parts, rows, time_ms),
            local_day(time_ms, self._schema.clock.timezone),
        )

    def _keys(self, parts: set[str], rows: Rows, time_ms: Array) -> dict[str, Array]:
        """uint64 [n] of every part of a key; rows have user_row and item_row."""
        assert self._encoders is not None
        computed = any(
            f.inputs() and f"{level}.{n}" in parts for level, n, f in self._schema.features
        )
        places = self._places(rows) if computed else {}
        found = {}
        for part in sorted(parts):
            level, _, name = part.partition(".")
            if not name:
                found[part] = self._own_keys[part][np.asarray(rows[part])]
            elif part in self._version_keys:
                found[part] = self._version_keys[part][np.asarray(rows[f"{level}_row"])]
            else:
                cell = rows.get(part)
                found[part] = self._encoders.keys(
                    level,
                    name,
                    cell,
                    row_count(rows),
                    time_ms=time_ms,
                    coordinates=places,
                )
        return found


def _summed(keys: Array, days: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Sums of ``counts`` [n, 2] over equal (key, day), sorted by key, then day."""
    order = np.lexsort((days, keys))
    keys, days = keys[order], days[order]
    if len(keys) == 0:
        return keys, days, counts
    begin = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]) | (days[1:] != days[:-1])))
    return keys[begin], days[begin], np.add.reduceat(counts[order], begin, axis=0)


def _running(keys: Array, counts: Array) -> Array:
    """Running sums of ``counts`` [n, 2] within every run of equal keys."""
    totals: Array = np.cumsum(counts, axis=0)
    if len(keys) == 0:
        return totals
    begin = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    before = (totals - counts)[begin]
    totals -= np.repeat(before, np.diff(np.append(begin, len(keys))), axis=0)
    return totals
