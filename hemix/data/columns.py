"""Columns: the encoded features of one level, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hemix.data.devices import to_device
from hemix.data.jagged import Jagged, int64_tensor

if TYPE_CHECKING:
    from hemix.data.layout import Block

__all__ = ["Columns"]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The encoded features of one level."""

    ids: Tensor
    """int64 [rows, F]"""
    numbers: Tensor
    """float32 [rows, K]"""
    jagged: tuple[Jagged, ...] = ()
    """One per multi-valued feature."""

    @classmethod
    def from_block(cls, block: Block) -> Columns:
        """Convert arrays, without a copy where their types allow it."""
        return cls(
            ids=int64_tensor(block.ids),
            numbers=torch.from_numpy(np.ascontiguousarray(block.numbers, dtype=np.float32)),
            jagged=tuple(Jagged.from_array(array) for array in block.jagged),
        )

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.ids.shape[0])

    def select(self, rows: Tensor) -> Columns:
        """Return the given rows, int64 [n], in that order."""
        return Columns(
            ids=self.ids.index_select(0, rows),
            numbers=self.numbers.index_select(0, rows),
            jagged=tuple(jagged.select(rows) for jagged in self.jagged),
        )

    def slice(self, first: int, last: int) -> Columns:
        """Return rows [first, last), as views.

        Args:
            first: The first row.
            last: The position behind the last row.
        """
        return Columns(
            ids=self.ids[first:last],
            numbers=self.numbers[first:last],
            jagged=tuple(jagged.slice(first, last) for jagged in self.jagged),
        )

    def to(self, device: torch.device) -> Columns:
        """Return the same on another device."""
        return Columns(
            ids=to_device(self.ids, device),
            numbers=to_device(self.numbers, device),
            jagged=tuple(jagged.to(device) for jagged in self.jagged),
        )
