"""The draft of a schema: tables, roles, features, history, labels, statistics and split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hemix.errors import DataError, UsageError
from hemix.files import write_text
from hemix.schema import Schema
from hemix.schema.columns import Clock
from hemix.schema_draft.features import (
    DraftFeature,
    LevelDraft,
    draft_features,
    outcome_reason,
    split_levels,
)
from hemix.schema_draft.profiles import TableProfile, find_tables, profile_table
from hemix.schema_draft.roles import Roles, TableRoles, assign_tables, columns_by_role, find_roles
from hemix.schema_draft.splits import DraftSplit, draft_split
from hemix.schema_draft.yaml_text import YamlText, flow

__all__ = ["draft_schema", "write_draft"]

_MAX_STATISTIC_VALUES = 50_000
"""An item column with more values has no statistics of its own"""
_MIN_STATISTIC_VALUES, _MAX_STATISTIC_COLUMNS = 8, 4


@dataclass(frozen=True, kw_only=True)
class _Draft:
    tables: TableRoles
    roles: Roles
    levels: dict[str, LevelDraft]
    split: DraftSplit


def write_draft(logs: Path, out: Path | None = None) -> Path:
    """Write the draft of a schema beside logs.

    Args:
        logs: A folder with Parquet files, or folders of these.
        out: The new file; None: ``schema.yaml`` in ``logs``.

    Returns:
        The file.

    Raises:
        DataError: The logs have no table of users, items and times, or no label.
        UsageError: ``out`` exists.
    """
    out = logs / "schema.yaml" if out is None else out
    if out.exists():
        raise UsageError(
            f"{out}: exists already",
            code="out_exists",
            field="--out",
            hint="name another file with --out",
        )
    write_text(out, draft_schema(logs))
    return out


def draft_schema(logs: Path) -> str:
    """Return the draft of a schema for logs, as YAML with comments.

    Args:
        logs: A folder with Parquet files, or folders of these.

    Raises:
        DataError: The logs have no table of users, items and times, or no label.
    """
    tables = assign_tables([profile_table(path) for path in find_tables(logs)])
    roles = find_roles(tables)
    if not roles.labels:
        raise DataError(
            f"{tables.impressions.path}: no column of 0 and 1 that can be the label",
            code="missing_column",
            field="labels",
            hint="add one, such as is_click, and start again",
        )
    clock = Clock(column=roles.clock.value, unit=roles.unit)
    draft = _Draft(
        tables=tables,
        roles=roles,
        levels=_levels(tables, roles),
        split=draft_split(tables.impressions, clock),
    )
    text = _text(logs, draft)
    Schema.parse(text, "the draft")
    return text


def _levels(tables: TableRoles, roles: Roles) -> dict[str, LevelDraft]:
    impressions, known = tables.impressions, columns_by_role(roles)
    levels = {
        "user": _entity_level(tables.users, roles.user.value, roles),
        "item": _entity_level(tables.items, roles.item.value, roles),
    }
    labels = [guess.value for guess in roles.labels]
    rest, outcomes = list[str](), list[tuple[str, str]]()
    for name in impressions.columns:
        if name in known or name == roles.valid_from:
            continue
        reason = outcome_reason(impressions, name, labels)
        if reason is None:
            rest.append(name)
        else:
            outcomes.append((name, reason))
    request = (
        [roles.request_id.value]
        if roles.request_id is not None
        else [roles.user.value, roles.clock.value]
    )
    strict = roles.request_id is not None
    context, cross = split_levels(impressions, rest, request, strict=strict)
    levels["context"] = draft_features(impressions, context)
    levels["context"].left_out += outcomes
    levels["cross"] = draft_features(impressions, cross)
    levels["cross"].features += _distances(levels)
    return levels


def _distances(levels: Mapping[str, LevelDraft]) -> list[DraftFeature]:
    """Distances between the item's place and those of user and context."""

    def place(level: str) -> str | None:
        features = levels[level].features
        return next((f.name for f in features if f.keys["type"] == "coordinates"), None)

    item, distances = place("item"), list[DraftFeature]()
    for level in ("context", "user"):
        other = place(level)
        if item is not None and other is not None:
            keys = {"type": "distance", "between": [f"{level}.{other}", f"item.{item}"]}
            distances.append(
                DraftFeature(name=f"{level}_distance", keys=keys, reason="of the two places")
            )
    return distances


def _entity_level(table: TableProfile | None, own: str, roles: Roles) -> LevelDraft:
    if table is None or own not in table.columns:
        return LevelDraft()
    columns = [n for n in table.columns if n != roles.valid_from]
    return draft_features(table, columns, own_id=own)


