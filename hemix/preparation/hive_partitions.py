"""Hive partitions: columns in the names of folders, such as ``dt=2026-01-05/part-0.parquet``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, unquote_to_bytes

import pyarrow as pa

from hemix.errors import DataError

__all__ = ["Partition", "Value", "constant", "partition_of", "partition_type"]

Value = str | bytes | None
"""Value of a column in a folder's name: bytes if it is not UTF-8, None for null"""
Partition = tuple[tuple[str, Value], ...]
"""Column and value of every folder above a file"""

_NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"[+-]?\d+")
_INT64 = range(-(2**63), 2**63)


def partition_of(folders: Sequence[str], file: str) -> Partition:
    """Return the columns in the names of a file's folders below the table's folder.

    Args:
        folders: Names of the folders, outermost first.
        file: The file's path, for messages.

    Raises:
        DataError: Two folders name the same column.
    """
    values: dict[str, Value] = {}
    for folder in folders:
        name, equals, value = folder.partition("=")
        if not equals or not name:
            continue
        column = unquote(name)
        if column in values:
            raise DataError(
                f"{file}: column {column!r} is in the names of two folders", field=column
            )
        values[column] = None if value in ("", _NULL) else _unquoted(value)
    return tuple(values.items())


def _unquoted(value: str) -> str | bytes:
    raw = unquote_to_bytes(os.fsencode(value))
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def partition_type(values: Iterable[Value], *, text: bool = False) -> pa.DataType:
    """Return the type of a column whose values are in the names of folders.

    Args:
        values: Its values in all folders.
        text: Whether files have text in a column of this name.

    Returns:
        int64 if all values are whole numbers, binary if one is not UTF-8, else string; null if all
        values are null.
    """
    known = [value for value in values if value is not None]
    if any(isinstance(value, bytes) for value in known):
        return pa.binary()
    if text or not known:
        return pa.string() if text else pa.null()
    whole = all(
        isinstance(value, str)
        and _WHOLE.fullmatch(value)
        and value.isascii()
        and int(value) in _INT64
        for value in known
    )
    return pa.int64() if whole else pa.string()


def constant(value: Value, kind: pa.DataType, rows: int) -> pa.Array:
    """Return a folder's value as a column.

    Args:
        value: The folder's value; None is null.
        kind: The column's type in the table.
        rows: Number of rows.
    """
    if value is None:
        return pa.nulls(rows, kind)
    if pa.types.is_binary(kind):
        return pa.repeat(pa.scalar(value.encode() if isinstance(value, str) else value), rows)
    if pa.types.is_string(kind):
        return pa.repeat(pa.scalar(value), rows)
    return pa.repeat(
        pa.scalar(int(value)) if pa.types.is_integer(kind) else pa.scalar(value), rows
    ).cast(kind)
