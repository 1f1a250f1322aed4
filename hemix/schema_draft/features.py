"""The type of every feature, guessed from its values and its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.raw_columns import is_list, is_number
from hemix.evaluation.metrics import UndefinedMetric, auc
from hemix.schema_draft.profiles import ColumnProfile, TableProfile, equal_share
from hemix.schema_draft.roles import time_unit, words_of

__all__ = ["DraftFeature", "LevelDraft", "draft_features", "outcome_reason", "split_levels"]

_FEW = 64
"""Whole numbers with at most so many values are categories"""
_ID_WORDS = ("id", "type", "code", "category", "cat", "class", "kind", "level", "group")
_DENSE = 0.9
"""Whole numbers that take this share of all values between their bounds are codes"""
_TIME_WORDS = ("time", "timestamp", "ts", "ms", "date", "dt", "datetime", "at")
_DATES = (19_900_101, 21_001_231)
_ALMOST = 0.99
_OUTCOME_WORDS = ("dwell", "watch", "play", "stay", "duration", "revenue", "gmv", "comment", "exit")
_OUTCOME_STARTS = ("is_", "has_")
_ITEM_PREFIXES = ("item", "product", "video", "article", "movie", "ad", "poi", "offer")
_MAX_VECTOR = 4_096
_CERTAIN_AUC = 0.95
_MIN_POSITIVES = 20


@dataclass(frozen=True, kw_only=True)
class DraftFeature:
    """A feature: its keys in the schema, and what was seen."""

    name: str
    keys: Mapping[str, Any]
    reason: str


@dataclass(kw_only=True)
class LevelDraft:
    """The features of a level, and the columns that are none."""

    features: list[DraftFeature] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Columns with the reason"""


def draft_features(
    table: TableProfile, columns: Collection[str], *, own_id: str | None = None
) -> LevelDraft:
    """Choose a type for columns of a table.

    Args:
        table: The table.
        columns: The columns to look at.
        own_id: The id of the table's rows, which is a feature of its own.
    """
    level = LevelDraft()
    if own_id is not None:
        level.features.append(
            DraftFeature(name=own_id, keys=_categorical(), reason="the id itself")
        )
    pair = _coordinates(table, columns)
    if pair is not None:
        keys = {"type": "coordinates", "latitude": pair[0], "longitude": pair[1]}
        level.features.append(DraftFeature(name="location", keys=keys, reason="degrees"))
    for name in columns:
        if name == own_id or name in (pair or ()):
            continue
        column = table.columns[name]
        chosen = _keys_of(column)
        if isinstance(chosen, str):
            level.left_out.append((name, chosen))
        else:
            level.features.append(DraftFeature(name=name, keys=chosen, reason=_seen(column)))
    return level


def _categorical(**keys: Any) -> dict[str, Any]:
    return {"type": "categorical", **keys}


def _keys_of(column: ColumnProfile) -> dict[str, Any] | str:
    """The schema keys of a feature, or why a column is none."""
    if column.null_share == 1.0:
        return "null in all sampled rows"
    if is_list(column.type):
        return _list_keys(column)
    if column.distinct <= 1 and column.null_share == 0.0:
        return "the same value in all sampled rows"
    t = pa.types
    if t.is_timestamp(column.type) or t.is_time(column.type) or t.is_duration(column.type):
        return "a time; make a number or a category of it"
    if t.is_boolean(column.type) or column.is_binary:
        return _categorical()
    if set(words_of(column.name)) & set(_TIME_WORDS) and _is_time(column):
        return "a time or a date; make a number or a category of it"
    if column.is_number:
        is_code = bool(set(words_of(column.name)) & set(_ID_WORDS)) and column.is_whole
        few = column.is_whole and column.distinct <= _FEW
        if t.is_integer(column.type) and (is_code or few or _is_dense(column)):
            return _categorical()
        return {"type": "numeric"}
    if column.is_key:
        return _categorical()
    return f"no feature type reads {column.type}"


def _is_time(column: ColumnProfile) -> bool:
    if pa.types.is_date(column.type) or time_unit(column) is not None:
        return True
    if not column.is_number or column.least is None or column.most is None:
        return False
    return _DATES[0] <= column.least and column.most <= _DATES[1]


def _is_dense(column: ColumnProfile) -> bool:
    assert column.least is not None and column.most is not None
    return column.distinct >= _DENSE * (column.most - column.least + 1)


