"""The schema against the tables: is every column that it names there, of a type that can be used.

Reads no row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from hemix.data.keys import is_keyable
from hemix.data.raw_columns import is_number
from hemix.errors import DataError, SchemaError
from hemix.preparation.log_files import is_url
from hemix.preparation.log_table import LogTable
from hemix.preparation.times import time_type_problem
from hemix.schema import Clock, Schema

__all__ = ["Logs", "open_logs"]


@dataclass(frozen=True, kw_only=True)
class Logs:
    """The open tables of a logs folder, checked against its schema."""

    folder: Path
    schema: Schema
    impressions: LogTable
    events: LogTable | None
    items: LogTable | None
    users: LogTable | None
    truth: LogTable | None

    @property
    def tables(self) -> list[LogTable]:
        """All tables that are there."""
        return [
            t
            for t in (self.impressions, self.events, self.items, self.users, self.truth)
            if t is not None
        ]

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The item columns of the score expression."""
        return tuple(n for n in self.schema.score_expression.names if n not in self.schema.outputs)

    @property
    def action_lacking(self) -> dict[str, list[str]]:
        """For the manifest: the events' columns, where they tell no action though the schema names
        no other column for it.
        """
        lacking = (
            self.events is not None
            and self.schema.history.action is None
            and "action" not in self.events.names
        )
        return (
            {"columns_without_action": self.events.names}
            if lacking and self.events is not None
            else {}
        )

    @property
    def event_clock(self) -> str:
        """The events table's clock column."""
        return self.schema.history.clock_column or self.schema.clock.column

    @property
    def clocks(self) -> dict[str, Clock]:
        """The impressions' columns of times, each with its clock."""
        clock, labels = self.schema.clock, self.schema.labels.values()
        return dict.fromkeys(
            [clock.column, *(v.available_at for v in labels if v.available_at is not None)], clock
        )


