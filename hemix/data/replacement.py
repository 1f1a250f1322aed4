"""Random replacement of what is known by the unknown, so that training reaches its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import JaggedArray
from hemix.data.layout import Block
from hemix.data.masking import NO_MASKING, Masking, Masks
from hemix.data.spec import MISSING, UNKNOWN, InputSpec, LevelSpec

__all__ = ["Replacement"]

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """What is replaced in a batch."""

    rate: float = 0.0
    """The probability of each known id"""
    masking: Masking = NO_MASKING
    """Whole users, histories and items"""
    seed: tuple[int, ...]

    def of_batch(self, *numbers: int) -> Replacement:
        """Return the replacement of one batch, with the batch's numbers behind the seed."""
        return replace(self, seed=(*self.seed, *numbers))

    def masks(self, requests: int, candidates: int) -> Masks | None:
        """Draw the masks of a batch of so many requests and candidates; None: there are none.

        Args:
            requests: Q.
            candidates: N.
        """
        return self.masking.draw(self.seed, requests, candidates)

    def apply(
        self, blocks: Mapping[str, Block], event_ids: Ids, spec: InputSpec
    ) -> tuple[dict[str, Block], Ids]:
        """Replace ids of a batch.

        Args:
            blocks: By level, in the order in which random numbers are drawn.
            event_ids: int32 [E, fields].
            spec: Which tables have a vocabulary.

        Returns:
            New blocks and event ids.
        """
        draw = np.random.default_rng(self.seed)
        replaced = {
            name: self._block(block, getattr(spec, name), spec, draw)
            for name, block in blocks.items()
        }
        return replaced, self._ids(event_ids, spec.event.tables, spec, draw)

    def _block(
        self, block: Block, level: LevelSpec, spec: InputSpec, draw: np.random.Generator
    ) -> Block:
        jagged = tuple(
            JaggedArray(
                values=self._ids(array.values[:, None], (table,), spec, draw)[:, 0],
                offsets=array.offsets,
            )
            for array, table in zip(block.jagged, level.jagged_tables, strict=True)
        )
        return replace(block, ids=self._ids(block.ids, level.tables, spec, draw), jagged=jagged)

    def _ids(
        self, ids: Ids, tables: tuple[str, ...], spec: InputSpec, draw: np.random.Generator
    ) -> Ids:
        """Ids [rows, columns]; only a vocabulary has an unknown row that data can reach."""
        hit = draw.random(ids.shape, dtype=np.float32) < self.rate
        hit &= np.array([table in spec.vocabularies for table in tables], dtype=bool)
        return np.where(hit & (ids > MISSING), np.int32(UNKNOWN), ids)
