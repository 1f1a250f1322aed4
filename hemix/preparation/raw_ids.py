"""Raw ids of users and items in Parquet: whole numbers where all tables have them, else text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from hemix.files import storage_errors
from hemix.preparation.logs import Logs

__all__ = ["are_int64", "save_ids"]


def are_int64(logs: Logs, level: Literal["user", "item"], texts: pa.Array) -> bool:
    """Whether ids are whole numbers of 64 bits in all tables.

    Args:
        logs: The open tables.
        level: ``user`` or ``item``.
        texts: string [n], canonical texts of ids.
    """
    column = logs.schema.user if level == "user" else logs.schema.item
    own = logs.users if level == "user" else logs.items
    tables = [table for table in (logs.impressions, logs.events, own) if table is not None]
    types = [type_ for table in tables if table.rows for type_ in table.types_of(column)]
    if not all(pa.types.is_integer(type_) for type_ in types):
        return False
    try:
        texts.cast(pa.int64())
    except pa.ArrowInvalid:  # uint64 has numbers above int64
        return False
    return True


def save_ids(path: Path, texts: pa.Array, *, as_int64: bool) -> None:
    """Write ids as the column ``id``, in the order of their numbers.

    Args:
        path: The file; its folder is made.
        texts: string [n], canonical texts.
        as_int64: Write numbers.

    Raises:
        StorageError: The disk is full or read-only.
    """
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": texts.cast(pa.int64()) if as_int64 else texts}), path)