def _text(logs: Path, draft: _Draft) -> str:
    tables, roles = draft.tables, draft.roles
    yaml = YamlText()
    yaml.comment("A draft by `hemix init`: every line is a guess. Read it, mend it, then run")
    yaml.comment("`hemix check` on this folder. docs/reference/schema.md explains every key.")
    yaml.key("name", flow(_name_of(logs)))
    yaml.blank()
    yaml.key("tables", "")
    for role in ("impressions", "events", "items", "users"):
        table: TableProfile | None = getattr(tables, role)
        if table is not None:
            yaml.key(role, flow(table.path.name), f"{table.rows:,} rows", indent=2)
    for name in tables.ignored:
        yaml.comment(f"{name}: not used", indent=2)
    yaml.key("user", flow(roles.user.value), roles.user.reason)
    yaml.key("item", flow(roles.item.value), roles.item.reason)
    clock = {"column": roles.clock.value, "unit": roles.unit, "timezone": "UTC"}
    yaml.key("clock", flow(clock), f"{roles.clock.reason}; set the time zone of your users")
    if roles.valid_from is not None:
        yaml.key("valid_from", flow(roles.valid_from), "by its name")
    yaml.blank()
    _add_features(yaml, draft)
    _add_history(yaml, draft)
    _add_labels(yaml, roles)
    _add_roles(yaml, roles)
    split = {"valid": draft.split.valid, "test": draft.split.test}
    yaml.key("split", flow(split), draft.split.reason)
    yaml.blank()
    _add_statistics(yaml, draft)
    return yaml.text()


def _name_of(logs: Path) -> str:
    folder = logs.resolve().name
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in folder)
    return kept.strip("-.") or "logs"


def _add_features(yaml: YamlText, draft: _Draft) -> None:
    yaml.comment("categorical: ids and names; numeric: numbers, in buckets; multi: lists of ids")
    yaml.key("features", "")
    own = {"user": draft.roles.user.value, "item": draft.roles.item.value}
    for level in ("user", "context", "item", "cross"):
        of_level = draft.levels[level]
        if level in own and not of_level.features:
            yaml.key(level, "", indent=2)
            yaml.key(own[level], flow({"type": "categorical"}), "the id itself", indent=4)
        elif level == "context":
            yaml.key(level, "", indent=2)
            names = {feature.name for feature in of_level.features}
            for part in ("hour", "weekday"):
                if part not in names:
                    yaml.key(part, flow({"type": "clock", "part": part}), "of the clock", indent=4)
            for feature in of_level.features:
                yaml.key(feature.name, flow(feature.keys), feature.reason, indent=4)
            for column, reason in of_level.left_out:
                yaml.comment(f"{column}: left out: {reason}", indent=4)
        else:
            yaml.level(level, of_level)
    yaml.blank()


def _add_history(yaml: YamlText, draft: _Draft) -> None:
    roles = draft.roles
    yaml.key("history", "")
    if draft.tables.events is None:
        yaml.comment("no table of events: earlier impressions of a user are the history", indent=2)
    if roles.event_clock is not None:
        yaml.key("clock_column", flow(roles.event_clock), "the time of events", indent=2)
    if roles.action is not None:
        action = {"type": "categorical", "column": roles.action.value}
        yaml.key("action", flow(action), roles.action.reason, indent=2)
    yaml.key("counts", "true", "numbers of events so far are features", indent=2)
    yaml.comment("delay: 5min  # how long an event takes to reach the server", indent=2)
    yaml.blank()


def _add_labels(yaml: YamlText, roles: Roles) -> None:
    yaml.key("labels", "")
    previous: str | None = None
    for guess in roles.labels:
        keys = {} if previous is None else {"given": previous}
        if guess.value in roles.available_at:
            keys["available_at"] = roles.available_at[guess.value]
        yaml.key(guess.value, flow(keys), guess.reason, indent=2)
        previous = guess.value
    for name in roles.other_labels:
        yaml.comment(f"{name}: 0 or 1 too: add it if it is a label", indent=2)
    yaml.blank()


def _add_roles(yaml: YamlText, roles: Roles) -> None:
    if roles.request_id is None and roles.position is None:
        return
    yaml.key("roles", "")
    if roles.request_id is not None:
        yaml.key("request_id", flow(roles.request_id.value), roles.request_id.reason, indent=2)
    if roles.position is not None:
        first = 0 if roles.position.reason.startswith("whole numbers from 0") else 1
        bias = {"column": roles.position.value, "serve_as": first}
        yaml.key("bias", flow(bias), roles.position.reason, indent=2)
    yaml.blank()


def _add_statistics(yaml: YamlText, draft: _Draft) -> None:
    label = draft.roles.labels[0].value
    items = draft.tables.items
    columns = [
        feature.name
        for feature in draft.levels["item"].features
        if feature.keys == {"type": "categorical"}
        and items is not None
        and feature.name != draft.roles.item.value
        and _MIN_STATISTIC_VALUES <= items.columns[feature.name].distinct <= _MAX_STATISTIC_VALUES
    ]
    yaml.comment("rates of earlier days, two numbers each; popularity is one of them")
    yaml.key("statistics", "")
    keys = [["user"], ["item"], ["user", "item"]]
    for name in columns[:_MAX_STATISTIC_COLUMNS]:
        keys += [[f"item.{name}"], ["user", f"item.{name}"]]
    for parts in keys:
        name = "_".join([label, *(part.removeprefix("item.") for part in parts)])
        yaml.key(name, flow({"label": label, "by": parts}), indent=2)
