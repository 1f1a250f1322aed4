"""The preparation pipeline: all stages from the logs to the manifest, whatever engine runs them.

The bytes of every file depend on the logs, the schema and the number of partitions only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from hemix.data.layout import MANIFEST_FORMAT, SPEC_FORMAT, SPLITS, Appender
from hemix.data.raw_columns import numbers_of
from hemix.errors import SchemaError, StorageError, UsageError
from hemix.files import check_new_folder, new_folder, write_text
from hemix.preparation.allocation import arrow_on_malloc
from hemix.preparation.cleaned import TEXTS
from hemix.preparation.duplicates import warn_about_duplicates
from hemix.preparation.engine import Engine, PartitionedLogs, Progress, task_folder
from hemix.preparation.entities import TableCounts
from hemix.preparation.events import EventCounts
from hemix.preparation.history_writer import HistoryLengths
from hemix.preparation.impressions import ImpressionCounts, Span
from hemix.preparation.item_table import ItemTable, read_items
from hemix.preparation.items import ItemIndex
from hemix.preparation.job import PrepareJob
from hemix.preparation.joins import JoinCounts, Joins
from hemix.preparation.label_rates import LabelRates
from hemix.preparation.local_engine import LocalEngine
from hemix.preparation.logs import Logs, load_schema, open_logs
from hemix.preparation.manifest import LogCounts, build_manifest, rates, split_entry
from hemix.preparation.requests import check_requests, request_buckets
from hemix.preparation.split_writer import SplitCounts
from hemix.preparation.splits import Splitter
from hemix.preparation.stages.aggregate import AggregateTask, aggregate, sum_files
from hemix.preparation.stages.clean import CleanAnswer, clean
from hemix.preparation.stages.count import CountTask, count
from hemix.preparation.stages.fit import Fitted, fit
from hemix.preparation.stages.write import WriteAnswer, WriteTask, write
from hemix.preparation.statistics import leading_bits, write_statistics
from hemix.preparation.user_partitions import check_partitions, default_partitions
from hemix.preparation.vocabulary_extension import PreviousEncoders
from hemix.schema import Schema

__all__ = ["MEMORY_ROWS", "prepare"]

MEMORY_ROWS = 500_000
"""Default number of log rows in memory at once, in every process"""


def prepare(
    logs: str | Path,
    out: str | Path,
    *,
    schema: Schema | None = None,
    init_from: str | Path | None = None,
    vocabulary_ttl_days: int | None = None,
    partitions: int | None = None,
    processes: int = 1,
    engine: Engine | None = None,
    memory_rows: int = MEMORY_ROWS,
    progress: Progress = lambda _stage, _fraction: None,
) -> dict[str, Any]:
    """Make a dataset folder from a folder of logs.

    Args:
        logs: Folder with schema.yaml and the tables that it names.
        out: The dataset folder. A failed preparation leaves nothing behind.
        schema: A schema to use instead of schema.yaml.
        init_from: A dataset or run folder whose vocabularies are extended.
        vocabulary_ttl_days: Drop a value of these vocabularies after so many days without train
            rows.
        partitions: Number of partitions of the users; None: that of the dataset ``init_from``, or
            by the number of rows, 8 to 64.
        processes: Processes of this machine.
        engine: Runs the stages instead of processes of this machine.
        memory_rows: Approximate number of log rows in memory at once, in every process.
        progress: Called with the name of the stage and its completed fraction, 0 to 1.

    Returns:
        The content of manifest.json.

    Raises:
        UsageError: ``out`` exists and is not empty, or an argument is out of range.
        SchemaError: The schema does not fit the tables.
        DataError: A value cannot be used; the message names file, row and column.
        StorageError: The disk is full or read-only.
        ProcessLost: A process was killed.
    """
    began = time.monotonic()
    if memory_rows < 1:
        raise UsageError(f"memory_rows: expected at least 1, got {memory_rows}")
    out = Path(out)
    check_new_folder(out)
    if vocabulary_ttl_days is not None and (init_from is None or vocabulary_ttl_days < 1):
        flag, expected = "--vocabulary-ttl-days", "expected at least 1, together with --init-from"
        raise UsageError(f"{flag} {vocabulary_ttl_days}: {expected}", field=flag)
    if partitions is not None:
        check_partitions(partitions)
    local = LocalEngine(processes=processes, progress=progress)
    schema = load_schema(Path(logs)) if schema is None else schema
    previous = None
    if init_from is not None:
        previous = PreviousEncoders.load(init_from, schema, vocabulary_ttl_days)
    with new_folder(out) as folder, arrow_on_malloc():
        exported = (engine or local).export_tables(schema, folder / "temporary" / "tables")
        opened = open_logs(Path(logs), schema, exported)
        splitter = _splitter(opened)
        job = PrepareJob(
            logs=opened,
            splitter=splitter,
            folder=folder,
            partitions=_partitions(opened, partitions, previous),
            memory_rows=memory_rows,
        )
        with _named(out, folder), local:
            manifest = _Pipeline(job, engine or local, previous, progress).run()
        _warn(opened, manifest)
        manifest["seconds"] = round(time.monotonic() - began, 3)
        MANIFEST_FORMAT.write(folder / "manifest.json", manifest)
    return manifest


def _partitions(logs: Logs, given: int | None, previous: PreviousEncoders | None) -> int:
    """Number of partitions; a dataset that continues another has as many."""
    earlier = None if previous is None else previous.partitions
    if earlier is None:
        events = 0 if logs.events is None else logs.events.rows
        return given or default_partitions(logs.impressions.rows + events)
    if given is not None and given != earlier:
        raise UsageError(
            f"--partitions {given}: the dataset of --init-from has {earlier}",
            field="--partitions",
            hint=f"leave it out, or prepare the earlier logs again with --partitions {given}",
        )
    return earlier


def _splitter(logs: Logs) -> Splitter:
    """The splitter for the split's column, by default the clock."""
    schema, impressions = logs.schema, logs.impressions
    column = schema.split.column or schema.clock.column
    return Splitter(schema, impressions.arrow_schema.field(column).type, str(impressions.path))


