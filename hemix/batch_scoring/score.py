"""Scores of new impressions: files in, one Parquet file out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.compute as pc

from hemix.batch_scoring.inputs import ScoringInputs, event_logs, open_impressions
from hemix.batch_scoring.ranked import write_all, write_best
from hemix.batch_scoring.scored import ScoredCounts, ScoreJob, score_range, scores_file
from hemix.batch_scoring.temporary_store import fill_store
from hemix.data.texts import texts_of
from hemix.errors import UsageError
from hemix.files import storage_errors
from hemix.measure import processors
from hemix.preparation.engine import task_folder
from hemix.preparation.local_engine import LocalEngine
from hemix.preparation.log_table import LogTable
from hemix.runs.prediction import check_new_parquet
from hemix.schema import Schema

__all__ = ["ScoringInputs", "score"]

Progress = Callable[[str, float], None]

_TASK_ROWS = 100_000


def score(
    run: Path,
    inputs: ScoringInputs,
    out: Path,
    *,
    top: int | None = None,
    processes: int = 1,
    progress: Progress = lambda _stage, _fraction: None,
) -> dict[str, int]:
    """Score rows of impressions into a new Parquet file, whole or not at all.

    Args:
        run: The run folder.
        inputs: The files.
        out: The new file, which ends in ``.parquet``.
        top: Write only the best rows of every request; None: all rows, in their order.
        processes: Number of processes.
        progress: Called with the activity and its completed fraction.

    Returns:
        ``rows`` that were scored, ``written`` rows, and the counts of
        :class:`hemix.batch_scoring.scored.ScoredCounts`.

    Raises:
        DataError: A file or a value cannot be used.
        RunError: The run cannot be used.
        UsageError: ``out`` exists, or a number is below 1.
    """
    _check_arguments(out, top)
    schema = Schema.load(run / "schema.yaml")
    impressions = open_impressions(schema, inputs)
    names = _names(schema, impressions, ranked=top is not None)
    logs = event_logs(schema, inputs, impressions) if inputs.needs_store else None
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        hidden = TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    with hidden as folder:
        temporary = Path(folder)
        store = inputs.store or "memory://"
        if logs is not None:
            users = _users(schema, impressions)
            store = fill_store(temporary, logs, inputs.events is not None, users, progress)
        job = ScoreJob(
            run=run,
            inputs=inputs,
            store=store,
            names=names,
            with_requests=top is not None,
            threads=None if processes == 1 else max(1, processors() // processes),
        )
        counts, parts = _score_all(job, impressions, temporary / "scored", processes, progress)
        with storage_errors(out):
            partial_file = temporary / out.name
            if top is None:
                written = write_all(parts, partial_file)
            else:
                written = write_best(parts, partial_file, names["score"], top)
            partial_file.replace(out)
    return {"written": written, **asdict(counts)}


def _check_arguments(out: Path, top: int | None) -> None:
    if top is not None and top < 1:
        raise UsageError(f"--top {top}: expected at least 1", field="--top")
    check_new_parquet(out)


def _score_all(
    job: ScoreJob, impressions: LogTable, folder: Path, processes: int, progress: Progress
) -> tuple[ScoredCounts, list[Path]]:
    """Score all ranges, each as a task; returns the counts and the files."""
    function, done = partial(score_range, job), 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        progress("scoring", done / impressions.rows)

    if processes == 1:
        function = partial(function, on_rows=on_rows)
    ranges = impressions.ranges(_TASK_ROWS)
    with LocalEngine(processes=processes, progress=progress) as engine:
        answers = engine.map("scoring", function, ranges, folder)
    parts = [scores_file(task_folder(folder, number)) for number in range(len(ranges))]
    return sum(answers, ScoredCounts()), parts


def _users(schema: Schema, impressions: LogTable) -> set[str]:
    """Return the ids of all users to score."""
    users: set[str] = set()
    for chunk in impressions.chunks([schema.user], _TASK_ROWS):
        users.update(pc.unique(texts_of(chunk.columns[schema.user])).to_pylist())
    return users


def _names(schema: Schema, impressions: LogTable, *, ranked: bool) -> dict[str, str]:
    """Return the names of the new columns: where the rows have a column of a name, with a prefix.

    Raises:
        UsageError: The rows have a column with that name too.
    """
    new = (*schema.outputs, "score")
    names = {name: f"predicted_{name}" if name in impressions.names else name for name in new}
    for name in (*names.values(), *(["rank"] if ranked else ())):
        if name in impressions.names:
            raise UsageError(
                f"{impressions.path}: has a column {name!r}, which the scores need",
                field=name,
                hint="rename the column",
            )
    return names
