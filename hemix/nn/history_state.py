"""One history of a batch's requests, laid out in groups and ready for queries.

Letters: Q requests, N candidates, D token width, H heads, p pairs that rotary times turn. In a
group of users: B users, C requests a user, L keys a user (the null event first).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hemix.nn.grouping import Group
from hemix.nn.key_value import Absorbed
from hemix.nn.slots import Slots
from hemix.nn.time_encoding import AGE_BUCKETS

__all__ = ["HIDDEN", "NO_AGE", "CandidateIndex", "DynamicQueries", "GroupKeys", "HistoryState"]

NO_AGE = AGE_BUCKETS
"""Bucket of the null event, which age does not touch."""

HIDDEN = AGE_BUCKETS + 1
"""Bucket of an event that a request does not see."""


@dataclass(frozen=True, kw_only=True)
class GroupKeys:
    """What the requests of one group attend to."""

    absorbed: Absorbed
    keys_BLhx: Tensor
    """By head [B, L, H, D / H]; absorbed, the event vectors [B, L, 1, D]"""
    values_BLky: Tensor
    """By head [B, L, H, D / H]; absorbed, the event vectors [B, L, 1, D]"""
    bucket_BCL: Tensor
    """uint8: age bucket, NO_AGE, or HIDDEN"""


class CandidateIndex(Protocol):
    """The request of every candidate, which knows how candidates are laid out for attention."""

    def lay_out(self, groups: list[Group], requests: int, device: torch.device) -> Slots:
        """Lay candidates out in the groups of their requests.

        Args:
            groups: The groups.
            requests: Q.
            device: The model's.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class HistoryState:
    """One history of a batch's requests, ready for queries."""

    device: torch.device
    groups: list[Group]
    keys: list[GroupKeys]
    """By group"""
    request_slots: Slots
    angles_Qp: Tensor | None
    """Rotary angles of the request times"""


@dataclass(frozen=True)
class DynamicQueries:
    """What reads a history for every candidate, before any projection."""

    tokens_NnD: Tensor
    candidates_ND: Tensor | None = None
    """The candidates as events; None: they do not query"""

    def __getitem__(self, rows: slice) -> DynamicQueries:
        """The queries of some candidates."""
        candidates_ND = None if self.candidates_ND is None else self.candidates_ND[rows]
        return DynamicQueries(self.tokens_NnD[rows], candidates_ND)
