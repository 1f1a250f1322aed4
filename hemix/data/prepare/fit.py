"""Learning the encoders from the training rows: vocabularies, bucket edges, means.

Values are seen (their texts kept) as they are read, and counted later, once duplicates are gone and
it is known which rows are training rows. Train impressions alone are counted, because labels cause
events: a count of events would tell clicked items from others. An event field is learned without
counts, see :meth:`Fitting.count_events`. Numbers of the logs are learned from a sample chosen by row
number, at most about half a million values; numbers of the users and items from all rows, weighted
by the train impressions that point to them. Nothing depends on how the logs were cut into chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.cells import MOST_NUMBER, Cell, columns_of, mixed
from hemix.data.encode import Encoders, KeyMap, Place, Scale, counted_actions, level_features, table_of
from hemix.data.keys import NULL_KEY, KeyIndex
from hemix.data.spec import FIRST
from hemix.schema import LEVELS, Categorical, Coordinates, Distance, Numeric, Schema

__all__ = ["Fitting", "key_map", "quantile_edges", "sampled"]

Array = npt.NDArray[Any]

_SAMPLE_ROWS = 1 << 19
_LEAST_EARLY_EVENTS = 1_000
"""Buckets of an event field are learned from the events before the first impression where these are so
many; else from all events before the end of training."""


def sampled(log_row: Array, rows: int) -> Array:
    """bool [n]: which rows of a log of so many rows are in the sample; a function of the row number alone."""
    if rows <= _SAMPLE_ROWS:
        return np.ones(len(log_row), dtype=bool)
    kept: Array = mixed(log_row.astype(np.uint64)) < np.uint64(int(2**64 * (_SAMPLE_ROWS / rows)))
    return kept


def key_map(index: KeyIndex) -> KeyMap:
    """The index as a plain map from key to number."""
    return KeyMap(index.sorted_keys, index.sorted_numbers)


class Fitting:
    """Gathers counts and samples level by level; :meth:`fit` makes the encoders."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._vocabularies: dict[str, Categorical] = {}
        """table -> the first feature that has it"""
        for level in (*LEVELS, "event"):
            for name, feature in level_features(schema, level).items():
                if isinstance(feature, Categorical) and feature.vocabulary is not None:
                    self._vocabularies.setdefault(table_of(level, name, feature), feature)
        self._seen = {table: KeyIndex() for table in self._vocabularies}
        self._counts = {table: np.zeros(0) for table in self._vocabularies}
        self._event_tables = _event_tables(schema)
        self._always = {table: np.zeros(0, dtype=bool) for table in self._vocabularies}
        """Which of the seen values are known however rarely they are counted"""
        self._numbers: dict[str, list[tuple[Array, Array]]] = {}
        """``level.feature`` -> (values, weights)"""
        self._early: dict[str, list[tuple[Array, Array]]] = {}
        """The same of the event fields, before the first impression"""

    def see(self, level: str, cells: Mapping[str, Cell | None], columns: Mapping[str, pa.Array]) -> None:
        """Remember the texts behind the cells of a chunk."""
        for name, feature in level_features(self._schema, level).items():
            index = self._seen.get(table_of(level, name, feature)) if isinstance(feature, Categorical) else None
            if index is None:
                continue
            values, cell = columns.get(columns_of(name, feature)[0]), cells.get(name)
            if values is None or pa.types.is_null(values.type):
                continue
            if isinstance(cell, tuple):
                index.add(values.flatten())
            elif cell is not None:
                index.note(cell, values)

    def count(
        self, level: str, cells: Mapping[str, Cell | None], rows: Array | None = None, *, sample: Array | None = None
    ) -> None:
        """Count training rows: impressions, or the users and items that they point to.

        Args:
            level: The level of the features; ``event`` where the impressions are the events.
            cells: The cells of every feature by name; a feature without cells is left out.
            rows: float64 [n], how often each row counts; by default once.
            sample: bool [n], which rows numbers are learned from; by default all.
        """
        for name, feature in level_features(self._schema, level).items():
            cell = cells.get(name)
            if cell is None:
                continue
            if isinstance(feature, Categorical):
                self._count_keys(table_of(level, name, feature), cell, rows)
            elif isinstance(feature, Numeric | Coordinates) and not isinstance(cell, tuple):
                self.sample(f"{level}.{name}", cell, rows, sample)

    def count_events(self, cells: Mapping[str, Cell | None], early: Array, sample: Array) -> None:
        """Learn from events before the end of training, without letting labels decide.

        A click is an event, so how often a value occurs in events depends on labels. A value of an event
        field is therefore known from its first event on, whatever ``min_count`` says, and ordered by the
        events before the first impression, which no label of the log has caused. A field that shares its
        table with a feature adds nothing: the train impressions decide there.

        Args:
            cells: The cells of every event field by name.
            early: bool [n], which events happened before the first impression of the log.
            sample: bool [n], which events numbers are learned from.
        """
        for name, feature in level_features(self._schema, "event").items():
            cell = cells.get(name)
            if cell is None or isinstance(cell, tuple):
                continue
            if isinstance(feature, Numeric):
                self.sample(f"event.{name}", cell, None, sample)
                self._keep(self._early, f"event.{name}", cell, np.ones(len(cell)), sample & early)
            elif isinstance(feature, Categorical):
                table = table_of("event", name, feature)
                if table in self._event_tables:
                    self._count_keys(table, cell, early.astype(np.float64))
                    self.know(name, cell)

    def know(self, name: str, keys: Array) -> None:
        """Give these values of an event field, uint64 [n], rows of their own, however rare they are."""
        field = level_features(self._schema, "event")[name]
        index = self._seen.get(table_of("event", name, field))
        if index is None:
            return
        table, numbers = table_of("event", name, field), index.look_up(keys)
        always = np.zeros(len(index), dtype=bool)
        always[: len(self._always[table])] = self._always[table]
        always[numbers[numbers >= 0]] = True
        self._always[table] = always

    def sample(self, key: str, values: Array, rows: Array | None = None, sample: Array | None = None) -> None:
        """Remember numbers, float64 [n] or [n, 2]."""
        self._keep(self._numbers, key, values, np.ones(len(values)) if rows is None else rows, sample)

    @staticmethod
    def _keep(
        numbers: dict[str, list[tuple[Array, Array]]], key: str, values: Array, weights: Array, sample: Array | None
    ) -> None:
        kept = ~np.isnan(values if values.ndim == 1 else values[:, 0]) & (weights > 0)
        if sample is not None:
            kept &= sample
        numbers.setdefault(key, []).append((values[kept], weights[kept]))

    def _count_keys(self, table: str, cell: Cell, rows: Array | None) -> None:
        index = self._seen.get(table)
        if index is None:
            return
        keys, weights = cell, rows
        if isinstance(keys, tuple):
            keys, offsets = keys
            weights = None if rows is None else np.repeat(rows, np.diff(offsets))
        numbers = index.look_up(keys)
        known = numbers >= 0
        counts = np.bincount(numbers[known], None if weights is None else weights[known], minlength=len(index)).astype(np.float64)
        before = self._counts[table]
        counts[: len(before)] += before
        self._counts[table] = counts

    def fit(self, users: KeyIndex, items: KeyIndex) -> tuple[Encoders, dict[str, pa.Table]]:
        """The encoders, and for people the values of every vocabulary: table (id, value, count)."""
        vocabularies: dict[str, KeyMap] = {}
        texts: dict[str, pa.Table] = {}
        for table, first in self._vocabularies.items():
            vocabularies[table], texts[table] = _vocabulary(first, self._seen[table], self._counts[table], self._always[table])
        edges: dict[str, Array] = {}
        scales: dict[str, Scale] = {}
        for level in (*LEVELS, "event"):
            for name, feature in level_features(self._schema, level).items():
                key = f"{level}.{name}"
                if isinstance(feature, Distance) or (isinstance(feature, Numeric) and feature.encoding == "quantile"):
                    edges[key] = quantile_edges(*self._gathered(key), feature.buckets)
                elif isinstance(feature, Numeric):
                    scales[key] = _scale([self._gathered(key)])
        places = [self._gathered(f"{level}.{n}", 2) for level, n, f in self._schema.features if isinstance(f, Coordinates)]
        action = texts.get(table_of("event", "action", self._schema.event_fields["action"]))
        encoders = Encoders(
            schema=self._schema,
            vocabularies=vocabularies,
            edges=edges,
            scales=scales,
            place=Place(*(_scale([(values[:, i], weights) for values, weights in places]) for i in range(2))),
            actions=counted_actions([] if action is None else action.column("value").to_pylist()),
            users=key_map(users),
            items=key_map(items),
        )
        return encoders, texts

    def _gathered(self, key: str, width: int = 1) -> tuple[Array, Array]:
        pieces = self._early.get(key, [])
        if sum(len(values) for values, _ in pieces) < _LEAST_EARLY_EVENTS:
            pieces = self._numbers.get(key, [])
        if not pieces:
            return np.zeros(0 if width == 1 else (0, width)), np.zeros(0)
        return np.concatenate([values for values, _ in pieces]), np.concatenate([weights for _, weights in pieces])