def open_logs(folder: Path, schema: Schema | None) -> Logs:
    """Open and check all tables. Raises DataError or SchemaError naming file, column and key."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of logs")
    if schema is None:
        if not any(folder.iterdir()):
            raise DataError(
                f"{folder}: expected schema.yaml and Parquet tables, found an empty folder"
            )
        schema = Schema.load(folder / "schema.yaml")
    tables = schema.tables
    _refuse_outcomes(folder, schema)

    def table(role: str) -> LogTable | None:
        name = getattr(tables, role)
        return (
            None
            if name is None
            else LogTable(name if is_url(name) else folder / name, f"tables.{role}")
        )

    impressions = table("impressions")
    assert impressions is not None
    logs = Logs(
        folder=folder,
        schema=schema,
        impressions=impressions,
        events=table("events") if schema.history_source == "events" else None,
        items=table("items"),
        users=table("users"),
        truth=table("truth"),
    )
    _check_impressions(logs, impressions)
    if logs.events is not None:
        _check_events(logs, logs.events)
    _check_entities(logs)
    if logs.truth is not None:
        for task in schema.tasks:
            logs.truth.require(f"p_{task}", "tables.truth", _number)
        if logs.truth.rows != impressions.rows:
            raise DataError(
                f"{logs.truth.path}: expected {impressions.rows} rows, one per impression, found "
                f"{logs.truth.rows}"
            )
    return logs


def _refuse_outcomes(folder: Path, schema: Schema) -> None:
    """The schema's check of columns that are not known when ranking, where a link or another path
    leads to the impressions too.
    """

    def real(name: str | None) -> Path | None:
        return None if name is None or is_url(name) else (folder / name).resolve()

    tables, impressions = schema.tables, real(schema.tables.impressions)
    names = ("events", "items", "users", "truth")
    same = {
        name: tables.impressions
        for name in names
        if impressions is not None and real(getattr(tables, name)) == impressions
    }
    if same:
        named = schema.model_copy(update={"tables": tables.model_copy(update=same)})
        Schema.parse(named.to_yaml(), str(folder / "schema.yaml"))


def _id(kind: pa.DataType) -> str | None:
    usable = is_keyable(kind) and not pa.types.is_null(kind)
    return None if usable else "a string or a whole number"


def _number(kind: pa.DataType) -> str | None:
    return None if is_number(kind) else "a number"


def _any(kind: pa.DataType) -> str | None:
    return None if is_keyable(kind) else "one value a row"


def _check_impressions(logs: Logs, table: LogTable) -> None:
    schema, roles = logs.schema, logs.schema.roles
    table.require(schema.user, "user", _id)
    table.require(schema.item, "item", _id)
    table.require(schema.clock.column, "clock.column", time_type_problem)
    for name, label in schema.labels.items():
        table.require(label.column or name, f"labels.{name}", _number)
        if label.available_at is not None:
            table.require(label.available_at, f"labels.{name}.available_at", time_type_problem)
    if roles.request_id is not None:
        table.require(roles.request_id, "roles.request_id", _id)
    if roles.weight is not None:
        table.require(roles.weight, "roles.weight", _number)
    if roles.bias is not None:
        table.require(roles.bias.column, "roles.bias.column", _number)
    if schema.split.column is not None:
        table.require(schema.split.column, "split.column", _any)
        _unify_split(schema, table)
    for level in ("context", "cross"):
        for name, feature in schema.features.level(level).items():
            for column in feature.columns(name):
                table.require(column, f"features.{level}.{name}", feature.wrong_type)
    if schema.history_source == "impressions":
        for name, field in schema.history.fields.items():
            for column in field.columns(name):
                table.require(column, f"history.fields.{name}", field.wrong_type)


def _unify_split(schema: Schema, table: LogTable) -> None:
    """One type for a split column of several types, text parsed: rows are split by comparing
    values, not texts.
    """
    column, by_number = schema.split.column, not isinstance(schema.split.valid, str)
    kinds = [] if column is None or column == schema.clock.column else table.kinds_of(column)
    known = [kind for kind in kinds if not pa.types.is_null(kind)]
    if column is None or len(kinds) < 2 or not known:
        return
    t = pa.types
    texts = any(t.is_string(kind) or t.is_binary(kind) for kind in known)
    common = known[0]
    if any(t.is_date(kind) for kind in known):
        common = pa.date32()
    elif any(t.is_timestamp(kind) for kind in known):
        zoned = any(t.is_timestamp(kind) and kind.tz is not None for kind in known)
        common = pa.timestamp("ns", tz=schema.clock.timezone if zoned else None)
    elif texts and not by_number:
        common = pa.string()
    elif any(is_number(kind) for kind in known):
        whole = all(t.is_integer(kind) or t.is_string(kind) or t.is_binary(kind) for kind in known)
        common = pa.int64() if whole else pa.float64()
    table.unify(column, common)


def _check_events(logs: Logs, table: LogTable) -> None:
    schema = logs.schema
    table.require(schema.user, "user", _id)
    table.require(schema.item, "item", _id)
    table.require(
        logs.event_clock,
        "history.clock_column" if schema.history.clock_column else "clock.column",
        time_type_problem,
    )
    for name, field in schema.event_fields.items():
        if name == "action" and schema.history.action is None and "action" not in table.names:
            continue
        for column in field.columns(name):
            table.require(
                column,
                "history.action" if name == "action" else f"history.fields.{name}",
                field.wrong_type,
            )


def _check_entities(logs: Logs) -> None:
    schema = logs.schema
    for level, table, own in (("user", logs.users, schema.user), ("item", logs.items, schema.item)):
        if table is not None:
            table.require(own, level, _id)
        for name, feature in schema.features.level(level).items():
            for column in feature.columns(name):
                if column == own:
                    continue
                key = f"features.{level}.{name}"
                if table is None:
                    raise SchemaError(
                        f"{key}: column {column!r} needs tables.{level}s, which the schema does "
                        "not name"
                    )
                table.require(column, key, feature.wrong_type)
    for column in logs.score_columns:
        if logs.items is None:
            raise SchemaError(
                f"score: {column!r} is neither an output ({', '.join(schema.outputs)}) nor, "
                "without tables.items, "
                "an item column"
            )
        logs.items.require(column, "score", _number)
    if schema.valid_from is not None:
        versioned = [
            t for t in (logs.items, logs.users) if t is not None and schema.valid_from in t.names
        ]
        if not versioned:
            tables = (
                " and ".join(str(t.path) for t in (logs.items, logs.users) if t is not None)
                or "no item or user table"
            )
            raise DataError(f"{tables}: no column {schema.valid_from!r} (valid_from)")
        for table in versioned:
            table.require(schema.valid_from, "valid_from", time_type_problem)
