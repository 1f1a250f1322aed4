"""Rows that lie in several partitions, numbered partition by partition.

A gather divides its positions into one piece a partition, once for all arrays of a level. So it
costs one ``take`` a piece and array, and nothing more for a single partition.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import JaggedArray, offsets_of, range_positions
from hemix.data.layout import Block
from hemix.data.search import Values

__all__ = ["PartitionedArray", "PartitionedRows", "Pieces"]

Array = npt.NDArray[Any]
Int64Array = npt.NDArray[np.int64]
Positions = npt.NDArray[np.integer[Any]]
Scalar = TypeVar("Scalar", bound=np.generic)


class Pieces:
    """Some rows, partition by partition, at least one piece.

    The methods take one array, or block, for each piece: that of its partition.
    """

    def __init__(
        self,
        partitions: Sequence[int],
        bounds: Sequence[int],
        rows: Int64Array,
        order: Int64Array | None = None,
    ) -> None:
        """Divide rows.

        Args:
            partitions: Places of the partitions in the dataset's list, ascending.
            bounds: Piece k has the rows ``rows[bounds[k]:bounds[k + 1]]``.
            rows: int64 [n], within the partition.
            order: int64 [n]: the place of each row among the positions that were asked for; None:
                its own.
        """
        self.partitions, self.bounds, self.rows, self.order = partitions, bounds, rows, order
        self.each = [rows[begin:end] for begin, end in itertools.pairwise(bounds)]
        """The rows of every piece"""

    def take(self, arrays: Sequence[Array]) -> Array:
        """Return rows of an array [n, ...]."""
        if len(arrays) == 1:
            return arrays[0].take(self.rows, axis=0)  # several times as fast as array[rows]
        pieces = zip(arrays, self.each, strict=True)
        if arrays[0].ndim == 1:
            return np.concatenate([array[rows] for array, rows in pieces])  # here it is faster
        if not arrays[0].shape[1]:
            return np.zeros((len(self.rows), 0), arrays[0].dtype)
        return np.concatenate([array.take(rows, 0) for array, rows in pieces])

    def select(self, blocks: Sequence[Block]) -> Block:
        """Return rows of the features of a level."""
        if len(blocks) == 1:
            return blocks[0].select(self.rows)
        jagged = zip(*(block.jagged for block in blocks), strict=True)
        return Block(
            ids=self.take([block.ids for block in blocks]),
            numbers=self.take([block.numbers for block in blocks]),
            jagged=tuple(self._select_jagged(arrays) for arrays in jagged),
        )

    def _select_jagged(self, arrays: Sequence[JaggedArray[np.int32]]) -> JaggedArray[np.int32]:
        begin = self.take([array.offsets for array in arrays])
        lengths = self.take([array.offsets[1:] for array in arrays]) - begin
        values = self.ranges(begin, lengths).take([array.values for array in arrays])
        return JaggedArray.from_lengths(values, lengths)

    def ranges(self, begin: Int64Array, lengths: Int64Array) -> Pieces:
        """Return the rows of another level that belong to these rows.

        Args:
            begin: int64 [n], within the partition: the first of them.
            lengths: int64 [n], how many.
        """
        bounds = offsets_of(lengths).take(self.bounds)
        return Pieces(self.partitions, bounds.tolist(), range_positions(begin, lengths))

    def at(self, rows: Int64Array) -> Pieces:
        """Return other rows [n] of the same partitions, such as the user of each request."""
        return Pieces(self.partitions, self.bounds, rows)

    def values(self, arrays: Sequence[Array]) -> Values:
        """Return what reads an array at positions [n, ...] within the partitions, by row."""
        return arrays[0] if len(arrays) == 1 else _PiecewiseValues(arrays, self.bounds)


class _PiecewiseValues:
    """An array in several partitions; see :meth:`Pieces.values`."""

    def __init__(self, arrays: Sequence[Array], bounds: Sequence[int]) -> None:
        slices = itertools.starmap(slice, itertools.pairwise(bounds))
        # where a partition has no values, no range has any, and what is read does not matter
        self._pieces = [
            (array if len(array) else np.zeros(1, array.dtype), piece)
            for array, piece in zip(arrays, slices, strict=True)
        ]

    def __getitem__(self, positions: Int64Array) -> Array:
        return np.concatenate([array[positions[piece]] for array, piece in self._pieces])


class PartitionedRows:
    """The numbering of the rows of one level over all open partitions."""

    def __init__(self, counts: Positions) -> None:
        """Number the rows.

        Args:
            counts: int [partitions], rows of each partition.
        """
        self.first = offsets_of(counts)
        """int64 [partitions + 1]: the number of each partition's first row; last: how many rows"""

    def __len__(self) -> int:
        return int(self.first[-1])

    def pieces(self, numbers: Positions) -> Pieces:
        """Divide numbers of rows, int [n] in any order, by partition."""
        if not len(numbers):
            return Pieces((0,), (0, 0), np.zeros(0, dtype=np.int64))
        partition = np.searchsorted(self.first, numbers, side="right") - 1
        steps, order = np.diff(partition), None
        if (steps < 0).any():
            order = np.argsort(partition, kind="stable")
            partition, numbers = partition[order], numbers[order]
            steps = np.diff(partition)
        begin = np.concatenate([[0], np.flatnonzero(steps) + 1])
        rows = numbers - self.first[partition]
        return Pieces(partition[begin].tolist(), [*begin.tolist(), len(rows)], rows, order)

    def numbers(self, pieces: Pieces) -> Int64Array:
        """Return int64 [n], the numbers of rows of several partitions; undoes :meth:`pieces`."""
        first = self.first.take(pieces.partitions)
        numbers: Int64Array = pieces.rows + np.repeat(first, np.diff(pieces.bounds))
        return numbers


class PartitionedArray(Generic[Scalar]):
    """One array of all open partitions."""

    def __init__(self, rows: PartitionedRows, array: Callable[[int], npt.NDArray[Scalar]]) -> None:
        """Describe it; nothing is read.

        Args:
            rows: The numbering of its rows.
            array: Returns the array of a partition by its place.
        """
        self._rows, self._array = rows, array

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, numbers: Positions) -> npt.NDArray[Scalar]:
        """Return rows by their numbers, int [n] in any order."""
        pieces = self._rows.pieces(numbers)
        values = pieces.take([self._array(place) for place in pieces.partitions])
        if pieces.order is None:
            return values
        restored = np.empty_like(values)
        restored[pieces.order] = values
        return restored

    def read(self) -> npt.NDArray[Scalar]:
        """Return all rows in memory."""
        return self[np.arange(len(self))]
