"""The features of a level: in their order, and the tensor columns that they become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hemix.data.raw_columns import RawColumn
from hemix.data.spec import LevelSpec
from hemix.features.base import LEVELS, FeatureType, RowContext
from hemix.features.history_counts import history_count_names
from hemix.features.match_counts import match_names, match_total_names
from hemix.schema import Schema

__all__ = ["all_features", "learning_columns", "level_features", "level_spec"]


def level_features(schema: Schema, level: str) -> Mapping[str, FeatureType]:
    """Return the features of a level, in their order.

    Args:
        schema: The schema.
        level: ``user``, ``context``, ``item`` or ``cross``; ``event`` for the fields of events.
    """
    return schema.event_fields if level == "event" else schema.features.level(level)


def all_features(schema: Schema) -> Iterator[tuple[str, str, FeatureType]]:
    """Yield all features, then the fields of events, as (level, name, feature)."""
    for level in (*LEVELS, "event"):
        for name, feature in level_features(schema, level).items():
            yield level, name, feature


def learning_columns(schema: Schema, level: str, context: RowContext) -> dict[str, RawColumn]:
    """Compute the raw columns of a level's computed features that learn from numbers.

    Args:
        schema: The schema.
        level: Their level; ``event`` for fields of events.
        context: Times and coordinates of the rows.

    Returns:
        Raw columns by feature; empty if the level has no such feature.
    """
    return {
        name: feature.compute(context)
        for name, feature in level_features(schema, level).items()
        if not feature.columns(name) and feature.state_path(level, name) is not None
    }


def level_spec(
    schema: Schema,
    level: str,
    actions: Sequence[str] = (),
    match_actions: Sequence[str] = (),
    match_windows_ms: Sequence[int] = (),
) -> LevelSpec:
    """Return the tensor columns of a level.

    Args:
        schema: The schema.
        level: A level, or ``event``.
        actions: The actions that history counts have a number for.
        match_actions: The actions that match counts have numbers for.
        match_windows_ms: The windows of match counts.

    Returns:
        The columns of the features, then the numbers of statistics, of history counts and of match
        counts.
    """
    ids: list[tuple[str, str]] = []
    jagged: list[tuple[str, str]] = []
    numbers: list[str] = []
    for name, feature in level_features(schema, level).items():
        columns, table = feature.tensor_columns(), feature.table_of(level, name)
        if columns.ids:
            ids.append((name, table))
        if columns.jagged:
            jagged.append((name, table))
        numbers += [name + suffix for suffix in columns.numbers]
    for name in schema.statistics_of(level):
        numbers += schema.statistics[name].number_names(name)
    if level == "context" and schema.history.counts:
        numbers += history_count_names(actions)
    counts = schema.history.match_counts
    if counts is not None and schema.match_columns:
        if level == "context":
            numbers += match_total_names(match_actions, match_windows_ms)
        elif level == "cross":
            numbers += match_names(counts, schema.match_columns, match_actions, match_windows_ms)
    return LevelSpec(
        names=tuple(n for n, _ in ids),
        tables=tuple(t for _, t in ids),
        jagged_names=tuple(n for n, _ in jagged),
        jagged_tables=tuple(t for _, t in jagged),
        number_names=tuple(numbers),
    )