def _warn(logs: Logs, manifest: dict[str, Any]) -> None:
    warn_about_duplicates(
        logs.impressions.path,
        manifest["impressions"]["duplicates"],
        logs.impressions.rows,
    )
    if logs.events is not None:
        warn_about_duplicates(logs.events.path, manifest["history"]["duplicates"], logs.events.rows)


@contextmanager
def _named(out: Path, folder: Path) -> Iterator[None]:
    """Name ``out`` in errors of the disk, not the temporary folder in which it is made."""
    try:
        yield
    except StorageError as error:
        raise StorageError(
            str(error).replace(str(folder), str(out)),
            code=error.code,
            field=error.field and error.field.replace(str(folder), str(out)),
        ) from error


class _Pipeline:
    """Runs the stages of a job on an engine."""

    def __init__(
        self,
        job: PrepareJob,
        engine: Engine,
        previous: PreviousEncoders | None,
        progress: Progress,
    ) -> None:
        self._job, self._engine, self._previous, self._progress = job, engine, previous, progress
        self._items = job.temporary / "items"
        self._cleaned = self._folders("clean")
        self._counted = self._folders("count")

    def _folders(self, stage: str) -> list[Path]:
        """The folder of every partition of a stage."""
        folder = self._job.temporary / stage
        return [task_folder(folder, number) for number in range(self._job.partitions)]

    def run(self) -> dict[str, Any]:
        """Run all stages and return the manifest without their duration."""
        job = self._job
        job.temporary.mkdir(exist_ok=True)
        partitioned = self._engine.partition(job)
        answers = self._clean(partitioned)
        span = self._check_splits(partitioned, answers)
        texts = [*partitioned.texts, *(path / TEXTS for path in self._cleaned)]
        texts = [path for path in texts if path.exists()]
        self._progress("reading items", 0.0)
        items = read_items(job, self._cleaned, texts)
        joins = self._check_joins(answers, items)
        ItemIndex.save(self._items, items.entities, items.numbers)
        self._count(span)
        self._progress("learning encoders", 0.0)
        texts = [*texts, *items.texts]
        fitted = fit(job, items, self._counted, texts, span, self._previous)
        self._aggregate(span)
        written = self._write(span, fitted, answers)
        _check_serving_position(job.schema, written)
        shutil.rmtree(job.temporary)
        write_text(job.folder / "schema.yaml", job.schema.to_yaml())
        SPEC_FORMAT.write(job.folder / "spec.json", fitted.encoders.spec().to_json())
        logs = LogCounts(
            impressions=_sum(ImpressionCounts(), [answer.impressions for answer in answers]),
            events=_sum(EventCounts(), [answer.events for answer in answers]),
            joins=joins,
            user_table=_sum(TableCounts(), [answer.user_table for answer in answers]),
            item_table=items.counts,
        )
        return self._manifest(logs, fitted, written)

    # -- stages ------------------------------------------------------------------------------------

    def _clean(self, partitioned: PartitionedLogs) -> list[CleanAnswer]:
        """Clean all partitions, and check what no partition can check alone."""
        job, folder = self._job, self._job.temporary / "clean"
        sources = partitioned.sources
        answers = self._engine.map("sorting", partial(clean, job), sources, folder)
        partitioned.discard()
        if job.schema.roles.request_id is not None:
            self._engine.map(
                "checking requests",
                partial(check_requests, job, self._cleaned),
                range(request_buckets(job)),
                job.temporary / "requests",
            )
        return answers

    def _check_splits(self, partitioned: PartitionedLogs, answers: Sequence[CleanAnswer]) -> Span:
        """Refuse an empty split, and return the times of all impressions."""
        seen = [*partitioned.split_values, *(answer.split_values for answer in answers)]
        in_split = np.sum([answer.in_split for answer in answers], axis=0)
        self._job.splitter.check(in_split, self._job.logs.impressions, seen)
        return _sum(Span(), [answer.span for answer in answers])

    def _check_joins(self, answers: Sequence[CleanAnswer], items: ItemTable) -> Joins:
        """Refuse tables that have no id in common."""
        joins, counts = Joins(), dict(items.joins)
        for name in ("users", "event_users"):
            counts[name] = _sum(JoinCounts(), [answer.joins[name] for answer in answers])
        joins.check(self._job.logs, counts)
        return joins

    def _count(self, span: Span) -> None:
        tasks = [CountTask(cleaned=path, items=self._items, span=span) for path in self._cleaned]
        folder = self._job.temporary / "count"
        self._engine.map("counting", partial(count, self._job), tasks, folder)

    def _aggregate(self, span: Span) -> None:
        """Write the dated statistics, if the schema has any."""
        job = self._job
        if not job.schema.statistics:
            return
        tasks = [
            AggregateTask(cleaned=path, items=self._items, log_end_ms=span.log_end_ms)
            for path in self._cleaned
        ]
        folder = job.temporary / "aggregate"
        self._engine.map("adding up statistics", partial(aggregate, job), tasks, folder)
        sums = [path for own in self._folders("aggregate") for path in sum_files(own)]
        bits = leading_bits(job.schema, job.logs.impressions.rows, job.memory_rows)
        write_statistics(job.schema, sums, bits, job.folder / "statistics")

    def _write(
        self, span: Span, fitted: Fitted, answers: Sequence[CleanAnswer]
    ) -> list[WriteAnswer]:
        job, truth = self._job, _save_truth(self._job)
        ids_as_int64 = all(answer.ids_are_int64 for answer in answers)
        tasks = [
            WriteTask(
                number=number,
                cleaned=self._cleaned[number],
                counted=self._counted[number],
                items=self._items,
                item_states=fitted.item_states,
                span=span,
                ids_as_int64=ids_as_int64,
                truth=truth,
            )
            for number in range(job.partitions)
        ]
        return self._engine.map("writing", partial(write, job), tasks, job.folder / "partitions")

    def _manifest(
        self, logs: LogCounts, fitted: Fitted, written: Sequence[WriteAnswer]
    ) -> dict[str, Any]:
        self._progress("hashing", 0.0)
        schema = self._job.schema
        label_rates, lengths = LabelRates(schema), HistoryLengths()
        for answer in written:
            label_rates.update(answer.label_rates)
            lengths.update(answer.lengths)
        summary: dict[str, Any] = {"splits": {}, "unknown_rate": {}, "missing_rate": {}}
        for name in SPLITS:
            counts = _split_counts(written, name)
            values = {"item": fitted.item_values[name], **counts.values}
            values["user"] = np.sum([answer.user_values[name] for answer in written], axis=0)
            summary["splits"][name] = split_entry(schema, counts)
            summary["unknown_rate"][name], summary["missing_rate"][name] = rates(schema, values)
        events = {"event": np.sum([answer.event_values for answer in written], axis=0)}
        summary["unknown_rate"]["history"], summary["missing_rate"]["history"] = rates(
            schema, events
        )
        if fitted.growth is not None:
            summary["growth"] = fitted.growth
        summary["label_rates"] = label_rates.summary()
        entries = [answer.entry() | {"xxh64": answer.manifest_xxh64} for answer in written]
        return build_manifest(self._job, logs, summary, lengths.summary(), entries)


