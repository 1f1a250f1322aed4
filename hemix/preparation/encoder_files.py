"""The learned encoders for tasks: each process reads them once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from hemix.data.encode import Encoders

__all__ = ["load_encoders"]


def load_encoders(folder: Path) -> Encoders:
    """Read the folder ``encoders`` of a dataset, unless this process has them already."""
    status = (folder / "encoders.json").stat()
    return _load(folder, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _load(folder: Path, _inode: int, _changed_ns: int) -> Encoders:
    return Encoders.load(folder)