def _event_tables(schema: Schema) -> set[str]:
    """The vocabularies whose values only an events table holds."""
    if schema.history_source == "impressions":
        return set()
    features = {table_of(level, n, f) for level, n, f in schema.features if isinstance(f, Categorical)}
    fields = level_features(schema, "event").items()
    return {table_of("event", n, f) for n, f in fields if isinstance(f, Categorical)} - features


def _vocabulary(feature: Categorical, seen: KeyIndex, counts: Array, always: Array) -> tuple[KeyMap, pa.Table]:
    settings = feature.vocabulary
    assert settings is not None
    counts = np.concatenate([counts, np.zeros(len(seen) - len(counts))]).astype(np.int64)
    always = np.concatenate([always, np.zeros(len(seen) - len(always), dtype=bool)])
    kept = np.flatnonzero((counts >= settings.min_count) | always)
    table = pa.table({"value": seen.texts().take(pa.array(kept)), "count": counts[kept]})
    order = pc.sort_indices(table, sort_keys=[("count", "descending"), ("value", "ascending")])[: settings.max_rows]
    keys = seen.keys()[kept[order.to_numpy()]]
    assert not (keys == NULL_KEY).any()
    ids = np.arange(FIRST, FIRST + len(keys), dtype=np.int32)
    by_key = np.argsort(keys)
    return KeyMap(keys[by_key], ids[by_key]), table.take(order).add_column(0, "id", pa.array(ids))


