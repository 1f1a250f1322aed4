"""Functions that make logs and datasets."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemix.api.types import (
    DatasetName,
    DerivedLogName,
    PathLike,
    Progress,
    ProtocolName,
    ignore_progress,
)
from hemix.errors import UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from hemix.api.types import EngineName
    from hemix.preparation.engine import Engine

__all__ = ["PrepareOptions", "import_logs", "prepare", "simulate"]


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
    name: DatasetName,
    raw: PathLike,
    out: PathLike,
    *,
    random_log: bool = False,
    protocol: ProtocolName | None = None,
) -> dict[str, Any]:
    """Convert the raw files of a public data set to logs with a schema.

    Args:
        name: ``ebnerd``, ``kuairand``, ``mind`` or ``movielens``.
        raw: The folder of the raw files.
        out: The new folder.
        random_log: KuaiRand: add the randomly exposed impressions; with ``protocol``: make them the
            test split.
        protocol: KuaiRand: the days and the label of a public comparison.

    Returns:
        The number of rows by table.

    Raises:
        UsageError: A name is unknown, the data set lacks an option, or ``out`` is not new.
        DataError: Files are missing or malformed.
    """
    from hemix.lab.datasets import ImportOptions
    from hemix.lab.datasets import import_logs as run_import

    options = ImportOptions(random_log=random_log, protocol=protocol)
    return run_import(name, Path(raw), Path(out), options)


def derive(
    name: DerivedLogName,
    logs: PathLike,
    out: PathLike,
    *,
    max_rows: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Make a log of a special kind from other logs, such as one with new items every day.

    Args:
        name: The kind; docs/how-to/derived-logs.md lists them.
        logs: The logs folder to make it from.
        out: The new folder.
        max_rows: Most impressions of ``logs`` to use, by whole users; None: the kind's own number.
        seed: Seed of all draws.

    Returns:
        The number of rows by table.

    Raises:
        UsageError: The name is unknown, ``out`` is not new, or the kind cannot be made of these
            logs.
        DataError: A table is missing or malformed.
        SchemaError: The schema is missing or wrong.
    """
    from hemix.lab.derived_logs import derive_logs

    return derive_logs(name, Path(logs), Path(out), max_rows=max_rows, seed=seed)


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Details of a preparation."""

    vocabulary_ttl_days: int | None = None
    """With ``init_from``: drop values that no train row has had for so many days; None: never"""
    partitions: int | None = None
    """Number of partitions of the users, 1 to 1,000,000; None: that of the dataset ``init_from``,
    or by the number of rows, 8 to 64. It belongs to the dataset, like its rows.
    """
    processes: int = 1
    """Processes of this machine that work at a time; they change no byte"""
    spark_master: str | None = None
    """With ``engine="spark"``: a master URL; None: that of spark-submit or spark-defaults.conf,
    else ``local[*]``
    """


def prepare(
    logs: PathLike,
    out: PathLike,
    *,
    shift_days: int | None = None,
    init_from: PathLike | None = None,
    engine: EngineName | SparkSession = "local",
    options: PrepareOptions | None = None,
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
        engine: Who does the work: ``local`` (this machine), ``spark`` (a new Spark session), or a
            Spark session (docs/how-to/spark.md). It changes no byte.
        options: Vocabularies, partitions, processes.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        The content of manifest.json.

    Raises:
        UsageError: ``out`` is not new, or an argument is out of range.
        SchemaError: The schema does not fit the tables.
        DataError: A value cannot be used; the message names file, row and column.
        ProcessLost: A process or all executors of a task were lost.
        SparkError: Spark failed, or there is no Java.
        MissingExtra: pyspark is not installed.
    """
    from hemix.preparation import prepare as run_prepare
    from hemix.preparation import shift_split

    options = options or PrepareOptions()
    logs, out = Path(logs), Path(out)
    if engine != "local":  # executors have another working directory
        logs, out = logs.absolute(), out.absolute()
    schema = None if shift_days is None else shift_split(logs, shift_days)
    with _spark_engine(engine, options, on_progress) as spark:
        return run_prepare(
            logs,
            out,
            schema=schema,
            init_from=init_from,
            vocabulary_ttl_days=options.vocabulary_ttl_days,
            partitions=options.partitions,
            processes=options.processes,
            engine=spark,
            progress=on_progress,
        )


def _spark_engine(
    engine: EngineName | SparkSession, options: PrepareOptions, on_progress: Progress
) -> AbstractContextManager[Engine | None]:
    """Return the Spark engine; a context of None without one."""
    if engine != "spark" and options.spark_master is not None:
        raise UsageError(
            f"--spark-master {options.spark_master}: expected --engine spark with it",
            field="--spark-master",
        )
    if engine == "local":
        return nullcontext()
    if options.processes != 1:
        raise UsageError(
            f"--processes {options.processes}: are of --engine local",
            field="--processes",
            hint="the master of Spark decides how many tasks run at a time",
        )
    from hemix.preparation.spark.engine import SparkEngine
    from hemix.preparation.spark.session import check_session, start_session

    if engine == "spark":
        session = start_session(options.spark_master)
        return SparkEngine(session, stop=True, progress=on_progress)
    return SparkEngine(check_session(engine), progress=on_progress)
