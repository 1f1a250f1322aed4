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

from hemix.data.encode import Encoders, KeyMap, all_features, level_features
from hemix.data.keys import NULL_KEY, KeyIndex
from hemix.data.raw_columns import RawColumn, mixed
from hemix.data.spec import FIRST
from hemix.features.base import FeatureType, StatePath, Vocabulary
from hemix.features.history_counts import counted_actions
from hemix.schema import Schema

__all__ = ["EncoderFitter", "in_sample", "key_map"]

Array = npt.NDArray[Any]

_SAMPLE_ROWS = 1 << 19
_LEAST_EARLY_EVENTS = 1_000
"""Buckets of an event field are learned from the events before the first impression where these are
so many; else from all events before the end of training.
"""


def in_sample(log_row: Array, rows: int) -> Array:
    """bool [n]: which rows of a log of so many rows are in the sample; a function of the row number
    alone.
    """
    if rows <= _SAMPLE_ROWS:
        return np.ones(len(log_row), dtype=bool)
    kept: Array = mixed(log_row.astype(np.uint64)) < np.uint64(int(2**64 * (_SAMPLE_ROWS / rows)))
    return kept


def key_map(index: KeyIndex) -> KeyMap:
    """The index as a plain map from key to number."""
    return KeyMap(index.sorted_keys, index.sorted_numbers)


