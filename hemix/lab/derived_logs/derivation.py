"""What all derived logs share: each table of the source is streamed through one method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hemix.lab.datasets.logs_writer import LogsWriter
from hemix.lab.derived_logs.source import Int64Array, Rows, Source
from hemix.schema import Schema

__all__ = ["Derivation", "schema_content", "without"]


class Derivation:
    """A kind of log that is made from other logs. This one copies them.

    A subclass overrides what it changes: the schema, or the rows of a table.
    """

    summary = ""
    """One line on what the log is like"""
    max_rows = 60_000
    """Impressions of the source that it uses by default"""

    @contextmanager
    def open(self, logs: Path, *, max_rows: int, seed: int) -> Iterator[Source]:
        """Open the source.

        Args:
            logs: The logs folder.
            max_rows: Most impressions of the source to use.
            seed: Of all draws.
        """
        yield Source(logs, max_rows=max_rows, seed=seed)

    def read(self, source: Source) -> None:
        """Collect what the other methods need to know of the whole source."""

    def schema(self, schema: Schema) -> dict[str, Any]:
        """Return the schema's content, which may be changed in place."""
        return schema_content(schema)

    def impressions(self, rows: Rows) -> Rows:
        """Return the impressions that a chunk of the source becomes."""
        return rows

    def events(self, rows: Rows) -> Rows:
        """Return the events that a chunk of the source becomes."""
        return rows

    def items(self, rows: Rows) -> Rows:
        """Return the rows of the item table that a chunk of the source becomes."""
        return rows

    def write(self, source: Source, logs: LogsWriter, name: str) -> None:
        """Write all tables and the schema.

        Args:
            source: The source.
            logs: The new folder.
            name: Of the derived log.
        """
        self.read(source)
        content = self.schema(source.schema)
        content["name"] = f"{source.schema.name}.{name}"
        tables: dict[str, str] = content.setdefault("tables", {})
        for role in ("impressions", *tables):
            tables[role] = f"{role}.parquet"
        schema = Schema.model_validate(content)
        log_rows = []
        for rows in source.impressions():
            impressions = self.impressions(rows)
            logs.write("impressions", impressions.table)
            log_rows.append(impressions.log_row)
        if schema.tables.events is not None:
            for rows in source.events():
                logs.write("events", self.events(rows).table)
        if schema.tables.items is not None:
            for rows in source.items():
                logs.write("items", self.items(rows).table)
        if schema.tables.users is not None:
            for rows in source.users():
                logs.write("users", rows.table)
        if schema.tables.truth is not None:
            _write_truth(source, logs, np.concatenate(log_rows))
        logs.write_schema(schema)


def _write_truth(source: Source, logs: LogsWriter, log_row: Int64Array) -> None:
    """Write the probabilities of the impressions that were kept, in their order."""
    for rows in source.truth():
        logs.write("truth", rows.select(np.isin(rows.log_row, log_row)).table)


def schema_content(schema: Schema) -> dict[str, Any]:
    """Return a schema as plain values that ``Schema.model_validate`` reads back."""
    content: dict[str, Any] = yaml.safe_load(schema.to_yaml())
    return content


def without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return a mapping without some keys.

    Args:
        mapping: The mapping.
        names: The keys; absent ones change nothing.
    """
    return {key: value for key, value in mapping.items() if key not in names}
