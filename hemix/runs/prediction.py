"""Scores of a split as Arrow tables, batch by batch, and as a Parquet file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.dataset import Dataset
from hemix.data.layout import load_array
from hemix.errors import UsageError
from hemix.files import storage_errors
from hemix.runs.folder import Run, ScoredPosition, check_same_schema
from hemix.runs.scoring import score_split

__all__ = ["check_new_parquet", "predicted_tables", "write_predictions"]


def predicted_tables(
    run: Run,
    data: Dataset,
    split: str = "test",
    *,
    position: ScoredPosition = "serving",
    on_progress: Callable[[int], None] = lambda _: None,
) -> Iterator[pa.Table]:
    """Score every impression of a split, one table a batch.

    Columns: ``log_row`` (row in the impression log), the columns of ``roles.row_key``, user and
    item, ``time_ms``, one for every output, and ``score``. The item is null for the unknown item.
    The score is NaN where a column of its expression is missing or its value is not finite.

    Args:
        run: The model and its schema.
        data: The dataset.
        split: Name of the split.
        position: ``serving`` gives the scores of a server, ``logged`` those at the logged position.
        on_progress: Called with the number of impressions that are scored.

    Yields:
        The tables.

    Raises:
        RunError: The dataset has another schema.
    """
    check_same_schema(run, data)
    impressions, row_key = data.split(split), data.schema.roles.row_key
    expression = run.schema.score_expression
    raw_names = run.schema.score_columns
    raw = load_array(data.folder / "items" / "raw.npy") if raw_names else None
    items = pq.read_table(data.folder / "ids" / "items.parquet").column(0)
    item_of_row = load_array(data.folder / "items" / "number.npy")
    for scored in score_split(run, impressions, position=position, on_progress=on_progress):
        rows = scored.impression_index
        item_row = impressions.item_row[rows]
        item = item_of_row[item_row]
        request = impressions.requests_of(rows)
        values = dict(scored.outputs)
        for column, name in enumerate(raw_names):
            assert raw is not None
            values[name] = raw[item_row, column]
        yield pa.table(
            {
                "log_row": impressions.log_row[rows],
                **({} if row_key is None else {row_key: impressions.row_keys(rows)}),
                run.schema.user: data.user_ids(impressions.users_of(request)),
                run.schema.item: items.take(pa.array(item, mask=item < 0)),
                "time_ms": impressions.time_ms[request],
                **{name: scored.outputs[name] for name in run.schema.outputs},
                "score": expression.scores(values, len(rows)),
            }
        )


def check_new_parquet(out: Path) -> None:
    """Raise UsageError unless ``out`` ends in ``.parquet`` and does not exist."""
    if out.suffix != ".parquet":
        raise UsageError(
            f"--out {out}: scores are written as Parquet",
            field="--out",
            hint="name a file that ends in .parquet",
        )
    if out.exists():
        raise UsageError(
            f"--out {out}: exists already", code="out_exists", field="--out", hint="name a new file"
        )


def write_predictions(tables: Iterator[pa.Table], out: str | Path) -> dict[str, int]:
    """Write tables to a new Parquet file, whole or not at all; a score that is NaN becomes null.

    Args:
        tables: From :func:`predicted_tables`.
        out: The file, which ends in ``.parquet``.

    Returns:
        How many ``rows``, and how many of them are ``without_score``.

    Raises:
        UsageError: ``out`` exists, or has another ending.
    """
    out = Path(out)
    check_new_parquet(out)
    partial = out.with_name(f".{out.name}.part")
    counts = {"rows": 0, "without_score": 0}
    try:
        with storage_errors(out):
            written = map(_with_null_scores, tables)
            first = next(written)
            partial.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(partial, first.schema) as writer:
                for table in itertools.chain([first], written):
                    writer.write_table(table)
                    counts["rows"] += table.num_rows
                    counts["without_score"] += table["score"].null_count
            partial.replace(out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return counts


def _with_null_scores(table: pa.Table) -> pa.Table:
    score = pa.array(table["score"].to_numpy(), from_pandas=True)
    return table.set_column(table.column_names.index("score"), "score", score)
