"""Raw columns to cells: the first half of encoding, the same for a big log and for one request.

A cell is what is left of a raw value once its type no longer matters and nothing has been learned yet:

    categorical          uint64 [rows]            key (see keys.py), NULL_KEY where missing
    categorical, multi   uint64 [total], int64 [rows + 1]   keys and offsets; a missing list is one NULL_KEY
    numeric              float64 [rows]           NaN where missing
    vector               float32 [rows, size]     zeros where missing
    coordinates          float64 [rows, 2]        latitude, longitude in degrees; NaN where missing

Null is missing; NaN and infinity are errors. Distances and clock parts have no cell: they are computed. Cells are numbers only,
so that they can be spilled to disk and counted cheaply. This module knows no vocabulary and no file format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.keys import NULL_KEY, is_keyable, keys_of
from hemix.data.layout import ranges
from hemix.errors import DataError
from hemix.schema import Categorical, Coordinates, Feature, Numeric, Vector

__all__ = [
    "MOST_NUMBER",
    "Cell",
    "Where",
    "as_arrow",
    "columns_of",
    "concatenate",
    "from_arrow",
    "is_number",
    "mixed",
    "numbers_of",
    "read_cell",
    "row_hashes",
    "take",
    "wrong_type",
]

Array = npt.NDArray[Any]
Cell: TypeAlias = "Array | tuple[Array, Array]"

MOST_NUMBER = 1e30
"""The largest number of a feature: far beyond anything that is one, and not yet near where float32 or a product of several ends. Larger
ones of a log, such as DBL_MAX for "no value", count as this one; a server refuses them."""

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


def columns_of(name: str, feature: Feature) -> tuple[str, ...]:
    """The raw columns that a feature reads."""
    return feature.columns(name)


def wrong_type(feature: Feature, kind: pa.DataType) -> str | None:
    """What was expected where a column of this type cannot be the feature's, else None."""
    if pa.types.is_null(kind):
        return None
    match feature:
        case Categorical(multi=True):
            return None if _is_list(kind) and is_keyable(kind.value_type) else "a list of strings or whole numbers"
        case Categorical():
            return None if is_keyable(kind) else "a string, a whole number, a boolean or a date"
        case Numeric() | Coordinates():
            return None if is_number(kind) else "a number"
        case Vector():
            return None if _is_list(kind) and is_number(kind.value_type) else f"a list of {feature.size} numbers"
    return None


