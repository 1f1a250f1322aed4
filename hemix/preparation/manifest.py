"""manifest.json: the counts of a dataset and its logs, and hashes of its files and partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.layout import file_hash
from hemix.data.levels import level_spec
from hemix.preparation.entities import TableCounts
from hemix.preparation.events import EventCounts
from hemix.preparation.impressions import ImpressionCounts
from hemix.preparation.job import PrepareJob
from hemix.preparation.joins import Joins
from hemix.preparation.split_writer import SplitCounts
from hemix.schema import Schema

__all__ = ["LogCounts", "build_manifest", "listed_files", "rates", "split_entry"]

Array = npt.NDArray[Any]

_SHARED = ("encoders", "ids", "items", "statistics")
"""Folders that all partitions share"""


@dataclass(frozen=True, kw_only=True)
class LogCounts:
    """Counts of the logs over all partitions."""

    impressions: ImpressionCounts
    events: EventCounts
    joins: Joins
    user_table: TableCounts
    item_table: TableCounts


def build_manifest(
    job: PrepareJob,
    logs: LogCounts,
    summary: Mapping[str, Any],
    history: Mapping[str, int],
    partitions: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Describe the dataset in the job's folder.

    Args:
        job: Logs, schema and folder.
        logs: Counts of the logs.
        summary: Entries ``splits``, ``unknown_rate``, ``missing_rate``, ``label_rates`` and, with
            earlier vocabularies, ``growth``.
        history: Entries of the history lengths.
        partitions: The entry of every partition, with the hash of its manifest.
    """
    schema = job.schema
    return {
        "schema_version": 1,
        "hemix": hemix_version(),
        "name": schema.name,
        "fingerprint": schema.fingerprint(),
        "timezone": schema.clock.timezone,
        "tables": _table_sizes(job),
        "join_rate": logs.joins.rate,
        "join_example": logs.joins.example,
        "splits": summary["splits"],
        "history": {
            **asdict(logs.events),
            **history,
            **job.logs.missing_action,
            "source": schema.history_source,
        },
        "users": sum(entry["users"] for entry in partitions),
        "items": len(np.load(job.folder / "items" / "first_row.npy", mmap_mode="r")) - 1,
        "impressions": asdict(logs.impressions),
        "user_table": _table_entry(job, logs.user_table, "users"),
        "item_table": _table_entry(job, logs.item_table, "items"),
        **{name: entry for name, entry in summary.items() if name != "splits"},
        "encoders": encoder_hashes(job.folder / "encoders"),
        "files": {
            name: entry
            for folder in _SHARED
            for name, entry in listed_files(job.folder / folder, job.folder).items()
        },
        "partitions": list(partitions),
    }


def _table_entry(job: PrepareJob, counts: TableCounts, name: str) -> dict[str, Any]:
    table, since = getattr(job.logs, name), job.schema.valid_from
    versioned = table is not None and since is not None and since in table.names
    return {**asdict(counts), "versioned": versioned}


def _table_sizes(job: PrepareJob) -> dict[str, dict[str, int]]:
    """Rows and files of every table by name."""
    return {
        table.role.removeprefix("tables."): {"rows": table.rows, "files": len(table.files)}
        for table in job.logs.tables
    }


def hemix_version() -> str:
    """Return the installed version of hemix, ``unknown`` if it is not installed."""
    try:
        return version("hemix")
    except PackageNotFoundError:
        return "unknown"


def listed_files(folder: Path, root: Path) -> dict[str, dict[str, Any]]:
    """Return size in bytes and xxh64 of every file of a folder, by its path below ``root``.

    Args:
        folder: A folder, with its subfolders; it need not exist.
        root: The dataset folder, or the folder of a partition.
    """
    return {
        path.relative_to(root).as_posix(): {
            "bytes": path.stat().st_size,
            "xxh64": file_hash(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def encoder_hashes(folder: Path) -> dict[str, str]:
    """Return the xxh64 of every encoder file that decides an id or a number, by name.

    A model fits encoders with the same hashes only.
    """
    return {
        path.name: file_hash(path)
        for path in sorted(folder.glob("*"))
        if path.name == "encoders.json"
        or (path.suffix == ".npy" and not path.name.startswith(("users.", "items.")))
    }


def split_entry(schema: Schema, counts: SplitCounts) -> dict[str, Any]:
    """Return the manifest entry of a split.

    Args:
        schema: The schema.
        counts: Its counts over all partitions.
    """
    return {
        "rows": counts.rows,
        "requests": counts.requests,
        "users": counts.users,
        "positives": dict(zip(schema.tasks, counts.positives.tolist(), strict=True)),
        "unknown": dict(zip(schema.tasks, counts.unknown.tolist(), strict=True)),
        "first_time_ms": counts.first_ms,
        "last_time_ms": counts.last_ms,
    }


def rates(schema: Schema, counts: Mapping[str, Array]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the fractions of unknown and of missing values, each by ``level.feature``.

    Args:
        schema: The schema.
        counts: By level int [features, 3], see ``value_counts``.
    """
    unknown: dict[str, float] = {}
    missing: dict[str, float] = {}
    for level in sorted(counts):
        spec = level_spec(schema, level)
        for name, (unknowns, missings, values) in zip(
            (*spec.names, *spec.jagged_names),
            counts[level].tolist(),
            strict=True,
        ):
            unknown[f"{level}.{name}"] = round(unknowns / values, 6) if values else 0.0
            missing[f"{level}.{name}"] = round(missings / values, 6) if values else 0.0
    return unknown, missing
