"""The requests of a batch, with their impressions, found in the open partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.data.layout import Block
from hemix.data.masking import Masks
from hemix.data.partition import Partition, PartitionSplit
from hemix.data.partitioned import Pieces
from hemix.data.replacement import Replacement
from hemix.data.user_rows import UserRows

__all__ = ["RequestedRows"]

Int64Array = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RequestedRows:
    """The requests of a batch, Q of them with N impressions, partition by partition."""

    at: Pieces
    """[Q]"""
    opened: Sequence[Partition]
    """The partition of each piece"""
    split: Sequence[PartitionSplit]
    """The same of this split"""
    time_ms: Int64Array
    """int64 [Q]"""
    rows: Pieces
    """[N]"""
    request_index: Int64Array
    """int64 [N]"""

    def blocks(
        self, user_rows: UserRows, items: Block, numbers: tuple[Numbers, Numbers]
    ) -> dict[str, Block]:
        """Read the features of all levels.

        Args:
            user_rows: The users of the requests.
            items: The items of candidates and events.
            numbers: Numbers of the histories, of the context and of the candidates.
        """
        of_context, of_cross = numbers
        context = self.at.select([split.context for split in self.split])
        cross = self.rows.select([split.cross for split in self.split])
        return {
            "user": user_rows.pieces.select([partition.users for partition in self.opened]),
            "context": context.with_numbers(of_context),
            "item": items,
            "cross": cross.with_numbers(of_cross),
        }

    def masks(self, replacement: Replacement | None) -> Masks | None:
        """Draw what is masked; None: nothing."""
        if replacement is None:
            return None
        return replacement.masks(len(self.time_ms), len(self.request_index))
