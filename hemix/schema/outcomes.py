"""Label leakage: no feature, id or score may read a column that is unknown when ranking."""

from __future__ import annotations

from collections.abc import Mapping
from posixpath import normpath
from typing import TYPE_CHECKING

from hemix.features.base import FeatureType
from hemix.validation import InvalidKey

if TYPE_CHECKING:
    from hemix.schema.schema import Schema

__all__ = ["check_outcomes"]


def check_outcomes(schema: Schema) -> None:
    """Refuse a column that is known only after the ranking: the model would see its own answer.

    Raises:
        ValueError: With the key of the schema, the column, and what the column is.
    """
    outcomes = _outcome_columns(schema)
    _check_roles(schema, outcomes)
    event_fields = schema.history.fields if _events_are_impressions(schema) else {}
    for name, field in event_fields.items():  # the position of an earlier impression is known
        _check_feature(f"history.fields.{name}", name, field, outcomes)
    bias = schema.roles.bias
    if bias is not None:
        outcomes[bias.column] = "the column of roles.bias"
    tables = {"user": schema.tables.users, "item": schema.tables.items}
    for level, name, feature in schema.features:
        if _is_impressions(schema, tables.get(level, schema.tables.impressions)):
            _check_feature(f"features.{level}.{name}", name, feature, outcomes)


def _outcome_columns(schema: Schema) -> dict[str, str]:
    """Columns of the impression log that are unknown when ranking, with what each is."""
    outcomes = {
        label.column or name: f"the column of labels.{name}"
        for name, label in schema.labels.items()
    }
    for name, label in schema.labels.items():
        # the time of the impression itself is known
        if label.available_at not in (None, schema.clock.column):
            outcomes.setdefault(
                str(label.available_at), f"the column of labels.{name}.available_at"
            )
    if _is_impressions(schema, schema.tables.truth):
        outcomes |= {f"p_{name}": f"the truth of labels.{name}" for name in schema.labels}
    return outcomes


def _check_roles(schema: Schema, outcomes: Mapping[str, str]) -> None:
    """Refuse outcomes as position, ids and numbers of the score."""
    bias = schema.roles.bias
    keys = [("user", schema.user), ("item", schema.item)]
    if bias is not None:
        keys.insert(0, ("roles.bias.column", bias.column))
    if schema.roles.request_id is not None:
        keys.append(("roles.request_id", schema.roles.request_id))
    if _is_impressions(schema, schema.tables.items):
        keys += [("score", name) for name in schema.score_columns]
    for key, column in keys:
        if column in outcomes:
            raise InvalidKey(
                key, f"{column!r} is {outcomes[column]}, which is not known when ranking"
            )


def _check_feature(key: str, name: str, feature: FeatureType, outcomes: Mapping[str, str]) -> None:
    for column in feature.columns(name):
        if column in outcomes:
            raise InvalidKey(
                key,
                f"column {column!r} is {outcomes[column]}, which is not known when "
                "ranking; leave out the feature",
            )


def _events_are_impressions(schema: Schema) -> bool:
    return schema.history_source == "impressions" or _is_impressions(schema, schema.tables.events)


def _is_impressions(schema: Schema, table: str | None) -> bool:
    """Whether a table is the impression log itself, however its path is written."""
    return table is not None and normpath(table) == normpath(schema.tables.impressions)
