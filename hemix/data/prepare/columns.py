"""The columns of a chunk with a part of their own, checked value by value: labels, weights, positions, row hashes.

Every error names the file, the row, the column, what was expected and what was found. Knows no schema object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.cells import Where, mixed, numbers_of, row_hashes
from hemix.data.keys import keys_of
from hemix.data.prepare.reading import Chunk

__all__ = ["chunk_hashes", "labels_of", "no_null", "positions_of", "weights_of"]

Array = npt.NDArray[Any]


def no_null(column: str, values: pa.Array, where: Where) -> None:
    """Refuse null."""
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        count = f" ({values.null_count} in this piece of the file)" if values.null_count > 1 else ""
        raise where.error(row, f"column {column!r}: expected a value, found null{count}; fill it, or drop such rows")


def labels_of(column: str, values: pa.Array, where: Where) -> Array:
    """int8 [rows]: 0, 1, or -1 for null."""
    if pa.types.is_floating(values.type):
        nan = pc.is_nan(values).fill_null(False).to_numpy(zero_copy_only=False)
        if nan.any():
            raise where.error(int(np.argmax(nan)), f"column {column!r}: expected a label 0 or 1 (null: unknown), found nan")
    numbers = numbers_of(column, values, where)
    known = ~np.isnan(numbers)
    wrong = known & (numbers != 0) & (numbers != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise where.error(row, f"column {column!r}: expected a label 0 or 1 (null: unknown), found {numbers[row]:g}")
    return np.where(known, numbers, -1).astype(np.int8)


def weights_of(column: str, values: pa.Array, where: Where) -> Array:
    """float32 [rows], finite and not negative."""
    no_null(column, values, where)
    numbers = numbers_of(column, values, where)
    if (numbers < 0).any():
        row = int(np.argmax(numbers < 0))
        raise where.error(row, f"column {column!r}: expected a weight of at least 0, found {numbers[row]:g}")
    return numbers.astype(np.float32)


def positions_of(column: str, values: pa.Array, where: Where, *, serve_as: int, most: int) -> Array:
    """int32 [rows]: the row of the bias table; null counts as ``serve_as``, larger values as ``most``."""
    numbers = numbers_of(column, values, where)
    wrong = (numbers < 0) | (numbers != np.floor(numbers)) & ~np.isnan(numbers)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise where.error(row, f"column {column!r}: expected a whole number of at least 0, found {numbers[row]:g}")
    return np.minimum(np.where(np.isnan(numbers), serve_as, numbers), most).astype(np.int32)


def chunk_hashes(chunk: Chunk) -> Array:
    """uint64 [rows]: rows that are equal in every column have equal hashes (others differ but for a chance of 2^-64)."""
    total = np.zeros(chunk.rows, dtype=np.uint64)
    for values in chunk.columns.values():
        total = mixed(total ^ _value_hashes(values))
    return total


def _value_hashes(values: pa.Array) -> Array:
    kind, t = values.type, pa.types
    if t.is_integer(kind) or t.is_boolean(kind):
        whole = values.cast(pa.int8() if t.is_boolean(kind) else kind)
        hashes = mixed((whole.fill_null(0) if whole.null_count else whole).to_numpy(zero_copy_only=False).astype(np.uint64))
    elif t.is_floating(kind):
        hashes = row_hashes((values.fill_null(0.0) if values.null_count else values).to_numpy(zero_copy_only=False))
    elif t.is_string(kind) or t.is_binary(kind) or t.is_temporal(kind) or t.is_decimal(kind) or t.is_null(kind):
        return mixed(keys_of(values.cast(pa.string()) if t.is_temporal(kind) or t.is_decimal(kind) else values))
    elif t.is_list(kind) or t.is_fixed_size_list(kind):
        lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        hashes = row_hashes((_value_hashes(values.flatten()), offsets))
    else:
        return mixed(keys_of(pa.array([repr(value) for value in values.to_pylist()], pa.string())))
    if values.null_count:
        hashes = np.where(values.is_null().to_numpy(zero_copy_only=False), np.uint64(0x6E756C6C), hashes)
    return hashes
