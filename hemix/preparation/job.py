"""PrepareJob: the arguments that all stages of the pipeline need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hemix.preparation.logs import Logs
from hemix.preparation.partition_files import PartitionFiles, Rows
from hemix.preparation.splits import Splitter
from hemix.preparation.vocabulary_extension import PreviousEncoders
from hemix.schema import Schema

__all__ = ["PrepareJob", "Progress"]

Progress: TypeAlias = Callable[[str, float], None]
"""Called with the name of the stage and its completed fraction, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class PrepareJob:
    """The arguments of every stage of the pipeline."""

    logs: Logs
    splitter: Splitter
    folder: Path
    """The dataset folder, under a temporary name"""
    memory_rows: int
    """Approximate number of log rows in memory at once"""
    progress: Progress
    previous: PreviousEncoders | None
    """The encoders whose vocabularies are extended"""

    @property
    def schema(self) -> Schema:
        """The schema of the logs."""
        return self.logs.schema

    @property
    def temporary(self) -> Path:
        """Folder of temporary files; removed at the end."""
        return self.folder / "temporary"

    def partitions(self, files: PartitionFiles, stage: str) -> Iterator[tuple[int, Rows]]:
        """Read the partitions that have rows, in order, and report progress.

        Args:
            files: One temporary file per partition. Reading deletes it.
            stage: Name of the stage for the progress.

        Yields:
            The number of a partition, and its rows.
        """
        for number in range(len(files)):
            rows = files.read(number)
            if rows is not None:
                yield number, rows
            self.progress(stage, (number + 1) / len(files))
