"""What encoders learn from the rows of one partition: counts of values and samples of numbers.

Counts are whole numbers, and what is learned from samples does not depend on their order. So the
encoders are the same for every number of partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import NULL_KEY, distinct
from hemix.data.levels import all_features, level_features
from hemix.data.raw_columns import RawColumn
from hemix.files import storage_errors
from hemix.preparation.rows import GroupedFile, Rows, as_batch, save_groups
from hemix.preparation.texts import text_tables
from hemix.schema import Schema
from hemix.splitmix import mix_bits

__all__ = [
    "Counts",
    "PartialCounts",
    "Sample",
    "in_sample",
    "load_counts",
    "load_samples",
    "sampled_features",
]

Array = npt.NDArray[Any]
Sample = tuple[Array, Array]
"""Values float64 [n] or [n, k], and how often each counts, float64 [n]"""

_SAMPLE_ROWS = 1 << 19
_COLUMNS = ("keys", "counts", "always")
_KINDS: tuple[Literal["early", "other"], ...] = ("early", "other")
_COUNTS, _SAMPLES = "counts.arrow", "samples.npz"


def in_sample(log_row: Array, rows: int) -> Array:
    """Sample log rows for learning from numbers, by their row number alone.

    Args:
        log_row: int64 [n], row numbers in the log.
        rows: Number of rows of the log.

    Returns:
        bool [n]. The sample has about half a million rows of a longer log.
    """
    if rows <= _SAMPLE_ROWS:
        return np.ones(len(log_row), dtype=bool)
    threshold = np.uint64(int(2**64 * (_SAMPLE_ROWS / rows)))
    sample: Array = mix_bits(log_row.astype(np.uint64)) < threshold
    return sample


def sampled_features(schema: Schema) -> list[str]:
    """Return the features that learn from numbers, as ``level.feature``."""
    return [
        f"{level}.{name}"
        for level, name, feature in all_features(schema)
        if feature.state_path(level, name) is not None
    ]


class Counts:
    """How often each value of one vocabulary occurs."""

    def __init__(self, keys: Array, counts: Array, always: Array) -> None:
        """Take counts of keys.

        Args:
            keys: uint64 [n]; of :meth:`sum` distinct, ascending and without NULL_KEY.
            counts: int64 [n].
            always: bool [n], the values that get a row whatever their count.
        """
        self.keys, self.counts, self.always = keys, counts, always

    @classmethod
    def sum(cls, tables: list[Counts]) -> Counts:
        """Add up any counts; keys may be repeated within a table too."""
        keys = np.concatenate([np.zeros(0, np.uint64), *(table.keys for table in tables)])
        counts = np.concatenate([np.zeros(0, np.int64), *(table.counts for table in tables)])
        always = np.concatenate([np.zeros(0, bool), *(table.always for table in tables)])
        order = np.argsort(keys)
        order = order[np.searchsorted(keys[order], NULL_KEY, side="right") :]
        if len(order) == 0:
            return cls(keys[:0], counts[:0], always[:0])
        keys = keys[order]
        begin = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        return cls(
            keys[begin],
            np.add.reduceat(counts[order], begin),
            np.logical_or.reduceat(always[order], begin),
        )


class PartialCounts:
    """Counts the train rows of a partition: impressions, and the users that they refer to."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._counts: dict[str, list[Counts]] = {}
        self._event_tables = _event_tables(schema)
        self._numbers: dict[str, list[Sample]] = {}
        """By ``level.feature``"""
        self._early: dict[str, list[Sample]] = {}
        """The same of events before the first impression, which ``_numbers`` does not have"""

    def count(
        self,
        level: str,
        raw: Mapping[str, RawColumn | None],
        rows: Array | None = None,
        *,
        sample: Array | None = None,
    ) -> None:
        """Count train rows.

        Args:
            level: The level of the features; ``event`` if the impressions are the events.
            raw: The raw column of every feature by name. A feature without a column is skipped.
            rows: int64 [n], how often each row counts; by default once.
            sample: bool [n], the rows that numbers are learned from; by default all.
        """
        for name, feature in level_features(self._schema, level).items():
            column = raw.get(name)
            if column is None:
                continue
            if feature.vocabulary_settings() is not None:
                self._count_keys(feature.table_of(level, name), column, rows)
            if feature.state_path(level, name) is not None:
                self.sample(f"{level}.{name}", column, rows, sample)

    def count_events(
        self, raw: Mapping[str, RawColumn | None], early: Array, sample: Array
    ) -> None:
        """Learn from events before the end of the train split, without leaking labels.

        A click is an event, so counts of events depend on labels. So every value of an event field
        gets a row, whatever ``min_count`` is. Values are ordered by their number of events before
        the first impression, which no label of the log has caused. A field that shares its table
        with a feature adds no values: the train impressions decide there.

        Args:
            raw: The raw column of every event field by name.
            early: bool [n], the events before the first impression of the log.
            sample: bool [n], the events that numbers are learned from.
        """
        for name, feature in level_features(self._schema, "event").items():
            column = raw.get(name)
            if column is None or isinstance(column, JaggedArray):
                continue
            if feature.state_path("event", name) is not None:
                ones = np.ones(len(column))
                _add_numbers(self._early, f"event.{name}", column, ones, sample & early)
                _add_numbers(self._numbers, f"event.{name}", column, ones, sample & ~early)
            table = feature.table_of("event", name)
            if table in self._event_tables:
                self._count_keys(table, column, early.astype(np.int64), always=True)

    def include(self, table: str, keys: Array) -> None:
        """Give values a row in their vocabulary, whatever their count.

        Args:
            table: The vocabulary.
            keys: uint64 [n].
        """
        own = Counts(keys, np.zeros(len(keys), np.int64), np.ones(len(keys), bool))
        self._counts.setdefault(table, []).append(own)

    def sample(
        self, key: str, values: RawColumn, rows: Array | None = None, sample: Array | None = None
    ) -> None:
        """Store numbers to learn from.

        Args:
            key: ``level.feature``.
            values: float64 [n] or [n, k].
            rows: int64 [n], how often each row counts; by default once.
            sample: bool [n], the rows to learn from; by default all.
        """
        assert isinstance(values, np.ndarray), f"{key}: a state is learned from numbers"
        weights = np.ones(len(values)) if rows is None else rows.astype(np.float64)
        _add_numbers(self._numbers, key, values, weights, sample)

    def _count_keys(
        self, table: str, column: RawColumn, rows: Array | None, *, always: bool = False
    ) -> None:
        if isinstance(column, JaggedArray):
            keys, weights = column.values, None if rows is None else np.repeat(rows, column.lengths)
        else:
            keys, weights = column, rows
        unique, codes = distinct(pa.array(keys))
        counts = np.bincount(codes, weights, minlength=len(unique)).astype(np.int64)
        own = Counts(
            unique.to_numpy(zero_copy_only=False), counts, np.full(len(unique), always, dtype=bool)
        )
        self._counts.setdefault(table, []).append(own)

    def save(self, folder: Path) -> None:
        """Write counts and samples, for :func:`load_counts` and :func:`load_samples`.

        Args:
            folder: An existing folder.

        Raises:
            StorageError: The disk is full or read-only.
        """
        tables = [Counts.sum(self._counts.get(name, [])) for name in text_tables(self._schema)]
        every = Counts(*(np.concatenate([getattr(t, n) for t in tables]) for n in _COLUMNS))
        rows: Rows = {"keys": every.keys, "counts": every.counts}
        rows["always"] = every.always.astype(np.uint8)
        save_groups(folder / _COUNTS, as_batch(rows), np.array([len(t.keys) for t in tables]))
        arrays: dict[str, Array] = {}
        for number, key in enumerate(sampled_features(self._schema)):
            for kind, samples in zip(_KINDS, (self._early, self._numbers), strict=True):
                if samples.get(key):
                    arrays[f"{kind}.{number}.values"] = np.concatenate([v for v, _ in samples[key]])
                    arrays[f"{kind}.{number}.weights"] = np.concatenate(
                        [w for _, w in samples[key]]
                    )
        path = folder / _SAMPLES
        with storage_errors(path), path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def load_counts(folder: Path, schema: Schema) -> dict[str, Counts]:
    """Read the counts of all vocabularies.

    Args:
        folder: The folder of :meth:`PartialCounts.save`.
        schema: The schema of the logs.
    """
    file, tables = GroupedFile(folder / _COUNTS), dict[str, Counts]()
    for number, table in enumerate(text_tables(schema)):
        rows = file.rows(number)
        keys, counts, always = (np.asarray(rows[name]) for name in _COLUMNS)
        tables[table] = Counts(keys, counts, always.astype(bool))
    return tables


