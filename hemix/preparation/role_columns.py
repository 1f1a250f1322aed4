"""The columns of a chunk with a part of their own, checked value by value: ids, labels, weights,
positions.

Every error names the file, the row, the column, what was expected and what was found. Knows no
schema object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.raw_columns import MOST_NUMBER, Where, numbers_of

__all__ = [
    "check_ids",
    "check_not_null",
    "labels_of",
    "positions_of",
    "score_numbers_of",
    "weights_of",
]

Array = npt.NDArray[Any]

_LEAST_WEIGHT = 1 / MOST_NUMBER
"""A smaller weight would be 0 as a float32, and its row would count as none"""


def check_not_null(column: str, values: pa.Array, where: Where) -> None:
    """Refuse null."""
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        count = f" ({values.null_count} in this piece of the file)" if values.null_count > 1 else ""
        raise where.error(
            row,
            f"column {column!r}: expected a value, found null{count}; fill it, or drop such rows",
        )


def check_ids(column: str, values: pa.Array, where: Where) -> None:
    """Refuse what is no id of a user, an item or a request: null, NaN, and the empty text, which a
    server refuses too.
    """
    check_not_null(column, values, where)
    if pa.types.is_floating(values.type):
        numbers_of(column, values, where)
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        empty = pc.equal(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
        if empty.any():
            row = int(np.argmax(empty))
            raise where.error(
                row,
                f"column {column!r}: expected an id, found an empty text; fill it, or drop such "
                "rows",
            )


def labels_of(column: str, values: pa.Array, where: Where) -> Array:
    """int8 [rows]: 0, 1, or -1 for null."""
    if pa.types.is_floating(values.type):
        nan = pc.is_nan(values).fill_null(False).to_numpy(zero_copy_only=False)
        if nan.any():
            raise where.error(
                int(np.argmax(nan)),
                f"column {column!r}: expected a label 0 or 1 (null: unknown), found nan",
            )
    numbers = numbers_of(column, values, where)
    known = ~np.isnan(numbers)
    wrong = known & (numbers != 0) & (numbers != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise where.error(
            row,
            f"column {column!r}: expected a label 0 or 1 (null: unknown), found {numbers[row]:g}",
        )
    return np.where(known, numbers, -1).astype(np.int8)


def weights_of(column: str, values: pa.Array, where: Where) -> Array:
    """float32 [rows], finite and not negative; 0 only where the column says so."""
    check_not_null(column, values, where)
    numbers = numbers_of(column, values, where)
    if (numbers < 0).any():
        row = int(np.argmax(numbers < 0))
        raise where.error(
            row, f"column {column!r}: expected a weight of at least 0, found {numbers[row]:g}"
        )
    _refuse_large(column, numbers, "a weight", where)
    tiny = (numbers > 0) & (numbers < _LEAST_WEIGHT)
    if tiny.any():
        row, least = int(np.argmax(tiny)), f"{_LEAST_WEIGHT:g}"
        raise where.error(
            row,
            f"column {column!r}: expected a weight of 0 or of at least {least}, found "
            f"{numbers[row]:g}",
        )
    return numbers.astype(np.float32)


def score_numbers_of(column: str, values: pa.Array, where: Where) -> Array:
    """float64 [rows], NaN for null: a column of the score expression, whose numbers a server takes
    up to the same size.
    """
    numbers = numbers_of(column, values, where)
    _refuse_large(column, numbers, "a number", where)
    return numbers


def _refuse_large(column: str, numbers: Array, what: str, where: Where) -> None:
    large = np.abs(numbers) > MOST_NUMBER
    if large.any():
        row = int(np.argmax(large))
        raise where.error(
            row,
            f"column {column!r}: expected {what} of at most {MOST_NUMBER:g}, "
            f"found {numbers[row]:g}",
        )


def positions_of(column: str, values: pa.Array, where: Where, *, serve_as: int, most: int) -> Array:
    """int32 [rows]: the row of the bias table; null counts as ``serve_as``, larger values as
    ``most``.
    """
    numbers = numbers_of(column, values, where)
    wrong = (numbers < 0) | (numbers != np.floor(numbers)) & ~np.isnan(numbers)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise where.error(
            row, f"column {column!r}: expected a whole number of at least 0, found {numbers[row]:g}"
        )
    return np.minimum(np.where(np.isnan(numbers), serve_as, numbers), most).astype(np.int32)
