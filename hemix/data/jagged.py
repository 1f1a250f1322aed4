"""Ragged rows as tensors: :class:`Jagged`, and the offsets and positions that it is made of.

:class:`hemix.data.jagged_array.JaggedArray` is the same in NumPy; this module converts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.devices import to_device
from hemix.data.jagged_array import JaggedArray

__all__ = ["Jagged", "int64_tensor", "offsets_of", "range_positions", "select_ranges"]


def int64_tensor(array: npt.NDArray[np.integer[Any]]) -> Tensor:
    """Return an int64 tensor of an integer array; it shares the memory of an int64 array."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))


def offsets_of(lengths: Tensor) -> Tensor:
    """Return int64 [rows + 1]: where each of some adjacent rows begins and, last, where all end."""
    return F.pad(lengths.cumsum(0), (1, 0))


def range_positions(begin: Tensor, lengths: Tensor, total: int | None = None) -> Tensor:
    """Return the positions ``begin[i], ..., begin[i] + lengths[i] - 1`` of all i in one tensor.

    Args:
        begin: int64 [rows].
        lengths: int64 [rows], on the same device.
        total: The sum of the lengths, where the caller knows it; else it is read from the device.

    Returns:
        int64 [total].
    """
    ends = lengths.cumsum(0)
    if total is None:
        total = int(ends[-1]) if ends.shape[0] else 0
    positions = torch.arange(total, device=lengths.device)
    shift = begin - ends + lengths
    return positions.add_(torch.repeat_interleave(shift, lengths, output_size=total))


def select_ranges(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the values of some rows lie, and the offsets of these rows alone.

    Args:
        offsets: int64 [all rows + 1].
        rows: int64 [rows], in any order.

    Returns:
        Positions int64 [total], and offsets int64 [rows + 1] of the values there.
    """
    begin = offsets[:-1].index_select(0, rows)
    lengths = offsets.diff().index_select(0, rows)
    selected = offsets_of(lengths)
    return range_positions(begin, lengths, int(selected[-1])), selected


@dataclass(frozen=True, kw_only=True)
class Jagged:
    """Lists of values: row i holds ``values[offsets[i]:offsets[i + 1]]``."""

    values: Tensor
    """int64 [total] for lists of ids; other types and shapes [total, ...] work alike"""
    offsets: Tensor
    """int64 [rows + 1], from 0 to total"""

    @classmethod
    def from_array(cls, array: JaggedArray[Any]) -> Jagged:
        """Convert an array of integers."""
        return cls(values=int64_tensor(array.values), offsets=int64_tensor(array.offsets))

    @classmethod
    def from_lengths(cls, values: Tensor, lengths: Tensor) -> Jagged:
        """Divide values into rows.

        Args:
            values: [total, ...], row by row.
            lengths: int64 [rows], with the sum ``total``.
        """
        return cls(values=values, offsets=offsets_of(lengths))

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]]) -> Jagged:
        """Make one row of each list of ids."""
        values = torch.tensor([value for row in lists for value in row], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in lists], dtype=torch.int64)
        return cls.from_lengths(values, lengths)

    @classmethod
    def from_padded(cls, padded: Tensor, lengths: Tensor) -> Jagged:
        """Return the rows without their padding: the inverse of :meth:`padded`.

        Args:
            padded: [rows, width, ...].
            lengths: int64 [rows], at most ``width`` each.
        """
        width = torch.arange(padded.shape[1], device=padded.device)
        return cls.from_lengths(padded[width < lengths.unsqueeze(1)], lengths)

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.offsets.shape[0]) - 1

    @property
    def lengths(self) -> Tensor:
        """int64 [rows]: how many values each row has."""
        return self.offsets.diff()

    def select(self, rows: Tensor) -> Jagged:
        """Return the given rows, int64 [n], in that order."""
        positions, offsets = select_ranges(self.offsets, rows)
        return Jagged(values=self.values.index_select(0, positions), offsets=offsets)

    def slice(self, first: int, last: int) -> Jagged:
        """Return rows [first, last); the values are a view.

        Args:
            first: The first row.
            last: The position behind the last row.
        """
        offsets = self.offsets[first : last + 1]
        begin, end = int(offsets[0]), int(offsets[-1])
        return Jagged(values=self.values[begin:end], offsets=offsets - begin)

    def padded(self, fill: float, width: int = 0) -> Tensor:
        """Return the rows as a rectangle, as wide as the longest row.

        Args:
            fill: Stands behind the values of a shorter row.
            width: The least width.

        Returns:
            [rows, width, ...].
        """
        lengths = self.lengths
        width = max(width, int(lengths.max()) if self.rows else 0)
        padded = self.values.new_full((self.rows, width, *self.values.shape[1:]), fill)
        columns = torch.arange(width, device=lengths.device)
        padded[columns < lengths.unsqueeze(1)] = self.values
        return padded

    def to(self, device: torch.device) -> Jagged:
        """Return the same on another device."""
        return Jagged(
            values=to_device(self.values, device), offsets=to_device(self.offsets, device)
        )