def is_number(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a number (a boolean counts as 0 or 1)."""
    t = pa.types
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_decimal(kind) or t.is_null(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def read_cell(name: str, feature: Feature, columns: Mapping[str, pa.Array], rows: int, where: Where) -> Cell | None:
    """The cells of one feature, or None for a feature without (distance, clock part). A column that is not among ``columns``
    is missing in every row. Raises DataError naming the file, the row, the column and what was expected and found."""
    names = columns_of(name, feature)
    if not names:
        return None
    found = [columns[c] if c in columns else pa.nulls(rows) for c in names]
    for column, values in zip(names, found, strict=True):
        expected = wrong_type(feature, values.type)
        if expected is not None:
            raise DataError(f"{where.origin}: column {column!r}: expected {expected}, found {values.type}")
    match feature:
        case Categorical(multi=True):
            return _bag(names[0], found[0], feature.max_values, where)
        case Categorical():
            return _keys(names[0], found[0], where)
        case Numeric():
            return np.clip(numbers_of(names[0], found[0], where), -MOST_NUMBER, MOST_NUMBER)
        case Vector():
            return _vector(names[0], found[0], feature.size, where)
        case Coordinates():
            return _places(names, found, where)
    return None


def numbers_of(column: str, values: pa.Array, where: Where) -> Array:
    """float64 [rows], NaN for null. Raises DataError for NaN and infinity."""
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    numbers = values.cast(pa.float64(), safe=False)
    nulls = numbers.null_count
    found: Array = (numbers.fill_null(0.0) if nulls else numbers).to_numpy(zero_copy_only=False)
    finite = np.isfinite(found)
    if not finite.all():
        row = int(np.argmin(finite))
        raise where.error(row, f"column {column!r}: expected a finite number or null, found {found[row]}")
    if nulls:
        found = found.copy()
        found[numbers.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return found


def _keys(column: str, values: pa.Array, where: Where) -> Array:
    if pa.types.is_floating(values.type):
        numbers_of(column, values, where)
    return keys_of(values)


def _bag(column: str, values: pa.Array, most: int, where: Where) -> tuple[Array, Array]:
    if pa.types.is_null(values.type):
        return np.full(len(values), NULL_KEY), np.arange(len(values) + 1, dtype=np.int64)
    flat = values.flatten()  # leaves out what lies under a null list
    missing = values.is_null().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    begin = np.cumsum(lengths) - lengths
    if pa.types.is_floating(flat.type):
        finite = np.isfinite(flat.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False))
        if not finite.all():
            row = int(np.searchsorted(begin + lengths, np.argmin(finite), side="right"))
            raise where.error(row, f"column {column!r}: expected finite numbers in the list, found nan or infinity")
    keys = np.append(keys_of(flat), NULL_KEY)
    kept = np.where(missing, 1, np.minimum(lengths, most))
    return keys[ranges(np.where(missing, len(flat), begin), kept)], np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)


def _vector(column: str, values: pa.Array, size: int, where: Where) -> Array:
    vectors = np.zeros((len(values), size), dtype=np.float32)
    if pa.types.is_null(values.type):
        return vectors
    known = values.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(values).fill_null(size).to_numpy(zero_copy_only=False)
    if (lengths != size).any():
        row = int(np.argmax(lengths != size))
        raise where.error(row, f"column {column!r}: expected a list of {size} numbers, found {int(lengths[row])}")
    flat = values.flatten()
    numbers = flat.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False).reshape(-1, size)
    finite = np.isfinite(numbers).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(known)[np.argmin(finite)])
        raise where.error(row, f"column {column!r}: expected {size} finite numbers, found {values[row].as_py()}")
    vectors[known] = np.clip(numbers, -MOST_NUMBER, MOST_NUMBER)
    return vectors


def _places(columns: tuple[str, ...], values: list[pa.Array], where: Where) -> Array:
    places = np.stack([numbers_of(column, v, where) for column, v in zip(columns, values, strict=True)], axis=1)
    for i, limit in enumerate((90.0, 180.0)):
        outside = np.abs(places[:, i]) > limit
        if outside.any():
            row = int(np.argmax(outside))
            raise where.error(
                row, f"column {columns[i]!r}: expected degrees from -{limit:g} to {limit:g}, found {places[row, i]:g}"
            )
    places[np.isnan(places).any(axis=1)] = np.nan
    return places


# -- cells as rows --------------------------------------------------------------------------------------------------------


def take(cell: Cell, rows: Array) -> Cell:
    """The given rows, in that order."""
    if isinstance(cell, tuple):
        keys, offsets = cell
        begin, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
        return keys[ranges(begin, lengths)], np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return cell[rows]


def concatenate(cells: list[Cell]) -> Cell:
    """All rows of at least one cell of the same feature."""
    if isinstance(cells[0], tuple):
        pairs = [cell for cell in cells if isinstance(cell, tuple)]
        lengths = np.concatenate([np.diff(offsets) for _, offsets in pairs])
        return np.concatenate([keys for keys, _ in pairs]), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.concatenate(cells)


def as_arrow(cell: Cell) -> pa.Array:
    """One Arrow array, for a temporary file."""
    if isinstance(cell, tuple):
        return pa.LargeListArray.from_arrays(pa.array(cell[1]), pa.array(cell[0]))
    if cell.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(cell.reshape(-1)), cell.shape[1])
    return pa.array(cell)


def from_arrow(values: pa.Array) -> Cell:
    """Inverse of :func:`as_arrow`."""
    kind = values.type
    if pa.types.is_large_list(kind):
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        return values.flatten().to_numpy(zero_copy_only=False), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if pa.types.is_fixed_size_list(kind):
        flat: Array = values.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(values), kind.list_size)
    numbers: Array = values.to_numpy(zero_copy_only=False)
    return numbers


def row_hashes(cell: Cell) -> Array:
    """uint64 [rows]: equal cells have equal hashes; different ones differ but for a chance of 2^-64."""
    if isinstance(cell, tuple):
        keys, offsets = cell
        lengths = np.diff(offsets)
        place = np.arange(len(keys), dtype=np.int64) - np.repeat(offsets[:-1], lengths)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed(keys ^ mixed(place.astype(np.uint64))), dtype=np.uint64)])
        with np.errstate(over="ignore"):
            return mixed(sums[offsets[1:]] - sums[offsets[:-1]] + lengths.astype(np.uint64))
    if cell.ndim == 2:
        total = np.zeros(len(cell), dtype=np.uint64)
        for column in cell.T:
            total = mixed(total ^ row_hashes(np.ascontiguousarray(column)))
        return total
    if cell.dtype.kind == "f":
        cell = np.where(cell == 0, 0.0, cell).astype(np.float64).view(np.uint64)  # -0.0 equals 0.0
    return mixed(cell.astype(np.uint64))


def mixed(x: Array) -> Array:
    """uint64 -> uint64, one to one, every bit spread over all (splitmix64)."""
    x = x + _INCREMENT
    x ^= x >> _SHIFTS[0]
    x *= _FACTORS[0]
    x ^= x >> _SHIFTS[1]
    x *= _FACTORS[1]
    x ^= x >> _SHIFTS[2]
    return x
