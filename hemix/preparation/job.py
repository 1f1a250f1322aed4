"""PrepareJob: what every stage of a preparation needs to know, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hemix.preparation.logs import Logs
from hemix.preparation.splits import Splitter
from hemix.schema import Schema

__all__ = ["PrepareJob"]


@dataclass(frozen=True, kw_only=True)
class PrepareJob:
    """The arguments of every stage; it can be sent to other processes and machines."""

    logs: Logs
    splitter: Splitter
    folder: Path
    """The dataset folder, under a temporary name"""
    partitions: int
    """Number of partitions, see user_partitions.py"""
    memory_rows: int
    """Approximate number of log rows in memory at once"""

    @property
    def schema(self) -> Schema:
        """The schema of the logs."""
        return self.logs.schema

    @property
    def temporary(self) -> Path:
        """Folder of temporary files; removed at the end."""
        return self.folder / "temporary"
