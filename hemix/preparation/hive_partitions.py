"""Columns that stand in the names of folders, ``dt=2026-01-05/part-0.parquet``, as Hive, Spark and
others write them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, unquote_to_bytes

import pyarrow as pa

from hemix.errors import DataError

__all__ = ["Partition", "Value", "constant", "partition_of", "partition_type"]

Value = str | bytes | None
"""What a folder's name says of a column: bytes where it is no UTF-8; None is null"""
Partition = tuple[tuple[str, Value], ...]
"""Column and value of every folder on the way to a file"""

_NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"[+-]?\d+")
_INT64 = range(-(2**63), 2**63)


def partition_of(folders: Sequence[str], file: str) -> Partition:
    """The columns in the names of a file's folders, below the table's own.

    Args:
        folders: names, the outermost first.
        file: for messages.

    Raises:
        DataError: where one column stands in two folders' names.
    """
    found: dict[str, Value] = {}
    for folder in folders:
        name, equals, value = folder.partition("=")
        if not equals or not name:
            continue
        column = unquote(name)
        if column in found:
            raise DataError(f"{file}: column {column!r} stands in the names of two folders")
        found[column] = None if value in ("", _NULL) else _unquoted(value)
    return tuple(found.items())


def _unquoted(value: str) -> str | bytes:
    raw = unquote_to_bytes(os.fsencode(value))
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def partition_type(values: Iterable[Value], *, text: bool = False) -> pa.DataType:
    """The type of a column of folders' names.

    Args:
        values: all of them.
        text: whether files have text in a column of this name.

    Returns:
        int64 where all values are whole numbers, bytes where one is no UTF-8, else text; the null
        type where none is known.
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
    """A folder's value as a column.

    Args:
        value: as the folder has it; None is null.
        kind: the type that the column has in the whole table.
        rows: how many.
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
