"""A range of rows with their scores, in a file of a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from hemix.batch_scoring.inputs import ScoringInputs, open_impressions
from hemix.batch_scoring.requests import ChunkRequests, RowsOfRequest
from hemix.batch_scoring.temporary_store import store_limits
from hemix.errors import DataError, RequestError, StoreError
from hemix.preparation.chunks import Chunk, RowRange
from hemix.runs import Run
from hemix.schema import Schema
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.stores import open_store
from hemix.serving.types import Ranking

__all__ = ["REQUEST", "ScoreJob", "ScoredCounts", "score_range", "scores_file"]

Array = npt.NDArray[Any]

REQUEST = "\x00request"
"""Column of request keys, in the files of tasks only"""
_CHUNK_ROWS = 8_192
_BATCH_CANDIDATES = 256
_STORE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class ScoreJob:
    """What every task needs."""

    run: Path
    inputs: ScoringInputs
    store: str
    """URL of the store that requests read"""
    names: dict[str, str]
    """Name of the column of every output, and of ``score``"""
    with_requests: bool
    """Whether the rows get the column :data:`REQUEST`"""
    threads: int | None = None
    """Threads of a process; None: as many as PyTorch chooses"""


@dataclass(frozen=True, kw_only=True)
class ScoredCounts:
    """Counts of rows."""

    rows: int = 0
    without_score: int = 0
    """The score expression has no finite value"""
    unknown_items: int = 0
    """Neither the run nor an event or file knows the item"""
    unknown_users: int = 0
    cut_histories: int = 0
    """The user has so many later events that earlier ones were not read"""

    def __add__(self, other: ScoredCounts) -> ScoredCounts:
        return ScoredCounts(
            rows=self.rows + other.rows,
            without_score=self.without_score + other.without_score,
            unknown_items=self.unknown_items + other.unknown_items,
            unknown_users=self.unknown_users + other.unknown_users,
            cut_histories=self.cut_histories + other.cut_histories,
        )


def scores_file(folder: Path) -> Path:
    """Return the Arrow file of a task."""
    return folder / "scores.arrow"


def score_range(
    job: ScoreJob,
    row_range: RowRange,
    folder: Path,
    on_rows: Callable[[int], None] = lambda _: None,
) -> ScoredCounts:
    """Score the rows of a range into :func:`scores_file`.

    Args:
        job: The run and its inputs.
        row_range: The rows.
        folder: Receives the file.
        on_rows: Called with the number of rows of every chunk that is scored.

    Raises:
        DataError: A value cannot be used; names file, row and column.
        RunError: The run cannot be served.
        StoreError: The store fails.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    run = Run.load(job.run)
    impressions = open_impressions(run.schema, job.inputs)
    store = open_store(job.store, store_limits(run.schema))
    engine = Engine(run, store, ServeConfig(store_timeout=_STORE_SECONDS))
    counts, writer = ScoredCounts(), None
    try:
        for chunk in impressions.read(row_range, None, _CHUNK_ROWS):
            table, of_chunk = _scored(job, run.schema, engine, chunk)
            if writer is None:
                writer = pa.ipc.new_file(scores_file(folder), table.schema)
            writer.write_table(table)
            counts += of_chunk
            on_rows(chunk.rows)
    finally:
        if writer is not None:
            writer.close()
        engine.close()
        store.close()
    return counts


def _scored(
    job: ScoreJob, schema: Schema, engine: Engine, chunk: Chunk
) -> tuple[pa.Table, ScoredCounts]:
    """Return the rows of a chunk with their scores, and their counts."""
    requests = ChunkRequests(schema, chunk)
    values = {name: np.full(chunk.rows, math.nan) for name in (*schema.outputs, "score")}
    counts = ScoredCounts(rows=chunk.rows)
    for batch in _batches(requests):
        rankings = _rank(engine, [each.request for each in batch], chunk, batch[0].first)
        for each, ranking in zip(batch, rankings, strict=True):
            counts += _counts_of(ranking)
            for item in ranking.items:
                row = each.first + item.position
                values["score"][row] = item.score
                for name, value in item.outputs.items():
                    values[name][row] = value
    counts = replace(counts, without_score=int(np.isnan(values["score"]).sum()))
    columns = dict(chunk.columns)
    columns |= {
        job.names[name]: pa.array(column, from_pandas=True) for name, column in values.items()
    }
    if job.with_requests:
        columns[REQUEST] = requests.request_keys()
    return pa.table(columns), counts


def _batches(requests: ChunkRequests) -> Iterator[list[RowsOfRequest]]:
    """Yield requests in groups of about 256 candidates."""
    batch, candidates = list[RowsOfRequest](), 0
    for request in requests:
        batch.append(request)
        candidates += len(request.request.items)
        if candidates >= _BATCH_CANDIDATES:
            yield batch
            batch, candidates = [], 0
    if batch:
        yield batch


def _rank(engine: Engine, requests: Sequence[Any], chunk: Chunk, first: int) -> list[Ranking]:
    try:
        return engine.rank(requests)
    except RequestError as error:
        source, row = chunk.where.source, chunk.where.first_row + first
        raise DataError(
            f"{source}: row {row} or one of the next {_BATCH_CANDIDATES}: {error}",
            field=error.field,
        ) from error


def _counts_of(ranking: Ranking) -> ScoredCounts:
    if {"history", "features"} & set(ranking.degraded):
        raise StoreError("the store did not answer", hint="score again when it does")
    items = len(ranking.items)
    return ScoredCounts(
        unknown_items=sum(item.status == "UNKNOWN_ITEM" for item in ranking.items),
        unknown_users=0 if ranking.user_known else items,
        cut_histories=items if "early_history" in ranking.degraded else 0,
    )
