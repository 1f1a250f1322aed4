"""Training rows from a ranking log: the ranked candidates, labelled by the events that answered.

A label is known where an ``impression`` or ``interaction`` event shows that the candidate was seen.
The event's action makes its label positive, with the labels that it depends on. Other labels are
negative. Events of sibling logs count too: a new version's log continues an old one's.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hemix.files import new_folder, storage_errors
from hemix.schema import Schema
from hemix.serving.ranking_log.files import (
    ranking_files,
    read_columns,
    read_table,
    sibling_files,
)
from hemix.serving.ranking_log.outcomes import Outcome, Outcomes
from hemix.serving.ranking_log.tables import TIME, LogTables

__all__ = ["write_training_rows"]


def write_training_rows(log: str | Path, out: str | Path, schema: Schema) -> dict[str, int]:
    """Write rankings and events of a log as a folder of logs with the schema's columns.

    Args:
        log: A log folder of one model and version, as ``hemix serve --log`` writes it.
        out: The folder to create, with ``impressions/`` and ``events/``.
        schema: Schema of the served run.

    Returns:
        Counts: ``rows``, ``shown``, ``events`` and the positives of every label.
        ``positions_left_out`` counts events whose positions are no whole numbers of at least 0;
        their rows keep the position in the ranking.

    Raises:
        UsageError: ``out`` exists.
        DataError: A file cannot be read.
    """
    log = Path(log)
    ranking_paths = ranking_files(log)
    counts = {"rows": 0, "shown": 0, "events": 0, **dict.fromkeys(schema.tasks, 0)}
    with new_folder(out) as folder:
        outcomes = Outcomes(schema)
        _collect_sibling_events(log, outcomes)
        counts["events"] = _collect_and_write_events(log, folder / "events", outcomes, schema)
        _collect_rankings(log, ranking_paths, outcomes)
        (folder / "impressions").mkdir()
        tables = LogTables(schema)
        for path in ranking_paths:
            rankings = read_table(path)
            labelled = _set_labels(rankings, outcomes.of(rankings), schema, counts)
            columns = [
                name
                for name in labelled.column_names
                if not name.startswith("served_") or name == tables.request_id
            ]
            rows = tables.columns.with_split_type(labelled.select(columns))
            _write(rows, folder / "impressions" / path.name)
    if outcomes.invalid_positions:
        counts["positions_left_out"] = outcomes.invalid_positions
    return counts


def _collect_sibling_events(log: Path, outcomes: Outcomes) -> None:
    for path in sibling_files(log, "events"):
        events = read_columns(path, outcomes.event_columns)
        if events is not None:
            outcomes.add_events(events)


def _collect_and_write_events(log: Path, out: Path, outcomes: Outcomes, schema: Schema) -> int:
    """Collect the log's events and write them; return the number of rows written."""
    out.mkdir()
    count = 0
    for path in sorted((log / "events").glob("*.parquet")):
        events = read_table(path)
        outcomes.add_events(events)
        if schema.history_source == "events":  # impressions enter no history, as in the server
            events = events.filter(pc.equal(events["served_kind"], "interaction"))
        count += events.num_rows
        columns = [name for name in events.column_names if not name.startswith("served_")]
        _write(events.select(columns), out / path.name)
    return count


def _collect_rankings(log: Path, ranking_paths: list[Path], outcomes: Outcomes) -> None:
    """Collect the log's rankings, and those of the same model's other versions.

    A repeated request may have been ranked by another version.
    """
    model = None
    for path in ranking_paths:
        rankings = read_table(path)
        outcomes.add_rankings(rankings)
        if rankings.num_rows:
            model = rankings["served_model"][0].as_py()
    for path in sibling_files(log, "rankings"):
        rankings = read_columns(path, [*outcomes.ranking_columns, "served_model"])
        if rankings is not None:
            outcomes.add_rankings(rankings.filter(pc.equal(rankings["served_model"], model)))


def _set_labels(
    rankings: pa.Table, outcomes: list[Outcome | None], schema: Schema, counts: dict[str, int]
) -> pa.Table:
    """Set label columns and positions by the outcomes, and add to ``counts``."""
    counts["rows"] += len(outcomes)
    counts["shown"] += sum(outcome is not None for outcome in outcomes)
    for name, label in schema.labels.items():
        labels = [
            None if outcome is None else int(name in outcome.first_ms) for outcome in outcomes
        ]
        counts[name] += sum(value == 1 for value in labels)
        rankings = _set_column(rankings, label.column or name, pa.array(labels, pa.int8()))
        if label.available_at is not None:
            times = [
                None if outcome is None else outcome.first_ms.get(name) for outcome in outcomes
            ]
            rankings = _set_column(rankings, label.available_at, pa.array(times, TIME))
    bias = schema.roles.bias
    if bias is not None:
        positions = [
            position if outcome is None or outcome.position is None else outcome.position
            for position, outcome in zip(rankings[bias.column].to_pylist(), outcomes, strict=True)
        ]
        rankings = _set_column(rankings, bias.column, pa.array(positions, pa.int64()))
    return rankings


def _set_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _write(table: pa.Table, path: Path) -> None:
    with storage_errors(path):
        pq.write_table(table, path)
