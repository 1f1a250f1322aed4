"""The result: all rows in their order, or the best of every request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.batch_scoring.scored import REQUEST

__all__ = ["best_rows", "write_all", "write_best"]

Array = npt.NDArray[Any]

_SLICE_ROWS = 65_536


def write_all(parts: Sequence[Path], out: Path) -> int:
    """Write all rows in the order of the parts.

    Args:
        parts: Arrow files.
        out: The new Parquet file.

    Returns:
        The number of rows.
    """
    table = _mapped(parts)
    with pq.ParquetWriter(out, table.schema) as writer:
        for first in range(0, table.num_rows, _SLICE_ROWS):
            writer.write_table(table.slice(first, _SLICE_ROWS))
    return int(table.num_rows)


def write_best(parts: Sequence[Path], out: Path, score: str, count: int) -> int:
    """Write the best rows of every request, with the column ``rank``, which begins at 1.

    Requests are in the order of their first rows.

    Args:
        parts: Arrow files with the column :data:`REQUEST`.
        out: The new Parquet file.
        score: Name of the score's column.
        count: Maximum rows of a request.

    Returns:
        The number of rows.
    """
    table = _mapped(parts)
    rows, rank = best_rows(
        table[REQUEST].to_numpy(),
        table[score].to_numpy().astype(np.float64),
        count,
    )
    table = table.drop_columns([REQUEST])
    schema = table.schema.append(pa.field("rank", pa.int32()))
    with pq.ParquetWriter(out, schema) as writer:
        for first in range(0, len(rows), _SLICE_ROWS):
            last = first + _SLICE_ROWS
            kept = table.take(pa.array(rows[first:last]))
            writer.write_table(kept.append_column("rank", pa.array(rank[first:last], pa.int32())))
    return len(rows)


def best_rows(request: Array, score: Array, count: int) -> tuple[Array, Array]:
    """Return the best rows of every request.

    Args:
        request: [rows], the key of every row's request.
        score: float64 [rows]; rows without one (NaN) come last, equal ones in their order.
        count: Maximum rows of a request.

    Returns:
        int64 [kept], positions of rows, by the first row of their request, then by score; and int64
        [kept], their ranks, from 1.
    """
    _, first, inverse = np.unique(request, return_index=True, return_inverse=True)
    request_begin = first[inverse]
    order = np.lexsort((np.where(np.isnan(score), math.inf, -score), request_begin))
    sorted_begin = request_begin[order]
    starts = np.flatnonzero(np.diff(sorted_begin, prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order)))) + 1
    kept = rank <= count
    return order[kept], rank[kept]


def _mapped(parts: Sequence[Path]) -> pa.Table:
    """Return the rows of Arrow files, which stay on the disk; files may lack columns of others."""
    tables = [pa.ipc.open_file(pa.memory_map(str(part))).read_all() for part in parts]
    return pa.concat_tables(tables, promote_options="permissive")
