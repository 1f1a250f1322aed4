"""Names that a run knows, for a person who wants to try it: users, items with a label, a context.

Knows no model.

Users and items come from the vocabularies; labels and the context from the logs, where they lie
beside the run as in a demo.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.encode import ENCODERS_FORMAT
from hemix.errors import DataError
from hemix.schema import Schema

__all__ = ["known"]

_USERS, _ITEMS, _LABELLED = 40, 400, 5_000


def known(run: Path, schema: Schema) -> dict[str, Any]:
    """``users`` and ``items`` by falling count in training, ``actions``, ``labels`` of items and a
    ``context``; each is empty where the run does not say.
    """
    logs = run / "logs"
    return {
        "users": _most_frequent(run, schema, "user", schema.user, _USERS),
        "items": _most_frequent(run, schema, "item", schema.item, _ITEMS),
        "actions": _actions(run),
        "labels": _labels(logs, schema),
        "context": _context(logs, schema),
    }


def _most_frequent(run: Path, schema: Schema, level: str, column: str, most: int) -> list[str]:
    for name, feature in schema.features.level(level).items():
        if (
            feature.columns(name) == (column,)
            and feature.vocabulary_settings()
            and feature.tensor_columns().ids
        ):
            table = feature.table_of(level, name)
            try:
                encoders = ENCODERS_FORMAT.read(run / "encoders" / "encoders.json")
                vocabularies = encoders["vocabularies"]
                path = run / "encoders" / f"{vocabularies.index(table):03d}.parquet"
                values = pq.read_table(path, columns=["value"])["value"].slice(0, most)
            except (DataError, OSError, KeyError, ValueError, pa.ArrowException):
                return []
            return [str(value) for value in values.to_pylist() if value is not None]
    return []


def _actions(run: Path) -> list[str]:
    try:
        return list(ENCODERS_FORMAT.read(run / "encoders" / "encoders.json").get("actions", []))
    except DataError:
        return []


def _labels(logs: Path, schema: Schema) -> dict[str, str]:
    """``milk_tea · 13``: the first one-valued categories and the first number of an item."""
    single = [
        (f.columns(n), f.json_type())
        for n, f in schema.features.item.items()
        if len(f.columns(n)) == 1
    ]
    words = [column for (column,), kind in single if pa.types.is_string(kind)]
    numbers = [column for (column,), kind in single if pa.types.is_floating(kind)]
    shown = [*[word for word in words if word != schema.item][:1], *numbers[:1]]
    if not shown:
        return {}
    rows = _first_rows(logs, schema.tables.items, [schema.item, *shown], _LABELLED)
    return {
        str(row[schema.item]): " · ".join(
            _short(row[name]) for name in shown if row[name] is not None
        )
        for row in rows
    }


def _context(logs: Path, schema: Schema) -> dict[str, Any]:
    columns = list(
        dict.fromkeys(c for n, f in schema.features.context.items() for c in f.columns(n))
    )
    rows = _first_rows(logs, schema.tables.impressions, columns, 1) if columns else []
    return (
        {name: value for name, value in rows[0].items() if isinstance(value, str | int | float)}
        if rows
        else {}
    )


def _first_rows(
    logs: Path, table: str | None, columns: list[str], most: int
) -> list[dict[str, Any]]:
    path = logs / table if table is not None else None
    if path is None or not path.is_file():
        return []
    try:
        batches = pq.ParquetFile(path).iter_batches(batch_size=most, columns=columns)
        return [row for batch in itertools.islice(batches, 1) for row in batch.to_pylist()]
    except (OSError, KeyError, pa.ArrowException):
        return []


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
