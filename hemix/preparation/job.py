"""What one preparation is asked to do, and the room that its stages share."""

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
"""Called with what is being done and how much of that is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class PrepareJob:
    """The arguments of every stage of the pipeline."""

    logs: Logs
    splitter: Splitter
    folder: Path
    """The dataset folder, under a temporary name"""
    memory_rows: int
    """About how many rows of a log are in memory at once"""
    progress: Progress
    earlier: PreviousEncoders | None
    """The dataset or run whose vocabularies are continued"""

    @property
    def schema(self) -> Schema:
        """The schema of the logs."""
        return self.logs.schema

    @property
    def temporary(self) -> Path:
        """Folder of files that are removed at the end."""
        return self.folder / "temporary"

    def partitions(self, spill: PartitionFiles, what: str) -> Iterator[tuple[int, Rows]]:
        """Read the partitions that have rows, in order, and report progress.

        Args:
            spill: Temporary files, one a partition; each is deleted as it is read.
            what: What is being done, for the progress.

        Yields:
            The number of a partition, and its rows.
        """
        for number in range(len(spill)):
            rows = spill.read(number)
            if rows is not None:
                yield number, rows
            self.progress(what, (number + 1) / len(spill))
