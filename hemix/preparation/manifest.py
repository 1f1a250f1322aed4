"""manifest.json: the counts of a dataset and its logs, and a hash of every array."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.layout import SPLITS, Block, file_hash
from hemix.data.levels import level_spec
from hemix.preparation.dataset_writer import WrittenDataset
from hemix.preparation.entity_tables import EntityTables
from hemix.preparation.job import PrepareJob
from hemix.preparation.shards import ShardWriter, value_counts
from hemix.preparation.sorting import Passes
from hemix.schema import Schema

__all__ = ["build_manifest"]

Array = npt.NDArray[Any]


def build_manifest(
    job: PrepareJob,
    tables: EntityTables,
    passes: Passes,
    written: WrittenDataset,
    growth: dict[str, dict[str, int]] | None,
) -> dict[str, Any]:
    """Describe the dataset in the job's folder.

    Args:
        job: Logs, schema and folder.
        tables: Users and items.
        passes: Counts of the logs.
        written: The written arrays.
        growth: By vocabulary the number of kept, added and forgotten values; None without earlier
            vocabularies.
    """
    job.progress("hashing", 0.0)
    schema, impressions = job.schema, passes.impressions
    rows = {"user": impressions.user_rows, "item": impressions.item_rows}
    splits, unknown, missing = split_summary(schema, written.shards, written.blocks, rows)
    unknown["history"], missing["history"] = rates(schema, {"event": written.history.values})
    return {
        "schema_version": 1,
        "hemix": hemix_version(),
        "name": schema.name,
        "fingerprint": schema.fingerprint(),
        "timezone": schema.clock.timezone,
        "tables": _table_sizes(job),
        "join_rate": tables.joins.rate,
        "join_example": tables.joins.example,
        "splits": splits,
        "history": {
            **asdict(passes.events.counts),
            **history_lengths(written.events_per_user),
            **job.logs.missing_action,
            "source": schema.history_source,
        },
        "users": len(tables.users.in_table),
        "items": len(tables.items.in_table),
        "impressions": {
            **asdict(impressions.counts),
            "requests_of_several_times": impressions.requests.with_several_times,
        },
        "user_table": tables.users.summary(),
        "item_table": tables.items.summary(),
        "unknown_rate": unknown,
        "missing_rate": missing,
        **({} if growth is None else {"growth": growth}),
        "encoders": encoder_hashes(job.folder / "encoders"),
        "files": array_files(job.folder),
        "label_rates": written.label_rates.summary(),
    }


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


def array_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size in bytes and xxh64 of every .npy file, by relative path."""
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "xxh64": file_hash(path),
        }
        for path in sorted(folder.rglob("*.npy"))
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


def history_lengths(counts: Array) -> dict[str, int]:
    """Summarise the history lengths of the users with events.

    Args:
        counts: int64 [users], events of every user.
    """
    lengths = counts[counts > 0]
    if len(lengths) == 0:
        return {"users_with_events": 0, "p50": 0, "p90": 0, "p99": 0, "max": 0}
    p50, p90, p99 = np.quantile(lengths, [0.5, 0.9, 0.99], method="inverted_cdf").tolist()
    return {
        "users_with_events": len(lengths),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "max": int(lengths.max()),
    }


def split_summary(
    schema: Schema,
    writers: dict[int, ShardWriter],
    blocks: dict[str, Block],
    rows: dict[str, Array],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Summarise every split.

    Args:
        schema: The schema.
        writers: The shards by number of the split.
        blocks: Encoded features of the users and items, by level.
        rows: By level int64 [3, rows], impressions of each split that refer to each row.

    Returns:
        Counts, rates of unknown values, and rates of missing values, each by split.
    """
    splits: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    for number, writer in writers.items():
        assert writer.positives is not None and writer.unknown is not None
        name = SPLITS[number]
        splits[name] = {
            "rows": writer.rows,
            "requests": writer.requests,
            "users": writer.users,
            "positives": dict(zip(schema.tasks, writer.positives.tolist(), strict=True)),
            "unknown": dict(zip(schema.tasks, writer.unknown.tolist(), strict=True)),
            "first_time_ms": writer.first_ms,
            "last_time_ms": writer.last_ms,
        }
        counts = {
            level: value_counts(blocks[level], rows[level][number]) for level in blocks
        } | writer.values
        unknown[name], missing[name] = rates(schema, counts)
    return splits, unknown, missing


def rates(schema: Schema, counts: dict[str, Array]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the fractions of unknown and of missing values, each by ``level.feature``.

    Args:
        schema: The schema.
        counts: By level int [features, 3], see :func:`value_counts`.
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
