"""Keys and values of event vectors, and what queries make of event vectors themselves.

    [K ; V] = events W_kv

Neither has a bias. A key's would repeat the event vector's. A value's would pass through weights
that sum to 1 into the bias of the attention's output.

Where a user has few queries, projections move to the queries (absorbed): q . (W_k x) is
(W_k' q) . x, and the mean of W_v x is W_v times the mean of x. A key of unit length is not linear
in its event, so then values alone are absorbed.

Letters: D token width, H heads, d = D / H, A age buckets. In a group of users: B users, C requests
a user, J queries a request.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.nn.layers import unit
from hemix.nn.time_encoding import rotate

__all__ = ["Absorbed", "KeyValue", "by_head"]

Absorbed = Literal["neither", "values", "both"]
"""Which projections are moved to the queries."""


def by_head(x: Tensor, heads: int) -> Tensor:
    """[..., D] -> [..., H, d]"""
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads)


class KeyValue(nn.Linear):
    """The projection of event vectors to keys and values."""

    def __init__(self, width: int, heads: int, *, unit_keys: bool) -> None:
        """Make the projection.

        Args:
            width: D.
            heads: H.
            unit_keys: The keys of every head have length 1.
        """
        super().__init__(width, 2 * width, bias=False)
        self.heads, self.unit_keys = heads, unit_keys

    def keys(self, events: Tensor, angles: Tensor | None = None) -> Tensor:
        """Return keys [..., H, d].

        Args:
            events: [..., D].
            angles: [..., p], by which rotary times turn the pairs of every head; None: nothing is
                turned.
        """
        keys = by_head(self.project_keys(events), self.heads)
        if self.unit_keys:
            keys = unit(keys)
        return keys if angles is None else rotate(keys, angles.unsqueeze(-2))

    def project_keys(self, events: Tensor) -> Tensor:
        """[..., D] -> [..., D]: keys before they get length 1 and are turned."""
        return F.linear(events, self._weights[0]).to(self.weight.dtype)

    def values(self, events: Tensor) -> Tensor:
        """[..., D] -> [..., H, d]"""
        values = F.linear(events, self._weights[1]).to(self.weight.dtype)
        return by_head(values, self.heads)

    def absorb_keys(self, q_BHCJd: Tensor) -> Tensor:
        """[B, H, C, J, D]: queries that read event vectors in place of keys."""
        B, H, C, J, d = q_BHCJd.shape
        key_HdD = self._weights[0].view(H, d, -1)
        wide_HnD = torch.bmm(q_BHCJd.transpose(0, 1).reshape(H, B * C * J, d), key_HdD)
        return wide_HnD.view(H, B, C, J, H * d).transpose(0, 1)

    def absorb_values(self, mean_BHCJD: Tensor) -> Tensor:
        """[B, H, C, J, d]: the mean values, of mean event vectors."""
        B, H, C, J, D = mean_BHCJD.shape
        mean_HnD = mean_BHCJD.transpose(0, 1).reshape(H, B * C * J, D)
        value_HDd = self._weights[1].view(H, D // H, D).transpose(1, 2)
        return torch.bmm(mean_HnD, value_HDd).view(H, B, C, J, D // H).transpose(0, 1)

    def of_ages(self, vectors_AD: Tensor) -> tuple[Tensor, Tensor]:
        """[A + 1, H, d] twice: ages' vectors as keys and as values; zeros for what has no age."""
        key_AD, value_AD = (
            F.pad(F.linear(vectors_AD, weight), (0, 0, 0, 1)) for weight in self._weights
        )
        return by_head(key_AD, self.heads), by_head(value_AD, self.heads)

    @property
    def _weights(self) -> tuple[Tensor, Tensor]:
        """[D, D] each: of keys and of values."""
        key_DD, value_DD = self.weight.chunk(2)
        return key_DD, value_DD
