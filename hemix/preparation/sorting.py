"""Partition the logs by user, then deduplicate and sort each partition (stages 3 and 4).

Rows are in temporary files between the stages. What the encoders learn from is counted meanwhile.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from hemix.preparation.entity_tables import EntityTables
from hemix.preparation.events import EventPass
from hemix.preparation.fit import EncoderFitter
from hemix.preparation.impressions import ImpressionPass
from hemix.preparation.job import PrepareJob
from hemix.preparation.numbering import LogNumbers, Numbering
from hemix.preparation.rows import PartitionFiles, Rows, partition_bounds, take_rows
from hemix.preparation.requests import RequestGroups
from hemix.preparation.statistics import StatisticsPass

__all__ = ["Partitions", "Passes", "SortedPartitions", "partition", "sort_and_deduplicate"]


@dataclass(frozen=True, kw_only=True)
class Passes:
    """The work on the rows of each log, for all stages, with its counts."""

    impressions: ImpressionPass
    events: EventPass
    statistics: StatisticsPass | None
    """None if the schema has no statistics"""

    @classmethod
    def build(
        cls,
        job: PrepareJob,
        numbering: Numbering,
        tables: EntityTables,
        fitter: EncoderFitter,
    ) -> Passes:
        """Make the passes of a job.

        Args:
            job: Logs and schema.
            numbering: Numbers of users and items.
            tables: Users and items with their features.
            fitter: Learns the encoders from the rows.
        """
        users, items = tables.users, tables.items
        impressions = ImpressionPass(job.logs, job.splitter, fitter, users, items)
        events = EventPass(job.logs, fitter, items)
        statistics = None
        if job.schema.statistics:
            indices = (numbering.users, numbering.items)
            statistics = StatisticsPass(job.schema, users, items, indices, impressions.coordinates)
        return cls(impressions=impressions, events=events, statistics=statistics)


@dataclass(frozen=True, kw_only=True)
class Partitions:
    """The checked rows of both logs, in files by user."""

    impressions: PartitionFiles
    events: PartitionFiles | None
    """None without an events table"""


@dataclass(frozen=True, kw_only=True)
class SortedPartitions:
    """Rows without duplicates, sorted by user and time."""

    impressions: PartitionFiles
    """Impressions of the splits, grouped into requests"""
    history: PartitionFiles
    """Events"""
    statistics: PartitionFiles | None
    """Columns of all impressions that statistics need; None if the schema has none"""


def partition(job: PrepareJob, numbering: Numbering, passes: Passes) -> Partitions:
    """Read both logs, check every value and write the rows into files by user.

    Args:
        job: Logs, schema and memory limit.
        numbering: User and item numbers of the logs' rows.
        passes: The work on the rows.

    Raises:
        DataError: A value cannot be used, or a split is empty.
    """
    users = len(numbering.users)
    with _partition_files(job, "impressions", numbering.impressions, users) as impressions:
        passes.impressions.partition(
            numbering.impressions,
            impressions,
            job.memory_rows,
            job.progress,
        )
    if numbering.events is None:
        return Partitions(impressions=impressions, events=None)
    with _partition_files(job, "events", numbering.events, users) as events:
        passes.events.partition(numbering.events, events, job.memory_rows, job.progress)
    return Partitions(impressions=impressions, events=events)


def _partition_files(job: PrepareJob, name: str, numbers: LogNumbers, users: int) -> PartitionFiles:
    """Files of about ``memory_rows`` rows each; all rows of a user are in one file."""
    counts = numbers.rows_per_user(users, job.memory_rows)
    return PartitionFiles(job.temporary / name, partition_bounds(counts, job.memory_rows))


def sort_and_deduplicate(
    job: PrepareJob,
    partitions: Partitions,
    passes: Passes,
) -> SortedPartitions:
    """Drop duplicates, sort by user and time, group requests, and count what encoders learn from.

    Args:
        job: Schema and temporary folder.
        partitions: The rows of both logs; their files are deleted.
        passes: The work on the rows.

    Raises:
        DataError: The rows of a request contradict each other.
    """
    impressions, events = partitions.impressions, partitions.events
    span, folder = passes.impressions.span, job.temporary
    history_bounds = (impressions if events is None else events).bounds
    with ExitStack() as stack:
        sorted_rows = stack.enter_context(PartitionFiles(folder / "sorted", impressions.bounds))
        history = stack.enter_context(PartitionFiles(folder / "history", history_bounds))
        statistics = None
        if passes.statistics is not None:
            statistics = stack.enter_context(
                PartitionFiles(folder / "statistics", impressions.bounds)
            )
        bounds = np.arange(len(impressions) + 1)
        requests = stack.enter_context(PartitionFiles(folder / "requests", bounds))
        for number, raw in job.partitions(impressions, "sorting impressions"):
            inside, all_rows = passes.impressions.sort_and_deduplicate(raw)
            if events is None:
                as_events = passes.events.from_impressions(all_rows)
                history.put(number, passes.events.sort(as_events, span))
            if passes.statistics is not None and statistics is not None:
                statistics.put(number, passes.statistics.select_columns(all_rows))
            if inside is not None:
                sorted_rows.put(number, inside)
                _save_requests(job, inside, requests)
        if events is not None:
            for number, raw in job.partitions(events, "sorting events"):
                history.put(number, passes.events.sort(passes.events.deduplicate(raw), span))
    _check_requests(job, requests, passes.impressions.requests)
    return SortedPartitions(impressions=sorted_rows, history=history, statistics=statistics)


def _save_requests(job: PrepareJob, rows: Rows, requests: PartitionFiles) -> None:
    """Save the user of every request in files by request.

    The rows of a request of two users can be in two partitions, but they are in one of these files.
    """
    if job.schema.roles.request_id is None:
        return
    columns = {name: rows[name] for name in ("request", "user", "log_row")}
    first = take_rows(columns, np.flatnonzero(np.asarray(rows["starts"])))
    number = np.asarray(first["request"]) % np.uint64(len(requests))
    requests.add(first, number.astype(np.int64))


def _check_requests(job: PrepareJob, requests: PartitionFiles, groups: RequestGroups) -> None:
    """Raise DataError if two users share a request id."""
    for _, rows in job.partitions(requests, "checking requests"):
        groups.check_users(*(np.asarray(rows[name]) for name in ("request", "user", "log_row")))
