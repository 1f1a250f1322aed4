"""Files that the tasks of all partitions share: each process opens them once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hemix.data.encode import Encoders
from hemix.data.entities import coordinates_features
from hemix.features.statistics import Statistics
from hemix.preparation.items import ItemIndex
from hemix.preparation.job import PrepareJob

__all__ = ["load_encoders", "load_items", "load_statistics"]

Content = TypeVar("Content")


def load_encoders(job: PrepareJob) -> Encoders:
    """Read the folder ``encoders`` of the dataset."""
    folder = job.folder / "encoders"
    return _once(folder, lambda: Encoders.load(folder))


def load_items(job: PrepareJob, folder: Path) -> ItemIndex:
    """Memory-map all items.

    Args:
        job: The schema.
        folder: The folder of :meth:`hemix.preparation.items.ItemIndex.save`.
    """
    names = coordinates_features(job.schema, "item")
    return _once(folder, lambda: ItemIndex.load(folder, names))


def load_statistics(job: PrepareJob) -> Statistics:
    """Memory-map the folder ``statistics`` of the dataset."""
    folder = job.folder / "statistics"
    return _once(folder, lambda: Statistics.load(folder, job.schema.statistics))


_opened: dict[str, tuple[tuple[str, int, int], object]] = {}
"""Name of a folder -> its path with inode and time of change, and its content"""


def _once(folder: Path, load: Callable[[], Content]) -> Content:
    """Load a folder, unless the last one of its name is the same folder, unchanged."""
    status = folder.stat()
    key = (str(folder), status.st_ino, status.st_mtime_ns)
    if folder.name not in _opened or _opened[folder.name][0] != key:
        _opened[folder.name] = key, load()
    content: Content = _opened[folder.name][1]  # type: ignore[assignment]
    return content
