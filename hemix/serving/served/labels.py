"""What came of served rankings: their rows with labels, out of the events that answered to them.

A label is known where its candidate was shown: an ``impression`` or ``interaction`` event of the
ranking's user names it. The label that an event's type names is positive, and so is every label
that this one depends on; the others are negative. What nobody saw stays unknown. The events of logs
beside the ranking's own count too: those of a version that was replaced go to the next one's log.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hemix.errors import DataError
from hemix.files import new_folder, storage_errors
from hemix.schema import Schema
from hemix.serving.served.columns import TIME, ServedColumns
from hemix.serving.served.files import log_columns, read_log_table
from hemix.serving.served.outcomes import Outcome, Outcomes
from hemix.serving.served.retention import log_files

__all__ = ["write_training_rows"]


def write_training_rows(served: str | Path, out: str | Path, schema: Schema) -> dict[str, int]:
    """Write rankings and events of a log folder as tables of a new folder, with the columns that
    the schema names and no others.

    Args:
        served: A log of one model and version, as ``hemix serve --log`` writes it.
        out: The folder that is made, with ``impressions/`` and ``events/``.
        schema: The schema of the run that served.

    Returns:
        Counts: ``rows``, ``shown``, ``events``, the positives of every label, and
        ``positions_left_out`` where events hold positions that are no whole numbers of at least 0:
        their rows keep the place that was served.

    Raises:
        UsageError: ``out`` is there already.
        DataError: Names a file that cannot be read.
    """
    served, columns = Path(served), ServedColumns(schema)
    own = sorted((served / "rankings").glob("*.parquet"))
    if not own:
        raise DataError(
            f"{served}: no rankings: expected rankings/*.parquet, as hemix serve --log writes them"
        )
    counts = {"rows": 0, "shown": 0, "events": 0, **dict.fromkeys(schema.tasks, 0)}
    with new_folder(out) as folder:
        outcomes = Outcomes(schema)
        _read_events(served, folder, columns, outcomes, counts)
        _read_rankings(served, own, outcomes)
        (folder / "impressions").mkdir()
        for path in own:
            table = read_log_table(path)
            labelled = _labelled(table, outcomes.of(table), schema, counts)
            kept = [
                n
                for n in labelled.column_names
                if not n.startswith("served_") or n == columns.request_id
            ]
            _write(
                columns.with_split_kind(labelled.select(kept)), folder / "impressions" / path.name
            )
    if outcomes.positions_left_out:
        counts["positions_left_out"] = outcomes.positions_left_out
    return counts


def _read_events(
    served: Path, folder: Path, columns: ServedColumns, outcomes: Outcomes, counts: dict[str, int]
) -> None:
    """All events of the log and of those beside it; writes the log's own on the way."""
    (folder / "events").mkdir()
    own = sorted((served / "events").glob("*.parquet"))
    for path in log_files(served.parent, "events"):
        if path not in own and (table := _read_some(path, outcomes.event_columns)) is not None:
            outcomes.learn(table)
    for path in own:
        table = read_log_table(path)
        outcomes.learn(table)
        if (
            columns.schema.history_source == "events"
        ):  # what was merely shown is no event of theirs, in the server's histories neither
            table = table.filter(pc.equal(table["served_kind"], "interaction"))
        counts["events"] += table.num_rows
        _write(
            table.select([n for n in table.column_names if not n.startswith("served_")]),
            folder / "events" / path.name,
        )


def _read_rankings(served: Path, own: list[Path], outcomes: Outcomes) -> None:
    """The rankings of the log, and of the same model's logs beside it: a request that was sent
    again may have met another version."""
    columns, model = outcomes.ranking_columns, None
    for path in own:
        table = read_log_table(path)
        outcomes.see(table)
        model = table["served_model"][0].as_py() if table.num_rows else model
    for path in log_files(served.parent, "rankings"):
        table = None if path in own else _read_some(path, [*columns, "served_model"])
        if table is not None:
            outcomes.see(table.filter(pc.equal(table["served_model"], model)))


def _labelled(
    table: pa.Table, outcomes: list[Outcome | None], schema: Schema, counts: dict[str, int]
) -> pa.Table:
    counts["rows"] += len(outcomes)
    counts["shown"] += sum(one is not None for one in outcomes)

    def put(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values)

    for name, label in schema.labels.items():
        values = [None if one is None else int(name in one.first_ms) for one in outcomes]
        counts[name] += sum(value == 1 for value in values)
        table = put(table, label.column or name, pa.array(values, pa.int8()))
        if label.available_at is not None:
            times = [None if one is None else one.first_ms.get(name) for one in outcomes]
            table = put(table, label.available_at, pa.array(times, TIME))
    bias = schema.roles.bias
    if bias is not None:
        positions = [None if one is None else one.position for one in outcomes]
        served = table[bias.column].to_pylist()
        values = [
            place if given is None else given
            for place, given in zip(served, positions, strict=True)
        ]
        table = put(table, bias.column, pa.array(values, pa.int64()))
    return table


def _read_some(path: Path, columns: list[str]) -> pa.Table | None:
    """These columns of a log beside the own; None where it is of another schema and lacks some."""
    if not {*columns} <= log_columns(path):
        return None
    return read_log_table(path, [*dict.fromkeys(columns)])


def _write(table: pa.Table, path: Path) -> None:
    with storage_errors(path):
        pq.write_table(table, path)
