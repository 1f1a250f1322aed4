"""Raw columns: the values of an Arrow column as NumPy arrays, whatever its Arrow type.

Feature types (hemix.features) choose the form of their raw column, see :data:`RawColumn`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hemix.data.arrow import pa, pc
from hemix.data.jagged_array import JaggedArray
from hemix.errors import DataError
from hemix.splitmix import mix_bits

__all__ = [
    "MAX_NUMBER",
    "RawColumn",
    "Where",
    "as_arrow",
    "concatenate",
    "from_arrow",
    "is_list",
    "is_number",
    "numbers_of",
    "row_hashes",
    "take",
]

Array = npt.NDArray[Any]
RawColumn: TypeAlias = "Array | JaggedArray[np.uint64]"
"""One of three forms:

- numbers: float64 [rows] or [rows, k]; NaN is missing;
- keys: uint64 [rows], see keys.py; NULL_KEY is missing;
- lists of keys: uint64; a missing list is one NULL_KEY.
"""

MAX_NUMBER = 1e30
"""The largest number of a feature, so that float32 and products do not overflow. A larger number in
a log, such as DBL_MAX for "no value", counts as this number; a server refuses it.
"""

"""Constants of splitmix64"""


@dataclass(frozen=True)
class Where:
    """The source of rows, for messages."""

    source: str
    """A file, or another name of the source"""
    first_row: int = 0
    """Row of the first value; a file begins with row 0"""

    def error(self, row: int, column: str, problem: str) -> DataError:
        """Return the error for a value.

        Args:
            row: Position among the values.
            column: Name of the column.
            problem: What was expected and what was found.
        """
        return DataError(
            f"{self.source}: row {self.first_row + row}: column {column!r}: {problem}", field=column
        )


def is_number(kind: pa.DataType) -> bool:
    """Whether an Arrow type is numeric; a boolean counts as 0 or 1."""
    t = pa.types
    return bool(
        t.is_integer(kind)
        or t.is_floating(kind)
        or t.is_boolean(kind)
        or t.is_decimal(kind)
        or t.is_null(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def numbers_of(column: str, values: pa.Array, where: Where) -> Array:
    """Read numbers.

    Args:
        column: Name of the column, for messages.
        values: Values of a numeric Arrow type.
        where: File and first row, for messages.

    Returns:
        float64 [rows]; NaN for null.

    Raises:
        DataError: With the first value that is NaN or infinite.
    """
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    numbers = values.cast(pa.float64(), safe=False)
    nulls = numbers.null_count
    filled: Array = (numbers.fill_null(0.0) if nulls else numbers).to_numpy(zero_copy_only=False)
    finite = np.isfinite(filled)
    if not finite.all():
        row = int(np.argmin(finite))
        raise where.error(row, column, f"expected a finite number or null, found {filled[row]}")
    if nulls:
        filled = filled.copy()
        filled[numbers.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return filled


# -- rows of raw columns ---------------------------------------------------------------------------


def take(raw: RawColumn, rows: Array) -> RawColumn:
    """Return the rows at the given positions, in that order.

    Args:
        raw: A raw column.
        rows: int64 [n], positions.
    """
    return raw.select(rows) if isinstance(raw, JaggedArray) else raw[rows]


def concatenate(columns: list[RawColumn]) -> RawColumn:
    """Return all rows of one or more raw columns of the same form."""
    if isinstance(columns[0], JaggedArray):
        return JaggedArray.concatenate([c for c in columns if isinstance(c, JaggedArray)])
    return np.concatenate([c for c in columns if isinstance(c, np.ndarray)])


def as_arrow(raw: RawColumn) -> pa.Array:
    """Convert a raw column to an Arrow array, for a temporary file."""
    if isinstance(raw, JaggedArray):
        return pa.LargeListArray.from_arrays(pa.array(raw.offsets), pa.array(raw.values))
    if raw.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(raw.reshape(-1)), raw.shape[1])
    return pa.array(raw)


def from_arrow(values: pa.Array) -> RawColumn:
    """Convert an Arrow array of :func:`as_arrow` back to a raw column."""
    kind = values.type
    if pa.types.is_large_list(kind):
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        keys = values.flatten().to_numpy(zero_copy_only=False)
        return JaggedArray.from_lengths(keys, lengths)
    if pa.types.is_fixed_size_list(kind):
        flat: Array = values.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(values), kind.list_size)
    numbers: Array = values.to_numpy(zero_copy_only=False)
    return numbers


def row_hashes(raw: RawColumn) -> Array:
    """Hash the rows of a raw column.

    Returns:
        uint64 [rows]. Equal rows have equal hashes, different rows with a probability of 2^-64.
    """
    if isinstance(raw, JaggedArray):
        each = mix_bits(raw.values ^ mix_bits(raw.ranks.astype(np.uint64)))
        sums = np.zeros(len(each) + 1, np.uint64)
        np.cumsum(each, out=sums[1:])
        with np.errstate(over="ignore"):
            of_rows = sums[raw.offsets[1:]] - sums[raw.offsets[:-1]]
            return mix_bits(of_rows + raw.lengths.astype(np.uint64))
    if raw.ndim == 2:
        total = np.zeros(len(raw), dtype=np.uint64)
        for values in raw.T:
            total = mix_bits(total ^ row_hashes(np.ascontiguousarray(values)))
        return total
    if raw.dtype.kind == "f":
        raw = np.where(raw == 0, 0.0, raw).astype(np.float64).view(np.uint64)  # -0.0 equals 0.0
    return mix_bits(raw.astype(np.uint64))
