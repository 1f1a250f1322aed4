"""The Parquet files of a log folder: their tables, their names and how they are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import DataError

__all__ = [
    "TABLES",
    "log_files",
    "ranking_files",
    "read_columns",
    "read_table",
    "sibling_files",
]

TABLES = ("rankings", "events", "features")
_FILE_NAME = re.compile(r"[0-9a-f]{12,}-[0-9a-f]+-\d{6,}\.parquet")


def log_files(folder: Path, table: str) -> list[Path]:
    """Return the files of one table of all logs in ``folder``, sorted by path.

    Args:
        folder: Folder with one log folder per model and version.
        table: One of :data:`TABLES`.
    """
    return sorted(
        path for path in folder.glob(f"*/{table}/*.parquet") if _FILE_NAME.fullmatch(path.name)
    )


def sibling_files(log: Path, table: str) -> list[Path]:
    """Return the files of one table of the other logs in the folder of ``log``.

    Args:
        log: A log folder.
        table: One of :data:`TABLES`.
    """
    own = set((log / table).glob("*.parquet"))
    return [path for path in log_files(log.parent, table) if path not in own]


def ranking_files(log: Path) -> list[Path]:
    """Return the files with the rankings of a log folder, sorted.

    Raises:
        DataError: There are none.
    """
    paths = sorted((log / "rankings").glob("*.parquet"))
    if not paths:
        raise DataError(
            f"{log}: no rankings: expected rankings/*.parquet, as hemix serve --log writes them"
        )
    return paths


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file.

    Args:
        path: A Parquet file.
        columns: Columns to read; None: all.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_columns(path: Path, columns: Collection[str]) -> pa.Table | None:
    """Read columns of a file; None where the file lacks some, as logs of another schema may.

    Args:
        path: A Parquet file.
        columns: Columns to read; repeated names count once.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        if not set(columns) <= set(pq.read_schema(path).names):
            return None
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return read_table(path, list(dict.fromkeys(columns)))


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read: {' '.join(str(error).split())}")