class EncoderFitter:
    """Gathers counts and samples level by level; :meth:`fit` makes the encoders."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._vocabularies: dict[str, Vocabulary] = {}
        """table -> the settings of the first feature that has it"""
        for level, name, feature in all_features(schema):
            settings = feature.vocabulary_settings()
            if settings is not None:
                self._vocabularies.setdefault(feature.table_of(level, name), settings)
        self._seen = {table: KeyIndex() for table in self._vocabularies}
        self._counts = {table: np.zeros(0) for table in self._vocabularies}
        self._event_tables = _event_tables(schema)
        self._always = {table: np.zeros(0, dtype=bool) for table in self._vocabularies}
        """Which of the seen values are known however rarely they are counted"""
        self._numbers: dict[str, list[tuple[Array, Array]]] = {}
        """``level.feature`` -> (values, weights)"""
        self._early: dict[str, list[tuple[Array, Array]]] = {}
        """The same of the event fields before the first impression, which are not among the
        others
        """

    def see(
        self, level: str, raw: Mapping[str, RawColumn | None], columns: Mapping[str, pa.Array]
    ) -> None:
        """Remember the texts behind the keys of a chunk.

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
            if isinstance(keys, tuple):
                index.add(values.flatten())
            elif keys is not None:
                index.note(keys, values)

    def count(
        self,
        level: str,
        raw: Mapping[str, RawColumn | None],
        rows: Array | None = None,
        *,
        sample: Array | None = None,
    ) -> None:
        """Count training rows: impressions, or the users and items that they point to.

        Args:
            level: The level of the features; ``event`` where the impressions are the events.
            raw: The raw column of every feature by name; a feature without one is left out.
            rows: float64 [n], how often each row counts; by default once.
            sample: bool [n], which rows numbers are learned from; by default all.
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
        """Learn from events before the end of training, without letting labels decide.

        A click is an event, so how often a value occurs in events depends on labels. A value of an
        event field is therefore known from its first event on, whatever ``min_count`` says, and
        ordered by the events before the first impression, which no label of the log has caused. A
        field that shares its table with a feature adds nothing: the train impressions decide there.

        Args:
            raw: The raw column of every event field by name.
            early: bool [n], which events happened before the first impression of the log.
            sample: bool [n], which events numbers are learned from.
        """
        for name, feature in level_features(self._schema, "event").items():
            column = raw.get(name)
            if column is None or isinstance(column, tuple):
                continue
            if feature.state_path("event", name) is not None:
                ones = np.ones(len(column))
                self._keep(self._early, f"event.{name}", column, ones, sample & early)
                self._keep(self._numbers, f"event.{name}", column, ones, sample & ~early)
            table = feature.table_of("event", name)
            if table in self._event_tables:
                self._know(table, self._count_keys(table, column, early.astype(np.float64)))

    def know(self, name: str, keys: Array) -> None:
        """Give these values of an event field, uint64 [n], rows of their own, however rare they
        are.
        """
        field = level_features(self._schema, "event")[name]
        table = field.table_of("event", name)
        if table in self._seen:
            self._know(table, self._seen[table].look_up(keys))

    def _know(self, table: str, numbers: Array) -> None:
        always = _padded(self._always[table], len(self._seen[table]))
        always[numbers[numbers >= 0]] = True
        self._always[table] = always

    def sample(
        self, key: str, values: RawColumn, rows: Array | None = None, sample: Array | None = None
    ) -> None:
        """Remember numbers to learn from.

        Args:
            key: ``level.feature``.
            values: float64 [n] or [n, k].
            rows: float64 [n], how often each row counts; by default once.
            sample: bool [n], which rows are learned from; by default all.
        """
        assert isinstance(values, np.ndarray), f"{key}: a state is learned from numbers"
        self._keep(
            self._numbers, key, values, np.ones(len(values)) if rows is None else rows, sample
        )

    @staticmethod
    def _keep(
        numbers: dict[str, list[tuple[Array, Array]]],
        key: str,
        values: Array,
        weights: Array,
        sample: Array | None,
    ) -> None:
        kept = ~np.isnan(values if values.ndim == 1 else values[:, 0]) & (weights > 0)
        if sample is not None:
            kept &= sample
        numbers.setdefault(key, []).append((values[kept], weights[kept]))

    def _count_keys(self, table: str, column: RawColumn, rows: Array | None) -> Array:
        """Count the keys of a column; return their numbers in the table's index, -1 where
        missing.
        """
        index = self._seen[table]
        keys, weights = column, rows
        if isinstance(keys, tuple):
            keys, offsets = keys
            weights = None if rows is None else np.repeat(rows, np.diff(offsets))
        numbers = index.look_up(keys)
        known = numbers >= 0
        counts = np.bincount(
            numbers[known], None if weights is None else weights[known], minlength=len(index)
        ).astype(np.float64)
        self._counts[table] = counts + _padded(self._counts[table], len(counts))
        return numbers

    def fit(self, users: KeyIndex, items: KeyIndex) -> tuple[Encoders, dict[str, pa.Table]]:
        """The encoders, and for people the values of every vocabulary: table (id, value, count)."""
        vocabularies: dict[str, KeyMap] = {}
        texts: dict[str, pa.Table] = {}
        for table, settings in self._vocabularies.items():
            vocabularies[table], texts[table] = _vocabulary(
                settings, self._seen[table], self._counts[table], self._always[table]
            )
        action = self._schema.event_fields["action"]
        named = texts.get(action.table_of("event", "action"))
        encoders = Encoders(
            schema=self._schema,
            vocabularies=vocabularies,
            states=self._fit_states(),
            actions=counted_actions([] if named is None else named.column("value").to_pylist()),
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
                samples.setdefault(path, []).append(self._gathered(f"{level}.{name}"))
                types.setdefault(path, feature)
        return {path: types[path].fit(pieces) for path, pieces in samples.items()}

    def _gathered(self, key: str) -> tuple[Array, Array]:
        pieces = self._early.get(key, [])
        if sum(len(values) for values, _ in pieces) < _LEAST_EARLY_EVENTS:
            pieces = [*pieces, *self._numbers.get(key, [])]
        if not pieces:
            return np.zeros(0), np.zeros(0)
        return np.concatenate([v for v, _ in pieces]), np.concatenate([w for _, w in pieces])


def _event_tables(schema: Schema) -> set[str]:
    """The vocabularies whose values only an events table holds."""
    if schema.history_source == "impressions":
        return set()
    tables: dict[bool, set[str]] = {False: set(), True: set()}
    for level, name, feature in all_features(schema):
        if feature.vocabulary_settings() is not None:
            tables[level == "event"].add(feature.table_of(level, name))
    return tables[True] - tables[False]


def _padded(values: Array, size: int) -> Array:
    """A copy with zeros behind it, up to ``size``."""
    return np.concatenate([values, np.zeros(size - len(values), dtype=values.dtype)])


def _vocabulary(
    settings: Vocabulary, seen: KeyIndex, counts: Array, always: Array
) -> tuple[KeyMap, pa.Table]:
    counts, always = _padded(counts, len(seen)).astype(np.int64), _padded(always, len(seen))
    kept = np.flatnonzero((counts >= settings.min_count) | always)
    table = pa.table({"value": seen.texts().take(pa.array(kept)), "count": counts[kept]})
    order = pc.sort_indices(table, sort_keys=[("count", "descending"), ("value", "ascending")])[
        : settings.max_rows
    ]
    keys = seen.keys()[kept[order.to_numpy()]]
    assert not (keys == NULL_KEY).any()
    ids = np.arange(FIRST, FIRST + len(keys), dtype=np.int32)
    by_key = np.argsort(keys)
    return KeyMap(keys[by_key], ids[by_key]), table.take(order).add_column(0, "id", pa.array(ids))