def _list_keys(column: ColumnProfile) -> dict[str, Any] | str:
    element = column.type.value_type
    if is_number(element) and not pa.types.is_integer(element):
        lengths = pc.unique(pc.list_value_length(column.values.drop_null())).to_pylist()
        if len(lengths) == 1 and 0 < lengths[0] <= _MAX_VECTOR:
            return {"type": "vector", "size": lengths[0]}
        return "a list of numbers whose length differs from row to row"
    if pa.types.is_string(element) or pa.types.is_integer(element):
        return _categorical(multi=True)
    return f"no feature type reads {column.type}"


def _seen(column: ColumnProfile) -> str:
    parts = [f"{column.distinct:,} values"]
    if column.is_number and column.least is not None:
        parts.append(f"{column.least:g} to {column.most:g}")
    if column.null_share:
        parts.append(f"{column.null_share:.1%} null")
    return ", ".join(parts)


def _coordinates(table: TableProfile, columns: Collection[str]) -> tuple[str, str] | None:
    def find(words: set[str], limit: float) -> str | None:
        for name in columns:
            column = table.columns[name]
            if column.least is None or column.most is None or not set(words_of(name)) & words:
                continue
            if column.is_number and max(-column.least, column.most) <= limit:
                return name
        return None

    latitude = find({"lat", "latitude"}, 90)
    longitude = find({"lon", "lng", "long", "longitude"}, 180)
    return None if latitude is None or longitude is None else (latitude, longitude)


def outcome_reason(table: TableProfile, name: str, labels: Collection[str]) -> str | None:
    """Return why a column of the impressions may be known only after them, or None.

    Args:
        table: The impressions.
        name: The column.
        labels: The labels.
    """
    words = words_of(name)
    if set(words) & set(_OUTCOME_WORDS) and table.columns[name].is_number:
        return "perhaps measured after the impression, by its name"
    if table.columns[name].is_binary and name.startswith(_OUTCOME_STARTS):
        return "perhaps another outcome, by its name"
    known = table.columns[name].values.is_valid().to_numpy(zero_copy_only=False)
    for label in reversed(list(labels)):
        positive = table.columns[label].values.cast(pa.float64(), safe=False).fill_null(0.0)
        if not known.all() and not (known & (positive.to_numpy(zero_copy_only=False) != 1.0)).any():
            return f"it is null unless {label} is 1, so it is known only after it"
        auc = _auc(table.columns[name], table.columns[label])
        if auc is not None and abs(auc - 0.5) > _CERTAIN_AUC - 0.5:
            return f"it alone tells {label} (AUC {max(auc, 1 - auc):.3f}), so it may be an outcome"
    return None


def _auc(column: ColumnProfile, label: ColumnProfile) -> float | None:
    """AUC of a number for a label; None where it cannot be computed."""
    if not column.is_number:
        return None
    numbers, labels = (
        of.values.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
        for of in (column, label)
    )
    known = np.isfinite(numbers) & np.isfinite(labels)
    values, is_positive = numbers[known], labels[known]
    if min(is_positive.sum(), (1 - is_positive).sum()) < _MIN_POSITIVES:
        return None
    value = auc(is_positive, values)
    return None if isinstance(value, UndefinedMetric) else value


def split_levels(
    table: TableProfile, columns: Collection[str], request: Collection[str], *, strict: bool
) -> tuple[list[str], list[str]]:
    """Share columns of the impressions out to the levels context and cross.

    Args:
        table: The impressions.
        columns: The columns.
        request: The columns that together name a request.
        strict: Rows of a request may not differ in a column of the context.

    Returns:
        Columns that a request has once, and columns that belong to a request and an item.
    """
    codes = [np.unique(table.columns[name].keys(), return_inverse=True)[1] for name in request]
    _, group = np.unique(np.stack(codes), axis=1, return_inverse=True)
    group = group.reshape(-1)
    context: list[str] = []
    cross: list[str] = []
    for name in columns:
        column = table.columns[name]
        named_item = words_of(name)[:1] and words_of(name)[0] in _ITEM_PREFIXES
        if is_list(column.type):
            (cross if named_item else context).append(name)
            continue
        values = np.unique(_codes(column), return_inverse=True)[1].reshape(-1)
        once = equal_share(group, values) >= (1.0 if strict else _ALMOST)
        (context if once and not named_item else cross).append(name)
    return context, cross


def _codes(column: ColumnProfile) -> Any:
    if column.is_number:
        return column.values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return column.keys()
