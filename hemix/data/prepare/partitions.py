"""Columns that stand in the names of folders, ``dt=2026-01-05/part-0.parquet``, as Hive, Spark and others write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

import pyarrow as pa

from hemix.errors import DataError

__all__ = ["Partition", "constant", "partition_of", "partition_type"]

Partition = tuple[tuple[str, str | None], ...]
"""Column and text of every folder on the way to a file; None is null"""

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
    found: dict[str, str | None] = {}
    for folder in folders:
        name, equals, value = folder.partition("=")
        if not equals or not name:
            continue
        column = unquote(name)
        if column in found:
            raise DataError(f"{file}: column {column!r} stands in the names of two folders")
        found[column] = None if value in ("", _NULL) else unquote(value)
    return tuple(found.items())


def partition_type(values: Iterable[str | None]) -> pa.DataType:
    """int64 where all values are whole numbers, else text; the null type where none is known."""
    known = [value for value in values if value is not None]
    if not known:
        return pa.null()
    whole = all(_WHOLE.fullmatch(value) and value.isascii() and int(value) in _INT64 for value in known)
    return pa.int64() if whole else pa.string()


def constant(value: str | None, kind: pa.DataType, rows: int) -> pa.Array:
    """A folder's value as a column.

    Args:
        value: as the folder has it; None is null.
        kind: the type that the column has in the whole table.
        rows: how many.
    """
    if value is None:
        return pa.nulls(rows, kind)
    if pa.types.is_string(kind):
        return pa.repeat(pa.scalar(value), rows)
    return pa.repeat(pa.scalar(int(value)) if pa.types.is_integer(kind) else pa.scalar(value), rows).cast(kind)
