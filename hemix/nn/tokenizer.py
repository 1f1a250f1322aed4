"""Interact, then split: all non-sequence features through one MLP, whose output is cut into the NS tokens.

The first layer is one linear map of [user ; context ; item ; cross], computed as a sum of shares: the user's columns once per user row,
the context's once per request, the item's once per distinct item, the cross features' once per candidate. Products of fields and counts
of matches, where the model has them, are further columns: those of the request, and those of the candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hemix.nn.layers import BlockLinear, NormKind, make_norm

__all__ = ["Tokenizer"]


_NOTHING: Mapping[str, Any] = {}


class Tokenizer(nn.Module):
    """NS tokens [N, S_NS, D] from the shares of the levels."""

    def __init__(
        self,
        level_widths: Mapping[str, int],
        *,
        tokens: int,
        width: int,
        hidden: int,
        norm: NormKind = "layer",
        dropout: float = 0.0,
        crossed: Mapping[str, int] = _NOTHING,
    ) -> None:
        """Make the two layers.

        Args:
            level_widths: W of every level (:func:`~hemix.nn.inputs.level_widths`).
            tokens: How many NS tokens.
            width: D, the width of a token.
            hidden: Units of the inner layer.
            norm: What normalises the tokens.
            dropout: Of the inner layer.
            crossed: Widths of further columns by name, made of several levels: their scale is not
                that of embeddings.
        """
        super().__init__()
        self.tokens, self.width = tokens, width
        self.first = BlockLinear({**level_widths, **crossed}, hidden, loose=crossed)
        self.second = nn.Linear(hidden, tokens * width)
        self.norm = make_norm(norm, width)
        self.dropout = nn.Dropout(dropout)

    def user_share(self, user_RW: Tensor) -> Tensor:
        """[R, hidden], the bias included."""
        share = self.first.share("user", user_RW)
        return self.first.bias.expand(user_RW.shape[0], -1) if share is None else share + self.first.bias

    def request_share(
        self, user_share_RH: Tensor, user_index_Q: Tensor, context_QW: Tensor, crossed: Mapping[str, Tensor] = _NOTHING
    ) -> Tensor:
        """[Q, hidden]: user, context and the ``crossed`` columns [Q, width] of the request."""
        total = user_share_RH.index_select(0, user_index_Q)
        return _plus(total, self.first.share("context", context_QW), *self._shares(crossed))

    def _shares(self, crossed: Mapping[str, Tensor]) -> list[Tensor | None]:
        return [self.first.share(name, columns.to(self.first.bias.dtype)) for name, columns in crossed.items()]

    def forward(
        self,
        request_share_QH: Tensor,
        request_index_N: Tensor,
        item_IW: Tensor,
        item_index_N: Tensor,
        cross_NW: Tensor,
        crossed: Mapping[str, Tensor] = _NOTHING,
    ) -> Tensor:
        """[N, S_NS, D]; ``crossed``: columns [N, width] of the candidates."""
        hidden_NH = request_share_QH.index_select(0, request_index_N)
        if item_IW.shape[0] < item_index_N.shape[0]:
            item_share = self.first.share("item", item_IW)
            item_share = None if item_share is None else item_share.index_select(0, item_index_N)
        else:
            item_share = self.first.share("item", item_IW.index_select(0, item_index_N))
        hidden_NH = _plus(hidden_NH, item_share, self.first.share("cross", cross_NW), *self._shares(crossed))
        tokens: Tensor = self.second(self.dropout(F.gelu(hidden_NH)))
        normed: Tensor = self.norm(tokens.view(-1, self.tokens, self.width))
        return normed


def _plus(total: Tensor, *shares: Tensor | None) -> Tensor:
    for share in shares:
        total = total if share is None else total + share
    return total
