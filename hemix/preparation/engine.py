"""Engine: who runs the stages of a preparation. The stages know no engine.

An engine does two things: it brings the rows of each user to one partition, and it runs a function
for many arguments, each of which writes into a folder of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from hemix.preparation.decoding import DecodedRows, LogName
from hemix.preparation.job import PrepareJob
from hemix.preparation.splits import SplitValues
from hemix.schema import Schema

__all__ = ["Engine", "PartitionedLogs", "Progress", "RowSource", "task_folder"]

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")
Progress: TypeAlias = Callable[[str, float], None]
"""Called with the name of the stage and its completed fraction, 0 to 1."""


class RowSource(Protocol):
    """The decoded rows of one partition. A task on any machine can read it."""

    def rows(self, log: LogName) -> int:
        """Return the number of rows of a log; 0 without the table."""

    def read(self, log: LogName) -> Iterator[DecodedRows]:
        """Yield the rows of a log in the order of the log.

        It can be called again, for a partition that is larger than memory.

        Args:
            log: Name of the log.

        Raises:
            DataError: If the rows are decoded here: a value cannot be used.
        """


@dataclass(frozen=True, kw_only=True)
class PartitionedLogs:
    """All rows of the logs by partition."""

    sources: Sequence[RowSource]
    """One for each partition"""
    texts: Sequence[Path] = ()
    """Files of :func:`hemix.preparation.texts.save_texts` with the texts that ``sources`` lack"""
    split_values: Sequence[SplitValues] = ()
    """What was seen of the split's column, where rows were decoded before they were partitioned"""
    discard: Callable[[], None] = lambda: None
    """Deletes temporary rows, once all partitions are clean; the texts stay"""


class Engine(Protocol):
    """Runs the stages on one machine or on many."""

    def export_tables(self, schema: Schema, folder: Path) -> Mapping[str, Path]:
        """Write the schema's tables of a catalog as Parquet, in an order of their own.

        Args:
            schema: Names the tables.
            folder: Receives the files; created if there are any.

        Returns:
            Folders by role, such as ``events``, of the tables that were written.

        Raises:
            DataError: There is no such table, or it cannot be written as Parquet.
        """

    def partition(self, job: PrepareJob) -> PartitionedLogs:
        """Bring the rows of impressions, events and users table to the partition of their user.

        Args:
            job: The logs and the number of partitions.

        Raises:
            DataError: A value cannot be used; names file, row and column.
            StorageError: The disk is full or read-only.
        """

    def map(
        self,
        stage: str,
        function: Callable[[Argument, Path], Answer],
        arguments: Sequence[Argument],
        folder: Path,
    ) -> list[Answer]:
        """Run a function for every argument.

        Function, arguments and answers can be sent to other processes. Afterwards exactly the files
        of the attempts whose answers are returned lie in ``task_folder(folder, number)``.

        Args:
            stage: Name of the stage, for the progress.
            function: Called with an argument and a new folder for its files.
            arguments: One for each task.
            folder: Receives the folders of the tasks.

        Returns:
            The answers, in the order of the arguments.

        Raises:
            HemixError: Of the first argument whose function failed.
        """


def task_folder(folder: Path, number: int) -> Path:
    """Return the folder with the files of a task.

    Args:
        folder: The folder of the stage.
        number: Position of the task's argument.
    """
    return folder / f"{number:05d}"
