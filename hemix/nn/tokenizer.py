"""Tokenisation of HeMix: interact, then split.

The tokens are called NS, non-sequence: they are made of all features but the events of histories.

    NS = split(W_2 GELU(W_1 [user ; context ; item ; cross] + b_1) + b_2) into S_G + S_R tokens

W_1 is one linear map of the concatenation, computed as a sum of partial products. The user's
columns are multiplied once per user row, the context's once per request. The item's are multiplied
once per distinct item, the crosses' once per candidate. Products of fields are further columns of a
request or a candidate.

Letters: R users, Q requests, N candidates, W width of a level's vectors, U hidden units, D token
width.
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
    """NS tokens [N, S_NS, D] from the partial products of the levels."""

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
        self.first = BlockLinear({**level_widths, **crossed}, hidden, elementwise=crossed)
        self.second = nn.Linear(hidden, tokens * width)
        self.norm = make_norm(norm, width)
        self.dropout = nn.Dropout(dropout)

    def project_user(self, user_RW: Tensor) -> Tensor:
        """[R, hidden], the bias included."""
        projected = self.first.project_part("user", user_RW)
        return (
            self.first.bias.expand(user_RW.shape[0], -1)
            if projected is None
            else projected + self.first.bias
        )

    def project_request(
        self,
        user_RU: Tensor,
        user_index_Q: Tensor,
        context_QW: Tensor,
        crossed: Mapping[str, Tensor] = _NOTHING,
    ) -> Tensor:
        """Return the first layer's product of user, context and crossed columns, [Q, hidden].

        Args:
            user_RU: The product of the user's columns.
            user_index_Q: int64, the user of every request.
            context_QW: Vectors of the context.
            crossed: Further columns [Q, width] of the requests, by name.
        """
        total = user_RU.index_select(0, user_index_Q)
        return _plus(
            total, self.first.project_part("context", context_QW), *self._project_crossed(crossed)
        )

    def _project_crossed(self, crossed: Mapping[str, Tensor]) -> list[Tensor | None]:
        return [
            self.first.project_part(name, columns.to(self.first.bias.dtype))
            for name, columns in crossed.items()
        ]

    def forward(
        self,
        request_QU: Tensor,
        request_index_N: Tensor,
        item_IW: Tensor,
        item_index_N: Tensor,
        cross_NW: Tensor,
        crossed: Mapping[str, Tensor] = _NOTHING,
    ) -> Tensor:
        """Return the NS tokens of every candidate, [N, S_NS, D].

        Args:
            request_QU: From :meth:`project_request`.
            request_index_N: int64, the request of every candidate.
            item_IW: Vectors of the distinct items.
            item_index_N: int64, the item of every candidate.
            cross_NW: Vectors of the crosses.
            crossed: Further columns [N, width] of the candidates, by name.
        """
        hidden_NU = request_QU.index_select(0, request_index_N)
        if item_IW.shape[0] < item_index_N.shape[0]:
            item_projected = self.first.project_part("item", item_IW)
            item_projected = (
                None if item_projected is None else item_projected.index_select(0, item_index_N)
            )
        else:
            item_projected = self.first.project_part("item", item_IW.index_select(0, item_index_N))
        hidden_NU = _plus(
            hidden_NU,
            item_projected,
            self.first.project_part("cross", cross_NW),
            *self._project_crossed(crossed),
        )
        tokens: Tensor = self.second(self.dropout(F.gelu(hidden_NU)))
        normed: Tensor = self.norm(tokens.view(-1, self.tokens, self.width))
        return normed


def _plus(total: Tensor, *products: Tensor | None) -> Tensor:
    for projected in products:
        total = total if projected is None else total + projected
    return total
