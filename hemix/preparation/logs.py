"""Open the tables of a logs folder and check their columns and types against the schema.

No row is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from hemix.data.keys import is_keyable
from hemix.data.raw_columns import is_number
from hemix.errors import DataError, SchemaError
from hemix.preparation.log_files import is_catalog_table, is_url
from hemix.preparation.log_table import LogTable
from hemix.preparation.times import time_type_problem
from hemix.schema import Clock, Schema

__all__ = [
    "Logs",
    "load_schema",
    "open_logs",
    "require_entity_columns",
    "require_event_columns",
    "require_label_columns",
    "require_request_columns",
]


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
        """All tables of the folder."""
        return [
            t
            for t in (self.impressions, self.events, self.items, self.users, self.truth)
            if t is not None
        ]

    @property
    def missing_action(self) -> dict[str, list[str]]:
        """Manifest entry with the columns of an events table that has no action; else empty.

        A schema that names the action's column requires it, so it is never missing then.
        """
        if self.events is None or self.schema.history.action is not None:
            return {}
        names = self.events.names
        return {} if "action" in names else {"columns_without_action": names}

    @property
    def event_clock(self) -> str:
        """The events table's clock column."""
        return self.schema.history.clock_column or self.schema.clock.column

    @property
    def row_keys_are_int64(self) -> bool:
        """Whether ``roles.row_key`` has whole numbers of 64 bits in all files, else text."""
        column = self.schema.roles.row_key
        types = [] if column is None else self.impressions.types_of(column)
        return all(pa.types.is_integer(kind) and kind != pa.uint64() for kind in types)

    @property
    def clocks(self) -> dict[str, Clock]:
        """Time columns of the impressions, each with its clock."""
        clock, labels = self.schema.clock, self.schema.labels.values()
        return dict.fromkeys(
            [clock.column, *(v.available_at for v in labels if v.available_at is not None)], clock
        )


