"""Columns that lie in several shards, addressed by positions in the whole split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import offsets_of
from hemix.data.layout import Block

__all__ = ["ShardedArray", "ShardedBlock"]

Scalar = TypeVar("Scalar", bound=np.generic)
Positions = npt.NDArray[np.integer[Any]]


class ShardedArray(Generic[Scalar]):
    """One array of all shards of a split."""

    def __init__(self, arrays: Sequence[npt.NDArray[Scalar]]) -> None:
        self._arrays = arrays
        self._first = offsets_of([len(array) for array in arrays])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, rows: Positions) -> npt.NDArray[Scalar]:
        if len(self._arrays) == 1:
            return self._arrays[0].take(rows, axis=0)
        shard = np.searchsorted(self._first, rows, side="right") - 1
        out = np.empty((len(rows), *self._arrays[0].shape[1:]), dtype=self._arrays[0].dtype)
        for s in np.unique(shard):
            in_shard = shard == s
            out[in_shard] = self._arrays[s][rows[in_shard] - self._first[s]]
        return out

    def read(self) -> npt.NDArray[Scalar]:
        """The whole column in memory."""
        return np.concatenate(self._arrays)


class ShardedBlock:
    """One level's features of all shards of a split."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._first = offsets_of([block.rows for block in blocks])

    def select(self, rows: Positions) -> Block:
        """Return the given rows, in that order."""
        if len(self._blocks) == 1 or not len(rows):
            return self._blocks[0].select(rows)
        shard = np.searchsorted(self._first, rows, side="right") - 1
        order = np.argsort(shard, kind="stable")
        boundaries = np.flatnonzero(np.diff(shard[order])) + 1
        by_shard = [
            self._blocks[s].select(rows[positions] - self._first[s])
            for s, positions in zip(np.unique(shard), np.split(order, boundaries), strict=True)
        ]
        original_order = np.empty_like(order)
        original_order[order] = np.arange(len(order))
        return Block.concatenate(by_shard).select(original_order)