def load_samples(
    folder: Path, schema: Schema
) -> Iterator[tuple[str, Literal["early", "other"], Sample]]:
    """Read the samples of all features.

    Args:
        folder: The folder of :meth:`PartialCounts.save`.
        schema: The schema of the logs.

    Yields:
        The feature as ``level.feature``; whether the sample is of events before the first
        impression; and the sample.
    """
    with np.load(folder / _SAMPLES, allow_pickle=False) as arrays:
        for number, key in enumerate(sampled_features(schema)):
            for kind in _KINDS:
                name = f"{kind}.{number}"
                if f"{name}.values" in arrays:
                    yield key, kind, (arrays[f"{name}.values"], arrays[f"{name}.weights"])


def _add_numbers(
    numbers: dict[str, list[Sample]],
    key: str,
    values: Array,
    weights: Array,
    sample: Array | None,
) -> None:
    selected = ~np.isnan(values if values.ndim == 1 else values[:, 0]) & (weights > 0)
    if sample is not None:
        selected &= sample
    numbers.setdefault(key, []).append((values[selected], weights[selected]))


def _event_tables(schema: Schema) -> set[str]:
    """The vocabularies whose values are in an events table only."""
    if schema.history_source == "impressions":
        return set()
    tables: dict[bool, set[str]] = {False: set(), True: set()}
    for level, name, feature in all_features(schema):
        if feature.vocabulary_settings() is not None:
            tables[level == "event"].add(feature.table_of(level, name))
    return tables[True] - tables[False]
