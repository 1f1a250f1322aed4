"""What came of served rankings: their rows with labels, out of the events that answered to them.

A label's value is known where its candidate was shown: an ``impression`` or ``interaction`` event of the ranking names it. Such a row is
positive for the label that an interaction's type names (the label's name or column), from that interaction's time where the label has
``available_at``; else negative. What nobody saw stays unknown. The events of logs that lie beside the ranking's own count too: when a
version is replaced, what its rankings come to is told to the next one. Where an impression's fields hold the bias column (the
position), they have it. Knows no model and no store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hemix.errors import DataError
from hemix.files import new_folder, storage_errors
from hemix.schema import Schema
from hemix.serving.served.columns import TIME, ServedColumns
from hemix.serving.served.retention import log_files

__all__ = ["write_training_rows"]


@dataclass
class _Outcome:
    """What is known of one candidate of one ranking."""

    first_ms: dict[str, Any] = field(default_factory=dict)
    """Type of interaction -> when it happened first"""
    position: Any = None


def write_training_rows(served: str | Path, out: str | Path, schema: Schema) -> dict[str, int]:
    """Rankings and events of a log folder as tables of a new folder ``out`` (``impressions/``, ``events/``), with the columns that
    ``schema`` names and no others. Returns counts. Raises UsageError where ``out`` is there, DataError naming a file that cannot be
    read."""
    served, columns = Path(served), ServedColumns(schema)
    if not any((served / "rankings").glob("*.parquet")):
        raise DataError(f"{served}: no rankings: expected rankings/*.parquet, as hemix serve --log writes them")
    counts = {"rows": 0, "shown": 0, "events": 0, **dict.fromkeys(schema.tasks, 0)}
    with new_folder(out) as folder:
        outcomes = _outcomes(served, folder, columns, counts)
        (folder / "impressions").mkdir()
        for path in sorted((served / "rankings").glob("*.parquet")):
            table = _read(path)
            labelled = _labelled(table, outcomes, schema, counts)
            kept = [n for n in labelled.column_names if not n.startswith("served_") or n == columns.request_id]
            _write(labelled.select(kept), folder / "impressions" / path.name)
    return counts


def _outcomes(served: Path, folder: Path, columns: ServedColumns, counts: dict[str, int]) -> Mapping[tuple[str, str], _Outcome]:
    """What is known by (ranking, item); writes the events on the way."""
    schema, found = columns.schema, dict[tuple[str, str], _Outcome]()
    (folder / "events").mkdir()
    own = sorted((served / "events").glob("*.parquet"))
    for path in log_files(served.parent, "events"):
        if path not in own and {*_told(columns)} <= {*(table := _read(path)).column_names}:  # else a log of another schema
            _learn(table, columns, found)
    for path in own:
        table = _read(path)
        _learn(table, columns, found)
        if schema.history_source == "events":  # what was merely shown is no event of theirs, in the server's histories neither
            table = table.filter(pc.equal(table["served_kind"], "interaction"))
        counts["events"] += table.num_rows
        _write(table.select([n for n in table.column_names if not n.startswith("served_")]), folder / "events" / path.name)
    return found


def _told(columns: ServedColumns) -> list[str]:
    """What of an event says what came of a ranking."""
    return [columns.schema.item, columns.clock, columns.action, "served_ranking", "served_kind", "served_fields"]


def _learn(table: pa.Table, columns: ServedColumns, found: dict[tuple[str, str], _Outcome]) -> None:
    bias = columns.schema.roles.bias
    for row in table.select(_told(columns)).to_pylist():
        if row["served_ranking"] is None:
            continue
        outcome = found.setdefault((row["served_ranking"], row[columns.schema.item]), _Outcome())
        kind, time = row[columns.action], row[columns.clock]
        if row["served_kind"] == "interaction" and kind is not None:
            before = outcome.first_ms.get(kind)
            outcome.first_ms[kind] = time if before is None or time is None else min(before, time)
        if bias is not None and outcome.position is None:
            outcome.position = json.loads(row["served_fields"] or "{}").get(bias.column)


def _labelled(table: pa.Table, outcomes: Mapping[tuple[str, str], _Outcome], schema: Schema, counts: dict[str, int]) -> pa.Table:
    pairs = zip(table["served_ranking"].to_pylist(), table[schema.item].to_pylist(), strict=True)
    of_row = [outcomes.get(pair) for pair in pairs]
    counts["rows"] += len(of_row)
    counts["shown"] += sum(outcome is not None for outcome in of_row)

    def put(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values)

    for name, label in schema.labels.items():
        column = label.column or name
        times = [None if one is None else one.first_ms.get(name, one.first_ms.get(column)) for one in of_row]
        positive = [one is not None and bool({name, column} & one.first_ms.keys()) for one in of_row]
        values = [None if one is None else int(yes) for one, yes in zip(of_row, positive, strict=True)]
        counts[name] += sum(positive)
        table = put(table, column, pa.array(values, pa.int8()))
        if label.available_at is not None:
            table = put(table, label.available_at, pa.array(times, TIME))
    bias = schema.roles.bias
    if bias is not None:
        places = table[bias.column].to_pylist()
        told = [one.position if one is not None and isinstance(one.position, int) else None for one in of_row]
        table = put(table, bias.column, pa.array([p if t is None else t for p, t in zip(places, told, strict=True)], pa.int64()))
    return table


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def _write(table: pa.Table, path: Path) -> None:
    with storage_errors(path):
        pq.write_table(table, path)
