"""Learn the encoders from the counts of all partitions: vocabularies, bucket edges, means.

Only train impressions are counted: labels cause events, so a count of events would leak which items
were clicked. The result does not depend on the number of partitions or on their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.encode import Encoders
from hemix.data.keys import KeyMap
from hemix.data.levels import all_features
from hemix.data.spec import FIRST
from hemix.features.base import FeatureType, StatePath, Vocabulary
from hemix.features.history_counts import counted_actions
from hemix.preparation.partial_counts import (
    Counts,
    Sample,
    load_counts,
    load_samples,
    sampled_features,
)
from hemix.preparation.texts import find_texts, text_tables
from hemix.schema import Schema

__all__ = ["fit_encoders"]

Array = npt.NDArray[Any]

_MIN_EARLY_EVENTS = 1_000
"""With at least so many events before the first impression, buckets of an event field are learned
from them, else from all events before the end of the train split
"""
_SUMMED_AT_ONCE = 1 << 20


def fit_encoders(
    schema: Schema, partials: Sequence[Path], texts: Sequence[Path], items: KeyMap
) -> tuple[Encoders, dict[str, pa.Table]]:
    """Make the encoders from the counts and samples of all rows.

    Args:
        schema: The schema of the logs.
        partials: Folders of :meth:`hemix.preparation.partial_counts.PartialCounts.save`.
        texts: Files of :func:`hemix.preparation.texts.save_texts` with the text of every value.
        items: Numbers of the items.

    Returns:
        The encoders; and by vocabulary a table (id, value, count) for people.
    """
    vocabularies: dict[str, KeyMap] = {}
    tables: dict[str, pa.Table] = {}
    settings = {
        feature.table_of(level, name): feature.vocabulary_settings()
        for level, name, feature in all_features(schema)
    }
    totals = _totals(schema, partials)
    for number, table in enumerate(text_tables(schema)):
        own = settings.get(table)
        if own is not None:
            counts = totals[table]
            vocabularies[table], tables[table] = _vocabulary(own, counts, texts, number)
    action = schema.event_fields["action"]
    actions = tables.get(action.table_of("event", "action"))
    encoders = Encoders(
        schema=schema,
        vocabularies=vocabularies,
        states=_fit_states(schema, partials),
        actions=counted_actions([] if actions is None else actions.column("value").to_pylist()),
        items=items,
    )
    return encoders, tables


def _totals(schema: Schema, partials: Sequence[Path]) -> dict[str, Counts]:
    """The counts of every vocabulary over all partitions."""
    tables = text_tables(schema)
    totals = {table: Counts.sum([]) for table in tables}
    waiting: dict[str, list[Counts]] = {table: [] for table in tables}
    for folder in partials:
        for table, counts in load_counts(folder, schema).items():
            own = waiting[table]
            own.append(counts)
            rows = sum(len(counts.keys) for counts in own)
            if rows > max(_SUMMED_AT_ONCE, len(totals[table].keys)):
                totals[table] = Counts.sum([totals[table], *own])
                own.clear()
    return {table: Counts.sum([totals[table], *waiting[table]]) for table in tables}


def _vocabulary(
    settings: Vocabulary, counts: Counts, texts: Sequence[Path], table: int
) -> tuple[KeyMap, pa.Table]:
    """The values with a row, most frequent first: as a map from key to id, and for people."""
    selected = np.flatnonzero((counts.counts >= settings.min_count) | counts.always)
    keys = counts.keys[selected]
    numbers = KeyMap(keys, np.arange(len(keys), dtype=np.int32))
    values = pa.table(
        {"value": find_texts(texts, table, numbers), "count": counts.counts[selected]}
    )
    order = pc.sort_indices(values, sort_keys=[("count", "descending"), ("value", "ascending")])[
        : settings.max_rows
    ]
    keys = keys[order.to_numpy()]
    ids = np.arange(FIRST, FIRST + len(keys), dtype=np.int32)
    by_key = np.argsort(keys)
    return KeyMap(keys[by_key], ids[by_key]), values.take(order).add_column(0, "id", pa.array(ids))


def _fit_states(schema: Schema, partials: Sequence[Path]) -> dict[StatePath, Any]:
    early: dict[str, list[Sample]] = {key: [] for key in sampled_features(schema)}
    others: dict[str, list[Sample]] = {key: [] for key in early}
    for folder in partials:
        for key, kind, sample in load_samples(folder, schema):
            (early if kind == "early" else others)[key].append(sample)
    samples: dict[StatePath, list[Sample]] = {}
    types: dict[StatePath, FeatureType] = {}
    for level, name, feature in all_features(schema):
        path = feature.state_path(level, name)
        if path is not None:
            key = f"{level}.{name}"
            samples.setdefault(path, []).append(_sample_of(early[key], others[key]))
            types.setdefault(path, feature)
    return {path: types[path].fit(of_features) for path, of_features in samples.items()}


def _sample_of(early: Sequence[Sample], others: Sequence[Sample]) -> Sample:
    """All values and weights to learn a feature's state from."""
    chunks = list(early)
    if sum(len(values) for values, _ in early) < _MIN_EARLY_EVENTS:
        chunks += others
    if not chunks:
        return np.zeros(0), np.zeros(0)
    return np.concatenate([v for v, _ in chunks]), np.concatenate([w for _, w in chunks])
