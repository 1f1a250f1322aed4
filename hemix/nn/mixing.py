"""Other ways for tokens to interact than HeteroMixer's: RankMixer's permutation and self-attention.

Tokens are held token first, x_SND, as in `hemix.nn.mixer`, whose block these fit into.

Letters: S tokens, N candidates, D token width, H heads.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SelfAttention", "TokenMixing"]


class TokenMixing(nn.Module):
    """RankMixer's multi-head token mixing (Zhu et al. 2025, arXiv 2507.15551, equations 3 to 5),
    without weights.

    Every token is cut into as many heads as there are tokens, D / S wide; the new token h is head h
    of all tokens. Where S does not divide D, heads have the width D / S rounded down or up. They
    are distributed so that every new token is D wide, as close to the paper's permutation as the
    sizes allow.
    """

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]"""
        S, N, D = x_SND.shape
        if D % S == 0:
            return x_SND.reshape(S, N, S, D // S).permute(2, 1, 0, 3).reshape(S, N, D)
        order = torch.tensor(_nearly_equal_heads(S, D), device=x_SND.device)
        mixed: Tensor = x_SND.transpose(1, 2).reshape(S * D, N).index_select(0, order)
        return mixed.view(S, D, N).transpose(1, 2)


@lru_cache(maxsize=8)
def _nearly_equal_heads(tokens: int, width: int) -> list[int]:
    """Return the old position of each of the tokens' S * D positions after mixing.

    Head h of token t has one more position where (t + h) mod S is less than the remainder of D by
    S. So every old and every new token has D positions.
    """
    heads: list[list[int]] = [[] for _ in range(tokens)]
    position = 0
    for token in range(tokens):
        for head, positions in enumerate(heads):
            size = width // tokens + ((token + head) % tokens < width % tokens)
            positions += range(position, position + size)
            position += size
    return [position for positions in heads for position in positions]


class SelfAttention(nn.Module):
    """Multi-head self-attention over the tokens of a candidate, with projections that all tokens
    share (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]"""
        S, N, D = x_SND.shape
        by_head = (
            self.query_key_value(x_SND)
            .reshape(S, N, 3, self.heads, D // self.heads)
            .permute(2, 1, 3, 0, 4)
        )
        read_NHSd = F.scaled_dot_product_attention(*by_head.unbind(0))
        out: Tensor = self.output(read_NHSd.permute(2, 0, 1, 3).reshape(S, N, D))
        return out
