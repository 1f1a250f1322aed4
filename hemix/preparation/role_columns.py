"""Columns with a special role, checked value by value: ids, labels, weights and positions.

Every error has the file, the row, the column, what was expected and what was found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.raw_columns import MAX_NUMBER, Where, numbers_of

__all__ = [
    "check_ids",
    "check_not_null",
    "labels_of",
    "positions_of",
    "propensities_of",
    "score_numbers_of",
    "weights_of",
]

Array = npt.NDArray[Any]

_LEAST_WEIGHT = 1 / MAX_NUMBER
"""A smaller weight would become 0 as a float32"""


def check_not_null(column: str, values: pa.Array, where: Where) -> None:
    """Refuse nulls.

    Args:
        column: Its name, for messages.
        values: Its values.
        where: File and first row, for messages.

    Raises:
        DataError: With the first null.
    """
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise where.error(row, column, "expected a value, found null; fill it, or drop such rows")


def check_ids(column: str, values: pa.Array, where: Where, *, nullable: bool = False) -> None:
    """Refuse values that cannot be the id of a user, an item or a request.

    These are null, NaN, infinity and empty text; a server refuses them as well.

    Args:
        column: Its name, for messages.
        values: Its values.
        where: File and first row, for messages.
        nullable: Take null, as the item of an event without one.

    Raises:
        DataError: With the first such value.
    """
    if not nullable:
        check_not_null(column, values, where)
    if pa.types.is_floating(values.type):
        numbers_of(column, values, where)
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        empty = (
            pc.equal(pc.binary_length(values), 0).fill_null(False).to_numpy(zero_copy_only=False)
        )
        if empty.any():
            row = int(np.argmax(empty))
            raise where.error(
                row,
                column,
                "expected an id, found an empty text; fill it, or drop such rows",
            )


def labels_of(column: str, values: pa.Array, where: Where) -> Array:
    """Read labels.

    Args:
        column: Its name, for messages.
        values: Numbers 0 and 1; null for an unknown label.
        where: File and first row, for messages.

    Returns:
        int8 [rows]: 0, 1, or -1 for null.

    Raises:
        DataError: With the first other value.
    """
    if pa.types.is_floating(values.type):
        nan = pc.is_nan(values).fill_null(False).to_numpy(zero_copy_only=False)
        if nan.any():
            raise where.error(
                int(np.argmax(nan)),
                column,
                "expected a label 0 or 1 (null: unknown), found nan",
            )
    numbers = numbers_of(column, values, where)
    known = ~np.isnan(numbers)
    wrong = known & (numbers != 0) & (numbers != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise where.error(
            row,
            column,
            f"expected a label 0 or 1 (null: unknown), found {numbers[row]:g}",
        )
    return np.where(known, numbers, -1).astype(np.int8)


def weights_of(column: str, values: pa.Array, where: Where) -> Array:
    """Read weights.

    Args:
        column: Its name, for messages.
        values: Numbers from 0 to :data:`hemix.data.raw_columns.MAX_NUMBER`.
        where: File and first row, for messages.

    Returns:
        float32 [rows]. A weight above 0 stays above 0.

    Raises:
        DataError: With the first value that is null, negative, too large or too small.
    """
    check_not_null(column, values, where)
    numbers = numbers_of(column, values, where)
    if (numbers < 0).any():
        row = int(np.argmax(numbers < 0))
        raise where.error(row, column, f"expected a weight of at least 0, found {numbers[row]:g}")
    _refuse_large(column, numbers, "a weight", where)
    tiny = (numbers > 0) & (numbers < _LEAST_WEIGHT)
    if tiny.any():
        row, least = int(np.argmax(tiny)), f"{_LEAST_WEIGHT:g}"
        raise where.error(
            row,
            column,
            f"expected a weight of 0 or of at least {least}, found {numbers[row]:g}",
        )
    return numbers.astype(np.float32)


def propensities_of(column: str, values: pa.Array, where: Where, *, floor: float) -> Array:
    """Read probabilities by which weights are divided.

    Args:
        column: Its name, for messages.
        values: Numbers above 0, at most 1.
        where: File and first row, for messages.
        floor: The value of all smaller ones.

    Returns:
        float64 [rows].

    Raises:
        DataError: With the first value that is null or no such number.
    """
    check_not_null(column, values, where)
    numbers = numbers_of(column, values, where)
    wrong = (numbers <= 0) | (numbers > 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise where.error(
            row,
            column,
            f"expected a probability above 0 and at most 1, found {numbers[row]:g}; drop rows that "
            "cannot have been shown",
        )
    return np.maximum(numbers, floor)


def score_numbers_of(column: str, values: pa.Array, where: Where) -> Array:
    """Read a column of the score expression. A server has the same limit.

    Args:
        column: Its name, for messages.
        values: Numbers of at most :data:`hemix.data.raw_columns.MAX_NUMBER`.
        where: File and first row, for messages.

    Returns:
        float64 [rows]; NaN for null.

    Raises:
        DataError: With the first value that is too large.
    """
    numbers = numbers_of(column, values, where)
    _refuse_large(column, numbers, "a number", where)
    return numbers


def _refuse_large(column: str, numbers: Array, what: str, where: Where) -> None:
    large = np.abs(numbers) > MAX_NUMBER
    if large.any():
        row = int(np.argmax(large))
        raise where.error(
            row,
            column,
            f"expected {what} of at most {MAX_NUMBER:g}, found {numbers[row]:g}",
        )


def positions_of(
    column: str, values: pa.Array, where: Where, *, serve_as: int, maximum: int
) -> Array:
    """Read positions as rows of the bias table.

    Args:
        column: Its name, for messages.
        values: Whole numbers of at least 0.
        where: File and first row, for messages.
        serve_as: The position of a null.
        maximum: The position of all larger values.

    Returns:
        int32 [rows].

    Raises:
        DataError: With the first value that is negative or not whole.
    """
    numbers = numbers_of(column, values, where)
    wrong = (numbers < 0) | (numbers != np.floor(numbers)) & ~np.isnan(numbers)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise where.error(
            row, column, f"expected a whole number of at least 0, found {numbers[row]:g}"
        )
    return np.minimum(np.where(np.isnan(numbers), serve_as, numbers), maximum).astype(np.int32)
