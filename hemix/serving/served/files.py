"""The Parquet files of the log: their format version and how they are read and written."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import DataError
from hemix.formats import FORMAT_KEY, SavedFormat

__all__ = ["LOG_FORMAT", "log_columns", "read_log_table", "write_log_table"]

LOG_FORMAT = SavedFormat(
    version=1, error=DataError, remedy="use that hemix for it, or move the file away"
)
"""Of the files of all tables; in the metadata of each file's schema"""
_KEY = f"hemix.{FORMAT_KEY}".encode()


def write_log_table(table: pa.Table, path: Path) -> None:
    """Write a file of the log with its version.

    Args:
        table: Rows of one of the log's tables.
        path: The file.
    """
    metadata = {**(table.schema.metadata or {}), _KEY: str(LOG_FORMAT.version).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def log_columns(path: Path) -> set[str]:
    """Return the columns of a file, of whatever version. Raises DataError for a damaged file."""
    return set(_schema(path).names)


def read_log_table(path: Path, columns: Collection[str] | None = None) -> pa.Table:
    """Read a file of the log.

    Args:
        path: The file.
        columns: Which columns, in this order; None: all.

    Raises:
        DataError: For a file that is damaged or of another version.
    """
    LOG_FORMAT.check_bytes(path, (_schema(path).metadata or {}).get(_KEY))
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return table.replace_schema_metadata(None)


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read: {' '.join(str(error).split())}")