def quantile_edges(values: Array, weights: Array, buckets: int) -> Array:
    """float64 [at most buckets - 1], strictly ascending: edge k is the smallest value with more than k / buckets of the weight at
    or below it. Edges that would leave the lowest bucket empty are left out."""
    if len(values) == 0:
        return np.zeros(0)
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(weights[order])
    at = np.searchsorted(below, below[-1] * np.arange(1, buckets) / buckets, side="right")
    edges = np.unique(values[at[at < len(values)]])
    above: Array = edges[edges > values[0]]
    return above


def _scale(pieces: list[tuple[Array, Array]]) -> Scale:
    """Mean and deviation; several pieces count alike, whatever their sizes. A number as large as a feature's largest is no measurement
    but says "no value", as DBL_MAX does: it would leave all others without a difference."""
    kept = [np.abs(values) < MOST_NUMBER for values, _ in pieces]
    pieces = [(values[own], weights[own]) for (values, weights), own in zip(pieces, kept, strict=True)]
    pieces = [(values, weights / weights.sum()) for values, weights in pieces if len(values)]
    if not pieces:
        return Scale()
    values = np.concatenate([values for values, _ in pieces])
    weights = np.concatenate([weights for _, weights in pieces]) / len(pieces)
    order = np.lexsort((weights, values))  # so that sums do not depend on the order of reading
    values, weights = values[order], weights[order]
    mean = float((weights * values).sum())
    std = float(np.sqrt((weights * (values - mean) ** 2).sum()))
    return Scale(mean, std if std > 1e-12 * max(1.0, abs(mean)) else 1.0)
