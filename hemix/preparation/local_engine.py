"""The embedded engine: one machine, in this process or in several.

The processes end with this one, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from hemix.errors import ProcessLost, UsageError
from hemix.files import storage_errors
from hemix.preparation.allocation import arrow_on_malloc
from hemix.preparation.engine import PartitionedLogs, Progress, task_folder
from hemix.preparation.job import PrepareJob
from hemix.preparation.stages.partition import partition_logs
from hemix.schema import Schema

__all__ = ["LocalEngine"]

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


class LocalEngine:
    """Runs tasks in this process or in a pool of processes; use it as a context manager."""

    def __init__(
        self, *, processes: int = 1, progress: Progress = lambda _stage, _fraction: None
    ) -> None:
        """Describe the engine; processes start with the first task.

        Args:
            processes: Number of processes; 1 runs all tasks in this one.
            progress: Called after every task.

        Raises:
            UsageError: ``processes`` is below 1.
        """
        if processes < 1:
            raise UsageError(f"--processes {processes}: expected at least 1", field="--processes")
        self._processes, self._progress = processes, progress
        self._context = _SpawnContext()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            for process in self._context.processes if kind is not None else ():
                process.terminate()
            self._pool.shutdown(cancel_futures=True)

    def export_tables(self, schema: Schema, folder: Path) -> Mapping[str, Path]:  # noqa: ARG002
        """Return nothing: tables of a catalog are refused when the logs are opened."""
        return {}

    def partition(self, job: PrepareJob) -> PartitionedLogs:
        """See :meth:`hemix.preparation.engine.Engine.partition`."""
        return partition_logs(job, self)

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
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        run = _Task(function, folder)
        self._progress(stage, 0.0)
        if self._processes == 1 or len(arguments) <= 1:
            answers = []
            for number, argument in enumerate(arguments):
                answers.append(run(number, argument))
                self._progress(stage, (number + 1) / len(arguments))
            return answers
        return self._map_in_pool(stage, run, arguments)

    def _map_in_pool(
        self, stage: str, run: _Task[Argument, Answer], arguments: Sequence[Argument]
    ) -> list[Answer]:
        pool, answers = self._started(), list[Answer]()
        try:
            futures = [pool.submit(run, number, value) for number, value in enumerate(arguments)]
            for future in futures:
                answers.append(future.result())
                self._progress(stage, len(answers) / len(arguments))
        except BrokenProcessPool as error:
            raise ProcessLost(
                f"{stage}: a process of the preparation ended before its task",
                hint="it was killed, perhaps for memory: use fewer --processes; a script calls "
                'hemix.prepare with processes under if __name__ == "__main__"',
            ) from error
        return answers

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=self._context, initializer=_begin_worker
            )
        return self._pool


@dataclass(frozen=True)
class _Task(Generic[Argument, Answer]):
    """A stage's function with its folder."""

    function: Callable[[Argument, Path], Answer]
    folder: Path

    def __call__(self, number: int, argument: Argument) -> Answer:
        folder = task_folder(self.folder, number)
        with storage_errors(folder):
            folder.mkdir()
        with arrow_on_malloc():
            return self.function(argument, folder)


class _SpawnContext(SpawnContext):
    """New interpreters, as a fork copies locks of other threads; remembers the processes."""

    def __init__(self) -> None:
        self.processes: list[BaseProcess] = []

    def Process(self, *arguments: Any, **keywords: Any) -> BaseProcess:  # type: ignore[override]  # noqa: N802
        process = SpawnProcess(*arguments, **keywords)
        self.processes.append(process)
        return process


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
