"""Checks of features, event fields and statistics that need more than one key of the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hemix.features.base import FeatureType
from hemix.features.history_counts import HISTORY_COUNTS
from hemix.features.registry import registered_features
from hemix.validation import InvalidKey

if TYPE_CHECKING:
    from hemix.schema.schema import Schema

__all__ = ["check_features", "check_history", "check_statistics"]


def check_features(schema: Schema) -> None:
    """Check that every feature fits its level; raise ValueError with the key."""
    for level, name, feature in schema.features:
        key = f"features.{level}.{name}"
        if "." in name:
            raise InvalidKey(
                key, f"expected a name without a dot; name the column with column: {name}"
            )
        _check_level(key, level, f"a {level} feature", feature)
        if level in ("user", "item") and not feature.columns(name):
            raise InvalidKey(
                key,
                f"expected a feature that reads a column of the {level} table, got {feature.type}",
            )
        if level != "cross" and feature.inputs():
            raise InvalidKey(
                key, f"{feature.type} is computed from other features; move it to features.cross"
            )
        feature.check(key, schema.features.find)
    for name, field in schema.history.fields.items():
        _check_level(f"history.fields.{name}", "event", "a field of events", field)
    _check_shared_tables(schema)


def _check_level(key: str, level: str, description: str, feature: FeatureType) -> None:
    if level not in feature.levels:
        names = ", ".join(
            name for name, kind in registered_features().items() if level in kind.levels
        )
        raise InvalidKey(key, f"{description} is one of {names}, got {feature.type}")


def _check_shared_tables(schema: Schema) -> None:
    """Refuse features that share an embedding table but encode values differently."""
    features = [
        (f"features.{level}.{n}", f.table_of(level, n), f) for level, n, f in schema.features
    ]
    features += [
        (f"history.{'action' if n == 'action' else f'fields.{n}'}", f.table_of("event", n), f)
        for n, f in schema.event_fields.items()
    ]
    tables: dict[str, tuple[str, Any]] = {}
    for key, table, feature in features:
        settings = feature.table_settings()
        if settings is None:
            continue
        first, expected = tables.setdefault(table, (key, settings))
        if expected != settings:
            raise InvalidKey(
                key, f"shares table {table!r} with {first}, but their encodings differ"
            )


def check_history(schema: Schema) -> None:
    """Check the source, the item features and the fields of events; raise ValueError."""
    history = schema.history
    if history.source == "events" and schema.tables.events is None:
        raise InvalidKey("history.source", "events needs tables.events")
    for name in history.item_features or ():
        feature = schema.features.item.get(name)
        if feature is None:
            raise InvalidKey("history.item_features", f"no item feature {name!r}")
        if not feature.tensor_columns().ids:
            raise InvalidKey(
                "history.item_features",
                f"{name} must be a one-valued categorical or bucketed numeric",
            )
    if history.action is not None and history.action.multi:
        raise InvalidKey("history.action", "one value, not multi")
    for name, field in history.fields.items():
        if name == "action":
            raise InvalidKey(
                "history.fields.action", "the action has a key of its own, history.action"
            )
        if not field.tensor_columns().ids:
            raise InvalidKey(
                f"history.fields.{name}", "one-valued categorical, bucketed numeric or clock part"
            )


def check_statistics(schema: Schema) -> None:
    """Check statistics and counts, and that no feature takes their names; raise ValueError."""
    if schema.history.counts and HISTORY_COUNTS in schema.features.context:
        raise InvalidKey(
            f"features.context.{HISTORY_COUNTS}",
            "the name is taken by history.counts; choose another name",
        )
    if schema.history.match_counts is not None:
        names = (*schema.features.context, *schema.features.cross, *schema.statistics)
        schema.history.match_counts.check(schema.features.item, names)
    for name, statistic in schema.statistics.items():
        statistic.check(name, schema.labels, schema.features.find)
