"""SparkEngine: the stages of a preparation as jobs of a Spark session.

Driver and executors share the folder of the dataset. Tasks decode the logs with the code of the
local engine; Spark moves the blocks to their partitions and runs lost tasks again.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from hemix.errors import SparkError
from hemix.files import storage_errors
from hemix.preparation.decoding import LogName
from hemix.preparation.engine import PartitionedLogs, Progress, task_folder
from hemix.preparation.job import PrepareJob
from hemix.preparation.spark.blocks import BLOCK_COLUMNS, BlockRows, save_blocks
from hemix.preparation.spark.catalog import catalog_tables, export_table, file_url
from hemix.preparation.spark.failures import spark_errors
from hemix.preparation.spark.tasks import Attempt, Task
from hemix.preparation.stages.partition import read_logs
from hemix.schema import Schema

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SparkEngine"]

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

_BLOCK_ROWS = 1 << 14
"""Rows of a block, if the memory of a task allows: with fewer, blocks have more bytes for names"""
_MAX_SHUFFLE_TASKS = 2_000
_POLL_SECONDS = 0.2
_CLEAN_UP_SECONDS = 10.0


class SparkEngine:
    """Runs tasks on the executors of a Spark session; use it as a context manager."""

    def __init__(
        self,
        session: SparkSession,
        *,
        stop: bool = False,
        progress: Progress = lambda _stage, _fraction: None,
    ) -> None:
        """Describe the engine.

        Args:
            session: A running session.
            stop: Whether to stop the session at the end.
            progress: Called while tasks end.
        """
        self._session, self._stop, self._progress = session, stop, progress

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from py4j.protocol import Py4JError

        if self._stop:
            with suppress(Py4JError, OSError):  # raised where the driver's JVM has ended
                self._session.stop()

    def export_tables(self, schema: Schema, folder: Path) -> Mapping[str, Path]:
        """See :meth:`hemix.preparation.engine.Engine.export_tables`."""
        exported = {}
        for role, name in catalog_tables(schema).items():
            exported[role] = folder / role
            export = partial(export_table, self._session, schema, role, name, folder / role)
            self._run(f"exporting {name}", export)
        return exported

    # -- partition ---------------------------------------------------------------------------------

    def partition(self, job: PrepareJob) -> PartitionedLogs:
        """See :meth:`hemix.preparation.engine.Engine.partition`."""
        chunk_rows = min(job.memory_rows, _BLOCK_ROWS * job.partitions)
        logs = read_logs(job, self, save_blocks, chunk_rows)
        files: list[dict[LogName, Path]] = [{} for _ in range(job.partitions)]
        for log, read in logs.items():
            target = job.temporary / "blocks" / log
            self._move(f"partitioning {log}", read.folder, target, job.partitions)
            for path in target.glob("partition=*/*.parquet"):
                own = files[int(path.parent.name.partition("=")[2])]
                assert log not in own, "Spark writes one file for each partition"
                own[log] = path
        return PartitionedLogs(
            sources=[BlockRows(files=own) for own in files],
            texts=[path for read in logs.values() for path in read.texts],
            split_values=[values for read in logs.values() for values in read.split_values],
            discard=partial(shutil.rmtree, job.temporary / "blocks"),
        )

    def _move(self, stage: str, source: Path, target: Path, partitions: int) -> None:
        """Bring the blocks of all files to one file for each partition, in the order of the log."""

        def run() -> None:
            blocks = (
                self._session.read.schema(BLOCK_COLUMNS)
                .option("recursiveFileLookup", True)
                .option("pathGlobFilter", "*.parquet")
                .option("__globPaths__", False)  # a path is no pattern, whatever its characters
                .parquet(file_url(source))
            )
            (
                blocks.repartition(min(partitions, _MAX_SHUFFLE_TASKS), "partition")
                .sortWithinPartitions("partition", "first_row")
                .write.partitionBy("partition")
                .option("compression", "none")
                .option("parquet.enable.dictionary", False)
                .option("parquet.block.size", 1 << 24)
                .option("maxRecordsPerFile", 0)
                .parquet(file_url(target))
            )

        self._run(stage, run)
        for path in source.rglob("*.parquet"):
            path.unlink()

    # -- map ---------------------------------------------------------------------------------------

    def map(
        self,
        stage: str,
        function: Callable[[Argument, Path], Answer],
        arguments: Sequence[Argument],
        folder: Path,
    ) -> list[Answer]:
        """See :meth:`hemix.preparation.engine.Engine.map`.

        Args:
            stage: Name of the stage.
            function: Called with an argument and a new folder.
            arguments: One for each task.
            folder: Receives the folders of the tasks.
        """
        attempts = folder / ".attempts"
        with storage_errors(folder):
            attempts.mkdir(parents=True, exist_ok=True)
        if not arguments:
            return []
        task = Task(function=function, attempts=attempts)

        def run() -> list[Attempt[Answer]]:
            numbered = list(enumerate(arguments))
            tasks = self._session.sparkContext.parallelize(numbered, len(numbered))
            return tasks.mapPartitions(task).collect()

        try:
            answers = [self._commit(attempt, folder) for attempt in self._run(stage, run)]
        finally:
            _remove(attempts)
        return answers

    def _commit(self, attempt: Attempt[Answer], folder: Path) -> Answer:
        """Move the files of an attempt to their place and return its answer."""
        if attempt.error is not None:
            raise attempt.error
        if not attempt.folder.is_dir():
            raise SparkError(
                f"{attempt.folder}: an executor has written this folder, but the driver has none",
                hint="name an --out on a file system that driver and executors share",
            )
        with storage_errors(folder):
            attempt.folder.rename(task_folder(folder, attempt.number))
        answer: Answer = attempt.answer  # type: ignore[assignment]
        return answer

    # -- jobs --------------------------------------------------------------------------------------

    def _run(self, stage: str, action: Callable[[], Result]) -> Result:
        """Run an action's jobs in a thread with a job group; show their progress until they end."""
        context, group = self._session.sparkContext, f"hemix-{uuid.uuid4().hex}"

        def grouped() -> Result:
            context.setJobGroup(group, f"hemix prepare: {stage}", interruptOnCancel=True)
            return action()

        self._progress(stage, 0.0)
        with ThreadPoolExecutor(1) as pool, spark_errors(stage):
            future = pool.submit(grouped)
            try:
                return self._wait(stage, group, future)
            except BaseException:
                if not future.done():
                    context.cancelJobGroup(group)
                raise

    def _wait(self, stage: str, group: str, future: Future[Result]) -> Result:
        while True:
            try:
                result = future.result(timeout=_POLL_SECONDS)
            except NotDone:
                if not future.done():
                    self._progress(stage, self._completed(group))
                    continue
                raise
            self._progress(stage, 1.0)
            return result

    def _completed(self, group: str) -> float:
        """The fraction of the group's known tasks that have ended."""
        status, tasks, completed = self._session.sparkContext.statusTracker(), 0, 0
        for job in status.getJobIdsForGroup(group):
            info = status.getJobInfo(job)
            for number in info.stageIds if info is not None else ():
                stage = status.getStageInfo(number)
                if stage is not None:
                    tasks, completed = tasks + stage.numTasks, completed + stage.numCompletedTasks
        return completed / tasks if tasks else 0.0


def _remove(folder: Path) -> None:
    """Remove a folder into which a task of a lost executor may still write for a moment."""
    deadline = time.monotonic() + _CLEAN_UP_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
