"""Encoded users and requests: the two sides of a ranking's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from hemix.data.layout import Block
from hemix.features.match_index import MatchIndex
from hemix.serving.entity_encoder import EntityRows
from hemix.serving.types import RankRequest

__all__ = ["RequestSide", "UserSide"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class UserSide:
    """A user and their events, encoded."""

    id: str
    row: int
    """Version of the user's row; -1: the run does not know them"""
    user: EntityRows
    """[1]"""
    items: Block
    """[I]: the distinct items of the events"""
    item_index: Array
    """int64 [E] -> items"""
    time_ms: Array
    """int64 [E], ascending"""
    ids: Array
    """int32 [E, fields]: the action first"""
    item_ids: pa.Array
    """string [E]: raw"""
    actions: pa.Array
    """string [E]: raw"""
    matches: MatchIndex | None
    """Index for match counts of candidates; None where the schema has no match counts"""

    @property
    def events(self) -> int:
        """E."""
        return len(self.time_ms)

    def without_items(self) -> UserSide:
        """Return the user without the events' items, which a user state contains."""
        nothing = Block(ids=self.items.ids[:0], numbers=self.items.numbers[:0])
        return replace(self, items=nothing, item_index=self.item_index[:0].copy())


@dataclass(frozen=True, kw_only=True)
class RequestSide:
    """A request and its candidates, encoded; ``history_ranges`` point into the user's events."""

    request: RankRequest
    history_ranges: Array
    """int64 [1, 3]"""
    context: Block
    """[1]"""
    items: Block
    """[N]"""
    cross: Block
    """[N]"""
    raw: Array
    """float64 [N, columns]: the item columns of the score expression"""
    known: Array
    """bool [N]: whether the run or an event knows the item"""
