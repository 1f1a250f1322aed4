"""Ragged rows in NumPy: :class:`JaggedArray`, and the offsets and positions that it is made of.

For code that must not import torch; its tensors are :class:`hemix.data.jagged.Jagged`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["JaggedArray", "offsets_of", "range_positions"]

Scalar = TypeVar("Scalar", bound=np.generic)
Integers = npt.NDArray[np.integer[Any]]


def offsets_of(lengths: Integers | Sequence[int]) -> npt.NDArray[np.int64]:
    """Return int64 [rows + 1]: where each of some adjacent rows begins and, last, where all end."""
    lengths = np.asarray(lengths, dtype=np.int64)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def range_positions(begin: Integers, lengths: Integers) -> npt.NDArray[np.int64]:
    """Return the positions ``begin[i], ..., begin[i] + lengths[i] - 1`` of all i in one array.

    Args:
        begin: int [rows].
        lengths: int [rows].

    Returns:
        int64 [sum of lengths].
    """
    offsets = offsets_of(lengths)
    positions = np.arange(offsets[-1], dtype=np.int64)
    positions += np.repeat(begin - offsets[:-1], lengths)
    return positions


@dataclass(frozen=True, kw_only=True, eq=False)
class JaggedArray(Generic[Scalar]):
    """Lists of values: row i holds ``values[offsets[i]:offsets[i + 1]]``."""

    values: npt.NDArray[Scalar]
    """[total]"""
    offsets: npt.NDArray[np.int64]
    """int64 [rows + 1], from 0 to total"""

    @classmethod
    def from_lengths(
        cls, values: npt.NDArray[Scalar], lengths: Integers | Sequence[int]
    ) -> JaggedArray[Scalar]:
        """Divide values into rows.

        Args:
            values: [total], row by row.
            lengths: int [rows], with the sum ``total``.
        """
        return cls(values=values, offsets=offsets_of(lengths))

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[Any]], dtype: type[Scalar]) -> JaggedArray[Scalar]:
        """Make one row of each list.

        Args:
            lists: The values of every row.
            dtype: Of the values.
        """
        values = np.array([value for row in lists for value in row], dtype=dtype)
        return cls.from_lengths(values, [len(row) for row in lists])

    @classmethod
    def concatenate(cls, arrays: Sequence[JaggedArray[Scalar]]) -> JaggedArray[Scalar]:
        """Return all rows of at least one array."""
        lengths = np.concatenate([array.lengths for array in arrays])
        return cls.from_lengths(np.concatenate([array.values for array in arrays]), lengths)

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 [rows]: how many values each row has."""
        return np.diff(self.offsets)

    @property
    def row_index(self) -> npt.NDArray[np.int64]:
        """int64 [total]: the row of every value."""
        return np.repeat(np.arange(self.rows, dtype=np.int64), self.lengths)

    @property
    def ranks(self) -> npt.NDArray[np.int64]:
        """int64 [total]: the position of every value within its row."""
        return range_positions(np.zeros(self.rows, dtype=np.int64), self.lengths)

    def select(self, rows: Integers) -> JaggedArray[Scalar]:
        """Return the given rows, in that order."""
        begin, end = self.offsets[rows], self.offsets[1:][rows]
        lengths = end - begin
        return JaggedArray.from_lengths(self.values.take(range_positions(begin, lengths)), lengths)

    def slice(self, first: int, last: int) -> JaggedArray[Scalar]:
        """Return rows [first, last); the values are a view.

        Args:
            first: The first row.
            last: The position behind the last row.
        """
        offsets = self.offsets[first : last + 1]
        return JaggedArray(
            values=self.values[offsets[0] : offsets[-1]], offsets=offsets - offsets[0]
        )
