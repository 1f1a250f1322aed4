"""Learn the encoders from the train rows: vocabularies, bucket edges, means.

The fitter stores the texts of values while the logs are read. It counts them later, without
duplicates. Only train impressions are counted: labels cause events, so a count of events would
leak which items were clicked. The result does not depend on the size of the chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.encode import Encoders
from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import NULL_KEY, KeyIndex, KeyMap
from hemix.data.levels import all_features, level_features
from hemix.data.raw_columns import RawColumn
from hemix.data.spec import FIRST
from hemix.features.base import FeatureType, StatePath, Vocabulary
from hemix.features.history_counts import counted_actions
from hemix.schema import Schema
from hemix.splitmix import mix_bits

__all__ = ["EncoderFitter", "in_sample", "key_map"]

Array = npt.NDArray[Any]

_SAMPLE_ROWS = 1 << 19
_MIN_EARLY_EVENTS = 1_000
"""With at least so many events before the first impression, buckets of an event field are learned
from them, else from all events before the end of the train split
"""


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


def key_map(index: KeyIndex) -> KeyMap:
    """Return the map from key to number of an index."""
    return KeyMap(index.sorted_keys, index.sorted_numbers)


class EncoderFitter:
    """Collects counts and samples of values; :meth:`fit` makes the encoders."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._vocabularies: dict[str, Vocabulary] = {}
        """table -> the settings of its first feature"""
        for level, name, feature in all_features(schema):
            settings = feature.vocabulary_settings()
            if settings is not None:
                self._vocabularies.setdefault(feature.table_of(level, name), settings)
        self._seen = {table: KeyIndex() for table in self._vocabularies}
        self._counts = {table: np.zeros(0) for table in self._vocabularies}
        self._event_tables = _event_tables(schema)
        self._always = {table: np.zeros(0, dtype=bool) for table in self._vocabularies}
        """table -> bool [values]: observed values that get a row whatever their count"""
        self._numbers: dict[str, list[tuple[Array, Array]]] = {}
        """``level.feature`` -> (values, weights)"""
        self._early: dict[str, list[tuple[Array, Array]]] = {}
        """``level.feature`` -> (values, weights) of events before the first impression, which
        ``_numbers`` does not have
        """

    def observe(
        self, level: str, raw: Mapping[str, RawColumn | None], columns: Mapping[str, pa.Array]
    ) -> None:
        """Store the texts of the keys of a chunk.

        Args:
            level: The level of the features.
            raw: The raw column of every feature by name.
            columns: The Arrow columns that they were read from.
        """
        for name, feature in level_features(self._schema, level).items():
            if feature.vocabulary_settings() is None:
                continue
            index = self._seen[feature.table_of(level, name)]
            values, keys = columns.get(feature.columns(name)[0]), raw.get(name)
            if values is None or pa.types.is_null(values.type):
                continue
            if isinstance(keys, JaggedArray):
                index.add(values.flatten())
            elif keys is not None:
                index.add_hashed(keys, values)

    def count(
        self,
        level: str,
        raw: Mapping[str, RawColumn | None],
        rows: Array | None = None,
        *,
        sample: Array | None = None,
    ) -> None:
        """Count train rows: impressions, or the users and items that they refer to.

        Args:
            level: The level of the features; ``event`` if the impressions are the events.
            raw: The raw column of every feature by name. A feature without a column is skipped.
            rows: float64 [n], how often each row counts; by default once.
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
                self._add_numbers(self._early, f"event.{name}", column, ones, sample & early)
                self._add_numbers(self._numbers, f"event.{name}", column, ones, sample & ~early)
            table = feature.table_of("event", name)
            if table in self._event_tables:
                numbers = self._count_keys(table, column, early.astype(np.float64))
                self._include_numbers(table, numbers)

    def always_include(self, name: str, keys: Array) -> None:
        """Give values of an event field a row in its vocabulary, whatever their count.

        Args:
            name: The event field.
            keys: uint64 [n], keys of observed values.
        """
        field = level_features(self._schema, "event")[name]
        table = field.table_of("event", name)
        if table in self._seen:
            self._include_numbers(table, self._seen[table].look_up(keys))

    def _include_numbers(self, table: str, numbers: Array) -> None:
        always = _padded(self._always[table], len(self._seen[table]))
        always[numbers[numbers >= 0]] = True
        self._always[table] = always

    def sample(
        self, key: str, values: RawColumn, rows: Array | None = None, sample: Array | None = None
    ) -> None:
        """Store numbers to learn from.

        Args:
            key: ``level.feature``.
            values: float64 [n] or [n, k].
            rows: float64 [n], how often each row counts; by default once.
            sample: bool [n], the rows to learn from; by default all.
        """
        assert isinstance(values, np.ndarray), f"{key}: a state is learned from numbers"
        weights = np.ones(len(values)) if rows is None else rows
        self._add_numbers(self._numbers, key, values, weights, sample)

    @staticmethod
    def _add_numbers(
        numbers: dict[str, list[tuple[Array, Array]]],
        key: str,
        values: Array,
        weights: Array,
        sample: Array | None,
    ) -> None:
        selected = ~np.isnan(values if values.ndim == 1 else values[:, 0]) & (weights > 0)
        if sample is not None:
            selected &= sample
        numbers.setdefault(key, []).append((values[selected], weights[selected]))

    def _count_keys(self, table: str, column: RawColumn, rows: Array | None) -> Array:
        """Count the keys of a column and return their numbers in the table's index; -1: missing."""
        index = self._seen[table]
        if isinstance(column, JaggedArray):
            keys, weights = column.values, None if rows is None else np.repeat(rows, column.lengths)
        else:
            keys, weights = column, rows
        numbers = index.look_up(keys)
        known = numbers >= 0
        counts = np.bincount(
            numbers[known], None if weights is None else weights[known], minlength=len(index)
        ).astype(np.float64)
        self._counts[table] = counts + _padded(self._counts[table], len(counts))
        return numbers

    def fit(self, users: KeyIndex, items: KeyIndex) -> tuple[Encoders, dict[str, pa.Table]]:
        """Make the encoders from all counts and samples.

        Args:
            users: Numbers of the users.
            items: Numbers of the items.

        Returns:
            The encoders; and by vocabulary a table (id, value, count) for people.
        """
        vocabularies: dict[str, KeyMap] = {}
        texts: dict[str, pa.Table] = {}
        for table, settings in self._vocabularies.items():
            vocabularies[table], texts[table] = _vocabulary(
                settings, self._seen[table], self._counts[table], self._always[table]
            )
        action = self._schema.event_fields["action"]
        actions = texts.get(action.table_of("event", "action"))
        encoders = Encoders(
            schema=self._schema,
            vocabularies=vocabularies,
            states=self._fit_states(),
            actions=counted_actions([] if actions is None else actions.column("value").to_pylist()),
            users=key_map(users),
            items=key_map(items),
        )
        return encoders, texts

    def _fit_states(self) -> dict[StatePath, Any]:
        samples: dict[StatePath, list[tuple[Array, Array]]] = {}
        types: dict[StatePath, FeatureType] = {}
        for level, name, feature in all_features(self._schema):
            path = feature.state_path(level, name)
            if path is not None:
                samples.setdefault(path, []).append(self._sample_of(f"{level}.{name}"))
                types.setdefault(path, feature)
        return {path: types[path].fit(of_features) for path, of_features in samples.items()}

    def _sample_of(self, key: str) -> tuple[Array, Array]:
        """All values and weights to learn a feature's state from."""
        chunks = self._early.get(key, [])
        if sum(len(values) for values, _ in chunks) < _MIN_EARLY_EVENTS:
            chunks = [*chunks, *self._numbers.get(key, [])]
        if not chunks:
            return np.zeros(0), np.zeros(0)
        return np.concatenate([v for v, _ in chunks]), np.concatenate([w for _, w in chunks])