def load_schema(folder: Path) -> Schema:
    """Read the schema of a logs folder.

    Raises:
        DataError: There is no such folder, or it is empty.
        SchemaError: schema.yaml is missing or wrong.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of logs")
    if not any(folder.iterdir()):
        raise DataError(f"{folder}: expected schema.yaml and Parquet tables, found an empty folder")
    return Schema.load(folder / "schema.yaml")


def open_logs(
    folder: Path, schema: Schema | None, exported: Mapping[str, Path] = MappingProxyType({})
) -> Logs:
    """Open and check all tables.

    Args:
        folder: The logs folder.
        schema: The schema; None reads schema.yaml of the folder.
        exported: By role, such as ``events``, the folder of Parquet files to which a table of a
            catalog was exported.

    Raises:
        DataError: A file or a column is missing, or a column has a type that cannot be used.
        SchemaError: The schema names a table or a column that it may not use.
    """
    schema = load_schema(folder) if schema is None else schema
    _check_aliases_of_impressions(folder, schema)
    tables = {
        role: _open_table(folder, schema, role, exported)
        for role in ("impressions", "events", "items", "users", "truth")
        if role != "events" or schema.history_source == "events"
    }
    impressions = tables["impressions"]
    assert impressions is not None
    logs = Logs(
        folder=folder,
        schema=schema,
        impressions=impressions,
        events=tables.get("events"),
        items=tables["items"],
        users=tables["users"],
        truth=tables["truth"],
    )
    _check_impressions(schema, impressions)
    if logs.events is not None:
        require_event_columns(schema, logs.events)
    for level, table in (("user", logs.users), ("item", logs.items)):
        require_entity_columns(schema, level, table)
    if schema.valid_from is not None:
        _check_versions(logs, schema.valid_from)
    if logs.truth is not None:
        _check_truth(logs, logs.truth)
    return logs


def _open_table(
    folder: Path, schema: Schema, role: str, exported: Mapping[str, Path]
) -> LogTable | None:
    name = getattr(schema.tables, role)
    if name is None:
        return None
    if is_catalog_table(name):
        if role not in exported:
            raise SchemaError(
                f"tables.{role}: {name} is a table of a catalog, which only hemix prepare --engine "
                "spark reads, without --shift-days",
                field=f"tables.{role}",
                hint="for anything else write it as Parquet files, and name these",
            )
        return LogTable(name, f"tables.{role}", stored_at=exported[role])
    return LogTable(name if is_url(name) else folder / name, f"tables.{role}")


def _check_aliases_of_impressions(folder: Path, schema: Schema) -> None:
    """Check for label leakage where a link or another path leads to the impressions as well.

    The schema compares paths as text. Here the file system resolves them.
    """

    def real_path(name: str | None) -> Path | None:
        return None if name is None or is_url(name) else (folder / name).resolve()

    tables, impressions = schema.tables, real_path(schema.tables.impressions)
    aliases = {
        role: tables.impressions
        for role in ("events", "items", "users", "truth")
        if impressions is not None and real_path(getattr(tables, role)) == impressions
    }
    if aliases:
        resolved = schema.model_copy(update={"tables": tables.model_copy(update=aliases)})
        Schema.parse(resolved.to_yaml(), str(folder / "schema.yaml"))


def _id_problem(kind: pa.DataType) -> str | None:
    usable = is_keyable(kind) and not pa.types.is_null(kind)
    return None if usable else "a string or a whole number"


def _number_problem(kind: pa.DataType) -> str | None:
    return None if is_number(kind) else "a number"


def _scalar_problem(kind: pa.DataType) -> str | None:
    return None if is_keyable(kind) else "one value a row"


def _check_truth(logs: Logs, truth: LogTable) -> None:
    for task in logs.schema.tasks:
        truth.require(f"p_{task}", "tables.truth", _number_problem)
    if truth.rows != logs.impressions.rows:
        raise DataError(
            f"{truth.path}: expected {logs.impressions.rows} rows, one per impression, found "
            f"{truth.rows}"
        )


def _check_impressions(schema: Schema, table: LogTable) -> None:
    roles = schema.roles
    require_request_columns(schema, table)
    require_label_columns(schema, table)
    if roles.row_key is not None:
        table.require(roles.row_key, "roles.row_key", _id_problem)
    if roles.weight is not None:
        table.require(roles.weight, "roles.weight", _number_problem)
    if roles.propensity is not None:
        table.require(roles.propensity.column, "roles.propensity.column", _number_problem)
    if roles.bias is not None:
        table.require(roles.bias.column, "roles.bias.column", _number_problem)
    if schema.split.column is not None:
        table.require(schema.split.column, "split.column", _scalar_problem)
        _unify_split(schema, table)


def require_request_columns(schema: Schema, table: LogTable) -> None:
    """Check the columns of impressions that a request has: all but labels and roles of training.

    Args:
        schema: Names the columns.
        table: The impressions.

    Raises:
        DataError: A column is missing or has a type that cannot be used.
    """
    table.require(schema.user, "user", _id_problem)
    table.require(schema.item, "item", _id_problem)
    table.require(schema.clock.column, "clock.column", time_type_problem)
    if schema.roles.request_id is not None:
        table.require(schema.roles.request_id, "roles.request_id", _id_problem)
    for level in ("context", "cross"):
        for name, feature in schema.features.level(level).items():
            for column in feature.columns(name):
                table.require(column, f"features.{level}.{name}", feature.wrong_type)


def require_label_columns(schema: Schema, table: LogTable) -> None:
    """Check the labels of impressions, and the fields of histories that are made of impressions.

    Args:
        schema: Names the columns.
        table: The impressions.

    Raises:
        DataError: A column is missing or has a type that cannot be used.
    """
    for name, label in schema.labels.items():
        table.require(label.column or name, f"labels.{name}", _number_problem)
        if label.available_at is not None:
            table.require(label.available_at, f"labels.{name}.available_at", time_type_problem)
    if schema.history_source == "impressions":
        for name, field in schema.history.fields.items():
            for column in field.columns(name):
                table.require(column, f"history.fields.{name}", field.wrong_type)


def _unify_split(schema: Schema, table: LogTable) -> None:
    """Give a split column of several types one common type, because rows are split by comparing
    values.
    """
    column = schema.split.column
    if column is None or column == schema.clock.column:
        return
    types = table.types_of(column)
    known = [kind for kind in types if not pa.types.is_null(kind)]
    if len(types) > 1 and known:
        by_number = not isinstance(schema.split.valid, str)
        table.cast(column, _common_type(known, schema.clock.timezone, by_number=by_number))


def _common_type(types: list[pa.DataType], timezone: str, *, by_number: bool) -> pa.DataType:
    t = pa.types
    texts = any(t.is_string(kind) or t.is_binary(kind) for kind in types)
    if any(t.is_date(kind) for kind in types):
        return pa.date32()
    if any(t.is_timestamp(kind) for kind in types):
        zoned = any(t.is_timestamp(kind) and kind.tz is not None for kind in types)
        return pa.timestamp("ns", tz=timezone if zoned else None)
    if texts and not by_number:
        return pa.string()
    if any(is_number(kind) for kind in types):
        whole = all(t.is_integer(kind) or t.is_string(kind) or t.is_binary(kind) for kind in types)
        return pa.int64() if whole else pa.float64()
    return types[0]


def require_event_columns(schema: Schema, table: LogTable) -> None:
    """Check the columns of a table of events.

    Args:
        schema: Names the columns.
        table: The events.

    Raises:
        DataError: A column is missing or has a type that cannot be used.
    """
    own_clock = schema.history.clock_column
    table.require(schema.user, "user", _id_problem)
    table.require(schema.item, "item", _id_problem)
    table.require(
        own_clock or schema.clock.column,
        "history.clock_column" if own_clock else "clock.column",
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


def require_entity_columns(schema: Schema, level: str, table: LogTable | None) -> None:
    """Check the columns of a table of users or items.

    Args:
        schema: Names the columns.
        level: ``user`` or ``item``.
        table: The table; None: the logs have none.

    Raises:
        DataError: A column is missing or has a type that cannot be used.
        SchemaError: A feature or the score needs a table that is not there.
    """
    own = schema.user if level == "user" else schema.item
    if table is not None:
        table.require(own, level, _id_problem)
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
    for column in schema.score_columns if level == "item" else ():
        if table is None:
            raise SchemaError(
                f"score: {column!r} is not an output ({', '.join(schema.outputs)}); an item "
                "column needs tables.items, which the schema does not name"
            )
        table.require(column, "score", _number_problem)


def _check_versions(logs: Logs, column: str) -> None:
    """Check that an item or user table has the column ``valid_from``."""
    tables = [table for table in (logs.items, logs.users) if table is not None]
    versioned = [table for table in tables if column in table.names]
    if not versioned:
        paths = " and ".join(str(table.path) for table in tables) or "no item or user table"
        raise DataError(
            f"{paths}: no column {column!r} (valid_from)", code="missing_column", field=column
        )
    for table in versioned:
        table.require(column, "valid_from", time_type_problem)
