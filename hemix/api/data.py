"""Functions that make logs and datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hemix.api.types import DatasetName, PathLike, Progress, ignore_progress

__all__ = ["import_logs", "prepare", "simulate"]


def simulate(
    out: PathLike,
    *,
    users: int = 3000,
    days: int = 8,
    seed: int = 0,
    on_progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Write the logs of a simulated city, and the true probabilities in ``out/truth``.

    Args:
        out: The new folder.
        users: Users of the city.
        days: Days of impressions; days with events only precede them.
        seed: Seed of all random draws.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        Counts of what was written.

    Raises:
        UsageError: ``out`` is not new, or a number is out of range.
    """
    from hemix.lab.simulator import simulate as run_simulation

    return run_simulation(Path(out), users=users, days=days, seed=seed, on_progress=on_progress)


def import_logs(
    name: DatasetName, raw: PathLike, out: PathLike, *, random_log: bool = False
) -> dict[str, Any]:
    """Convert the raw files of a public data set to logs with a schema.

    Args:
        name: ``kuairand`` or ``movielens``.
        raw: The folder of the raw files.
        out: The new folder.
        random_log: KuaiRand: add the randomly exposed impressions.

    Returns:
        The number of rows by table.

    Raises:
        UsageError: The name is unknown, or ``out`` is not new.
        DataError: Files are missing or malformed.
    """
    from hemix.lab.datasets import import_logs as run_import

    return run_import(name, Path(raw), Path(out), random_log=random_log)


def prepare(
    logs: PathLike,
    out: PathLike,
    *,
    shift_days: int | None = None,
    init_from: PathLike | None = None,
    vocabulary_ttl_days: int | None = None,
    partitions: int | None = None,
    processes: int = 1,
    on_progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Encode, sort and split logs into a dataset folder.

    Args:
        logs: A folder of logs with a schema.yaml.
        out: The new dataset folder.
        shift_days: Below 0: move the split so many days earlier, for another test period of the
            same logs.
        init_from: A dataset or run folder whose vocabularies are reused and extended
            (docs/how-to/incremental.md).
        vocabulary_ttl_days: With ``init_from``: drop values that no train row has had for so many
            days; None: never.
        partitions: Number of partitions of the users, 1 to 1,000,000; None: by the number of rows,
            8 to 64. It belongs to the dataset, like its rows.
        processes: Processes of this machine that work at a time. They change no byte.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        The content of manifest.json.

    Raises:
        UsageError: ``out`` is not new, or an argument is out of range.
        SchemaError: The schema does not fit the tables.
        DataError: A value cannot be used; the message names file, row and column.
        ProcessLost: A process was killed.
    """
    from hemix.preparation import prepare as run_prepare
    from hemix.preparation import shift_split

    schema = None if shift_days is None else shift_split(Path(logs), shift_days)
    return run_prepare(
        Path(logs),
        Path(out),
        schema=schema,
        init_from=init_from,
        vocabulary_ttl_days=vocabulary_ttl_days,
        partitions=partitions,
        processes=processes,
        progress=on_progress,
    )
