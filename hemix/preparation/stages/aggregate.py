"""Stage 5: sums of a partition by statistic, key and day, for the dated statistics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hemix.preparation.cleaned import STATISTICS, read_ranges
from hemix.preparation.job import PrepareJob
from hemix.preparation.lookup import PartitionLookup
from hemix.preparation.shared_files import load_encoders
from hemix.preparation.statistics import StatisticKeys, add_up, leading_bits

__all__ = ["AggregateTask", "aggregate", "sum_files"]


@dataclass(frozen=True, kw_only=True)
class AggregateTask:
    """What to add up."""

    cleaned: Path
    """The partition's folder of the stage ``clean``"""
    items: Path
    """The folder of :class:`hemix.preparation.items.ItemIndex`"""
    log_end_ms: int
    """End of the log in ms UTC"""


def aggregate(job: PrepareJob, task: AggregateTask, folder: Path) -> None:
    """Add up the rows of a partition.

    Args:
        job: Schema and dataset folder, which has encoders and items already.
        task: What to add up.
        folder: Receives the files of :func:`sum_files`.

    Raises:
        StorageError: The disk is full or read-only.
    """
    lookup = PartitionLookup.load(job, task.cleaned, task.items)
    keys = StatisticKeys(lookup, load_encoders(job), job.folder / "items")
    bits = leading_bits(job.schema, job.logs.impressions.rows, job.memory_rows)
    for number, rows in enumerate(read_ranges(task.cleaned, STATISTICS)):
        rows = lookup.with_versions(rows, "time_ms")
        path = folder / f"sums-{number:05d}.arrow"
        add_up(path, rows, keys, job.schema, task.log_end_ms, bits)


def sum_files(folder: Path) -> list[Path]:
    """Return the files of a partition for ``write_statistics``."""
    return sorted(folder.glob("sums-*.arrow"))
