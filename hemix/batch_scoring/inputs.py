"""The tables of a batch, opened and checked against the schema of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hemix.errors import DataError, UsageError
from hemix.preparation.log_table import LogTable
from hemix.preparation.logs import (
    Logs,
    require_entity_columns,
    require_event_columns,
    require_label_columns,
    require_request_columns,
)
from hemix.preparation.times import time_type_problem
from hemix.schema import Schema

__all__ = ["ScoringInputs", "event_logs", "open_impressions"]


@dataclass(frozen=True, kw_only=True)
class ScoringInputs:
    """The files of a batch. Each is a Parquet file or a folder of these."""

    impressions: Path
    """The rows to score: user, item, time, context and cross columns"""
    events: Path | None = None
    """Events of histories; where the schema makes histories of impressions, earlier impressions
    with their labels"""
    items: Path | None = None
    """Features of items that are new, or that have changed since training"""
    users: Path | None = None
    """The same of users"""
    store: str | None = None
    """URL of a server's store, which has events and features, in place of these files"""

    def __post_init__(self) -> None:
        files = {"--events": self.events, "--items": self.items, "--users": self.users}
        for flag, path in files.items():
            if self.store is not None and path is not None:
                raise UsageError(
                    f"{flag}: the store has events and features already",
                    field=flag,
                    hint=f"give --store or {flag}, not both",
                )

    @property
    def needs_store(self) -> bool:
        """Whether a store has to be made of files."""
        return any(path is not None for path in (self.events, self.items, self.users))


def open_impressions(schema: Schema, inputs: ScoringInputs) -> LogTable:
    """Open the rows to score, and check their columns.

    Args:
        schema: The schema of the run.
        inputs: The files.

    Raises:
        DataError: A file or a column is missing, a column has a type that cannot be used, or there
            is no row.
    """
    table = LogTable(inputs.impressions, "--impressions")
    if table.rows == 0:
        raise DataError(
            f"{inputs.impressions}: expected rows to score, found none",
            code="no_rows",
            field=str(inputs.impressions),
        )
    require_request_columns(schema, table)
    return table


def event_logs(schema: Schema, inputs: ScoringInputs, impressions: LogTable) -> Logs:
    """Open events, users and items, and check their columns.

    Args:
        schema: The schema of the run.
        inputs: The files.
        impressions: The rows to score; they are not read as events.

    Raises:
        DataError: A file or a column is missing, or a column has a type that cannot be used.
    """
    events, users, items = (
        None if path is None else LogTable(path, flag)
        for flag, path in (
            ("--events", inputs.events),
            ("--users", inputs.users),
            ("--items", inputs.items),
        )
    )
    if users is not None:
        require_entity_columns(schema, "user", users)
    if items is not None:
        require_entity_columns(schema, "item", items)
    if schema.valid_from is not None:
        for table in (users, items):
            if table is not None and schema.valid_from in table.names:
                table.require(schema.valid_from, "valid_from", time_type_problem)
    are_impressions = schema.history_source == "impressions"
    if events is not None and are_impressions:
        require_request_columns(schema, events)
        require_label_columns(schema, events)
    elif events is not None:
        require_event_columns(schema, events)
    return Logs(
        folder=inputs.impressions.parent,
        schema=schema,
        impressions=events if events is not None and are_impressions else impressions,
        events=None if are_impressions else events,
        items=items,
        users=users,
        truth=None,
    )