def _event_tables(schema: Schema) -> set[str]:
    """The vocabularies whose values are in an events table only."""
    if schema.history_source == "impressions":
        return set()
    tables: dict[bool, set[str]] = {False: set(), True: set()}
    for level, name, feature in all_features(schema):
        if feature.vocabulary_settings() is not None:
            tables[level == "event"].add(feature.table_of(level, name))
    return tables[True] - tables[False]


def _padded(values: Array, size: int) -> Array:
    """A copy padded with zeros to ``size``."""
    return np.concatenate([values, np.zeros(size - len(values), dtype=values.dtype)])


def _vocabulary(
    settings: Vocabulary, seen: KeyIndex, counts: Array, always: Array
) -> tuple[KeyMap, pa.Table]:
    """The values with a row, most frequent first: as a map from key to id, and for people."""
    counts, always = _padded(counts, len(seen)).astype(np.int64), _padded(always, len(seen))
    selected = np.flatnonzero((counts >= settings.min_count) | always)
    table = pa.table({"value": seen.texts().take(pa.array(selected)), "count": counts[selected]})
    order = pc.sort_indices(table, sort_keys=[("count", "descending"), ("value", "ascending")])[
        : settings.max_rows
    ]
    keys = seen.keys()[selected[order.to_numpy()]]
    assert not (keys == NULL_KEY).any()
    ids = np.arange(FIRST, FIRST + len(keys), dtype=np.int32)
    by_key = np.argsort(keys)
    return KeyMap(keys[by_key], ids[by_key]), table.take(order).add_column(0, "id", pa.array(ids))
