"""Raw columns: what is left of Arrow columns once their types no longer matter.

    numbers    float64 [rows], or [rows, k]; NaN where missing
    keys       uint64 [rows] (see keys.py), NULL_KEY where missing
    jagged     keys uint64 [total] with offsets int64 [rows + 1]; a missing list is one NULL_KEY

A raw column holds numbers only, so it can be spilled to disk and counted cheaply. Feature types
(hemix.features) say which raw column they read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hemix.data.arrow import pa, pc
from hemix.data.layout import ranges
from hemix.errors import DataError

__all__ = [
    "MOST_NUMBER",
    "RawColumn",
    "Where",
    "as_arrow",
    "concatenate",
    "from_arrow",
    "is_list",
    "is_number",
    "mixed",
    "numbers_of",
    "row_hashes",
    "take",
]

Array = npt.NDArray[Any]
RawColumn: TypeAlias = "Array | tuple[Array, Array]"
"""Numbers or keys, or for a jagged one (keys, offsets)"""

MOST_NUMBER = 1e30
"""The largest number of a feature: far beyond any real one, and not near where float32 or a product
ends. A larger one in a log, such as DBL_MAX for "no value", counts as this one. A server refuses
it."""

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
"""Those of splitmix64"""


@dataclass(frozen=True)
class Where:
    """Where rows come from, for messages."""

    origin: str
    """A file, or what stands for it."""
    first_row: int = 0
    """Row of the first value; the first row of a file is row 0."""

    def error(self, row: int, problem: str) -> DataError:
        """The error for a position among the values."""
        return DataError(f"{self.origin}: row {self.first_row + row}: {problem}")


def is_number(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a number (a boolean counts as 0 or 1)."""
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
    """float64 [rows], NaN for null. Raises DataError for NaN and infinity."""
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    numbers = values.cast(pa.float64(), safe=False)
    nulls = numbers.null_count
    filled: Array = (numbers.fill_null(0.0) if nulls else numbers).to_numpy(zero_copy_only=False)
    finite = np.isfinite(filled)
    if not finite.all():
        row = int(np.argmin(finite))
        found = f"found {filled[row]}"
        raise where.error(row, f"column {column!r}: expected a finite number or null, {found}")
    if nulls:
        filled = filled.copy()
        filled[numbers.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return filled


# -- rows of raw columns ---------------------------------------------------------------------------


def take(raw: RawColumn, rows: Array) -> RawColumn:
    """The given rows, in that order."""
    if isinstance(raw, tuple):
        keys, offsets = raw
        begin, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
        return keys[ranges(begin, lengths)], np.concatenate([[0], np.cumsum(lengths)]).astype(
            np.int64
        )
    return raw[rows]


def concatenate(columns: list[RawColumn]) -> RawColumn:
    """All rows of at least one raw column of the same feature."""
    if isinstance(columns[0], tuple):
        pairs = [column for column in columns if isinstance(column, tuple)]
        lengths = np.concatenate([np.diff(offsets) for _, offsets in pairs])
        return np.concatenate([keys for keys, _ in pairs]), np.concatenate(
            [[0], np.cumsum(lengths)]
        ).astype(np.int64)
    return np.concatenate(columns)


def as_arrow(raw: RawColumn) -> pa.Array:
    """One Arrow array, for a temporary file."""
    if isinstance(raw, tuple):
        return pa.LargeListArray.from_arrays(pa.array(raw[1]), pa.array(raw[0]))
    if raw.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(raw.reshape(-1)), raw.shape[1])
    return pa.array(raw)


def from_arrow(values: pa.Array) -> RawColumn:
    """Inverse of :func:`as_arrow`."""
    kind = values.type
    if pa.types.is_large_list(kind):
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        return values.flatten().to_numpy(zero_copy_only=False), np.concatenate(
            [[0], np.cumsum(lengths)]
        ).astype(np.int64)
    if pa.types.is_fixed_size_list(kind):
        flat: Array = values.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(values), kind.list_size)
    numbers: Array = values.to_numpy(zero_copy_only=False)
    return numbers


def row_hashes(raw: RawColumn) -> Array:
    """uint64 [rows]: equal values have equal hashes; others differ but for a chance of 2^-64."""
    if isinstance(raw, tuple):
        keys, offsets = raw
        lengths = np.diff(offsets)
        position = np.arange(len(keys), dtype=np.int64) - np.repeat(offsets[:-1], lengths)
        each = mixed(keys ^ mixed(position.astype(np.uint64)))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(each, dtype=np.uint64)])
        with np.errstate(over="ignore"):
            return mixed(sums[offsets[1:]] - sums[offsets[:-1]] + lengths.astype(np.uint64))
    if raw.ndim == 2:
        total = np.zeros(len(raw), dtype=np.uint64)
        for values in raw.T:
            total = mixed(total ^ row_hashes(np.ascontiguousarray(values)))
        return total
    if raw.dtype.kind == "f":
        raw = np.where(raw == 0, 0.0, raw).astype(np.float64).view(np.uint64)  # -0.0 equals 0.0
    return mixed(raw.astype(np.uint64))


def mixed(x: Array) -> Array:
    """uint64 -> uint64, one to one, every bit spread over all (splitmix64)."""
    x = x + _INCREMENT
    x ^= x >> _SHIFTS[0]
    x *= _FACTORS[0]
    x ^= x >> _SHIFTS[1]
    x *= _FACTORS[1]
    x ^= x >> _SHIFTS[2]
    return x