class _Summable(Protocol):
    def update(self, other: Self, /) -> None: ...


_Sum = TypeVar("_Sum", bound=_Summable)


def _sum(total: _Sum, each: Sequence[_Sum]) -> _Sum:
    """Add up the counts of all partitions into ``total``."""
    for one in each:
        total.update(one)
    return total


def _split_counts(written: Sequence[WriteAnswer], split: str) -> SplitCounts:
    first, *others = (answer.splits[split] for answer in written)
    return _sum(replace(first), others)


def _save_truth(job: PrepareJob) -> Path | None:
    """Write float64 [log rows, T] to a temporary file; None without a truth table."""
    table = job.logs.truth
    if table is None:
        return None
    names = [f"p_{task}" for task in job.schema.tasks]
    path = job.temporary / "truth.npy"
    with Appender(path, np.float64, len(names)) as out:
        for chunk in table.chunks(names, job.memory_rows):
            columns = [numbers_of(name, chunk.columns[name], chunk.where) for name in names]
            out.append(np.stack(columns, axis=1))
    return path


def _check_serving_position(schema: Schema, written: Sequence[WriteAnswer]) -> None:
    """Refuse a serving position that no train row has: its weight would stay untrained."""
    bias = schema.roles.bias
    positions = set[int]().union(*(answer.splits["train"].positions for answer in written))
    if bias is None or min(bias.serve_as, bias.max) in positions:
        return
    first, last = min(positions), max(positions)
    raise SchemaError(
        f"roles.bias.serve_as: {bias.serve_as} never occurs in column {bias.column!r} of the "
        f"train rows ({first} to {last})",
        field="roles.bias.serve_as",
        hint=f"name the position that a server scores at, for instance serve_as: {first}",
    )
