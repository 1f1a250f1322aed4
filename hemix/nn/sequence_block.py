"""A transformer block over the sequences of requests, which candidates read without being read.

The sequences pass through once per request. Their keys and values serve all candidates, of which
each has a few tokens of its own.

Letters: N candidates, S tokens of a candidate, D token width, H heads, d = D / H. In a group: B
requests, K candidates a request, L tokens of a sequence, q of them that issue queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.nn.sequences import read_sequences
from hemix.nn.slots import Slots

__all__ = ["KeysValues", "SequenceBlock"]


@dataclass(frozen=True, kw_only=True)
class KeysValues:
    """What the candidates of a group read in one layer."""

    keys_values_BL2D: Tensor
    """Of the sequence's tokens"""
    valid_BL: Tensor
    """bool: False for padding"""


class SequenceBlock(nn.Module):
    """Attention and a feed-forward network, pre-norm, with weights that all tokens share."""

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        """Make the maps.

        Args:
            width: D.
            heads: H, which divides the width.
            expansion: Inner width of the network over D.
            dropout: Of either branch.
        """
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.RMSNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.norm_ffn = nn.RMSNorm(width, eps=1e-6)
        self.ffn = nn.Sequential(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def keys_values(self, x_BLD: Tensor) -> Tensor:
        """[B, L, 2 D]"""
        keys_values: Tensor = self.key_value(self.norm_attention(x_BLD))
        return keys_values

    def forward(self, x_BqD: Tensor, keys_values_BL2D: Tensor, seen_BqL: Tensor) -> Tensor:
        """Return tokens after this layer, [B, q, D].

        Args:
            x_BqD: The tokens that issue queries.
            keys_values_BL2D: From :meth:`keys_values`.
            seen_BqL: bool, at least one True a row.
        """
        q_BHqd = self._by_head(self.query(self.norm_attention(x_BqD)))
        keys, values = (self._by_head(part) for part in keys_values_BL2D.chunk(2, 2))
        read_BHqd = F.scaled_dot_product_attention(
            q_BHqd, keys, values, attn_mask=seen_BqL.unsqueeze(1)
        )
        return self._transform(x_BqD, read_BHqd.transpose(1, 2).flatten(2))

    def candidates(self, x_NSD: Tensor, groups: list[KeysValues], layout: Slots) -> Tensor:
        """Return the candidates' tokens after this layer, [N, S, D].

        Each reads its request's tokens and all tokens of its own candidate.

        Args:
            x_NSD: Tokens before this layer.
            groups: What the requests' tokens give, by group.
            layout: Where the candidates lie.
        """
        N, S, D = x_NSD.shape
        normed = self.norm_attention(x_NSD)
        own_NSx = torch.cat([self.query(normed), self.key_value(normed)], 2)
        tensors = [(each.keys_values_BL2D, each.valid_BL) for each in groups]
        read_Nx = read_sequences(
            own_NSx.reshape(N, S * 3 * D), layout, tensors, self.heads * S, self._read
        )
        return self._transform(x_NSD, read_Nx.view(N, S, D))

    def _read(self, own_BKx: Tensor, keys_values_BL2D: Tensor, valid_BL: Tensor) -> Tensor:
        """[B, K, S * D]: one softmax over the request's tokens and the candidate's own."""
        B, K, x = own_BKx.shape
        L, H, D = valid_BL.shape[1], self.heads, keys_values_BL2D.shape[2] // 2
        S, d = x // (3 * D), D // self.heads
        q, k, v = (
            part.reshape(B, K, S, H, d).permute(0, 3, 1, 2, 4)
            for part in torch.split(own_BKx.view(B, K, S, 3 * D), D, 3)
        )
        keys_BHLd, values_BHLd = (self._by_head(part) for part in keys_values_BL2D.chunk(2, 2))
        q = q * d**-0.5
        to_request = (q.reshape(B, H, K * S, d) @ keys_BHLd.transpose(2, 3)).view(B, H, K, S, L)
        to_request = to_request.masked_fill(~valid_BL[:, None, None, None], -torch.inf)
        weights = torch.cat([to_request, q @ k.transpose(3, 4)], 4).softmax(4)
        of_request, of_own = torch.split(weights, [L, S], 4)
        read = (of_request.reshape(B, H, K * S, L) @ values_BHLd).view(B, H, K, S, d) + of_own @ v
        out: Tensor = read.permute(0, 2, 3, 1, 4).reshape(B, K, S * D)
        return out

    def _transform(self, x: Tensor, read: Tensor) -> Tensor:
        x = x + self.dropout(self.output(read))
        out: Tensor = x + self.dropout(self.ffn(self.norm_ffn(x)))
        return out

    def _by_head(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D] -> [B, H, L, d]"""
        B, L, D = x_BLD.shape
        return x_BLD.reshape(B, L, self.heads, D // self.heads).transpose(1, 2)
