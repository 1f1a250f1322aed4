"""The Parquet files of a log folder: tables, names, format version, reading and writing."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import DataError
from hemix.formats import FORMAT_KEY, SavedFormat

__all__ = [
    "LOG_FORMAT",
    "TABLES",
    "has_column",
    "log_files",
    "ranking_files",
    "read_columns",
    "read_table",
    "sibling_files",
    "write_table",
]

LOG_FORMAT = SavedFormat(
    version=2,
    error=DataError,
    remedy="read it with the hemix version that wrote it, or move the file away",
)
"""Format of the files of all tables; the version is in the metadata of each file's schema"""
_VERSION_KEY = f"hemix.{FORMAT_KEY}".encode()

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
            f"{log}: no rankings: expected rankings/*.parquet, as hemix serve --log writes them",
            code="missing_file",
            field=str(log),
        )
    return paths


def write_table(table: pa.Table, path: Path) -> None:
    """Write a file with its format version.

    Args:
        table: Rows of one of the log's tables.
        path: The file.
    """
    metadata = {**(table.schema.metadata or {}), _VERSION_KEY: str(LOG_FORMAT.version).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def read_table(path: Path, columns: Collection[str] | None = None) -> pa.Table:
    """Read a file.

    Args:
        path: A file of the log.
        columns: Columns to read, in this order; None: all. Repeated names count once.

    Raises:
        DataError: The file cannot be read, or has another format version.
    """
    LOG_FORMAT.check_bytes(path, (_read_schema(path).metadata or {}).get(_VERSION_KEY))
    names = None if columns is None else list(dict.fromkeys(columns))
    try:
        table = pq.read_table(path, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return table.replace_schema_metadata(None)


def read_columns(path: Path, columns: Collection[str]) -> pa.Table | None:
    """Read columns of a file; None where the file lacks some, as logs of another schema may.

    Args:
        path: A file of the log, of any format version where it lacks columns.
        columns: Columns to read, in this order; repeated names count once.

    Raises:
        DataError: The file cannot be read, or has another format version.
    """
    if not set(columns) <= set(_read_schema(path).names):
        return None
    return read_table(path, columns)


def has_column(path: Path, column: str) -> bool:
    """Return whether a file of any format version has a column.

    Args:
        path: A file of the log.
        column: Name of the column.

    Raises:
        DataError: The file cannot be read.
    """
    return column in _read_schema(path).names


def _read_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read: {error}", code="unreadable_file", field=str(path))
