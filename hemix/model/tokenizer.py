"""Interact, then split: all non-sequence features through one MLP, whose output is cut into the NS tokens.

The first layer is one linear map of [user ; context ; item ; cross], computed as a sum of shares: the user's columns once per user row,
the context's once per request, the item's once per distinct item, the cross features' once per candidate. Products of fields, where the
model has them, are further columns: of the request's pairs, and of the candidate's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hemix.config import ModelSettings
from hemix.data.spec import InputSpec
from hemix.model.layers import BlockLinear, make_norm
from hemix.model.ranker import level_width

__all__ = ["Tokenizer"]

_PRODUCTS = ("request_products", "candidate_products")
"""Columns of the first map that are products of fields"""


class Tokenizer(nn.Module):
    """NS tokens [N, S_NS, D] from the shares of the levels."""

    def __init__(self, spec: InputSpec, settings: ModelSettings, request_products: int = 0, candidate_products: int = 0) -> None:
        super().__init__()
        levels = {"user": spec.user, "context": spec.context, "item": spec.item, "cross": spec.cross}
        widths = {name: level_width(level, settings.embedding_size) for name, level in levels.items()}
        widths |= dict(zip(_PRODUCTS, (request_products, candidate_products), strict=True))
        self.tokens, self.width = settings.ns_tokens, settings.token_width
        self.first = BlockLinear(widths, settings.tokenizer_hidden, loose=_PRODUCTS)
        self.second = nn.Linear(settings.tokenizer_hidden, self.tokens * self.width)
        self.norm = make_norm(settings.norm, self.width)
        self.dropout = nn.Dropout(settings.dropout)

    def user_share(self, user_RW: Tensor) -> Tensor:
        """[R, hidden], the bias included."""
        share = self.first.share("user", user_RW)
        return self.first.bias.expand(user_RW.shape[0], -1) if share is None else share + self.first.bias

    def request_share(
        self, user_share_RH: Tensor, user_index_Q: Tensor, context_QW: Tensor, products_QP: Tensor | None = None
    ) -> Tensor:
        """[Q, hidden]: user, context and the products of the request."""
        total = user_share_RH.index_select(0, user_index_Q)
        return _plus(total, self.first.share("context", context_QW), self._products(_PRODUCTS[0], products_QP))

    def _products(self, name: str, products_RP: Tensor | None) -> Tensor | None:
        return None if products_RP is None else self.first.share(name, products_RP)

    def forward(
        self,
        request_share_QH: Tensor,
        request_index_N: Tensor,
        item_IW: Tensor,
        item_index_N: Tensor,
        cross_NW: Tensor,
        products_NP: Tensor | None = None,
    ) -> Tensor:
        """[N, S_NS, D]"""
        hidden_NH = request_share_QH.index_select(0, request_index_N)
        if item_IW.shape[0] < item_index_N.shape[0]:
            item_share = self.first.share("item", item_IW)
            item_share = None if item_share is None else item_share.index_select(0, item_index_N)
        else:
            item_share = self.first.share("item", item_IW.index_select(0, item_index_N))
        products_share = self._products(_PRODUCTS[1], products_NP)
        hidden_NH = _plus(hidden_NH, item_share, self.first.share("cross", cross_NW), products_share)
        tokens: Tensor = self.second(self.dropout(F.gelu(hidden_NH)))
        normed: Tensor = self.norm(tokens.view(-1, self.tokens, self.width))
        return normed


def _plus(total: Tensor, *shares: Tensor | None) -> Tensor:
    for share in shares:
        total = total if share is None else total + share
    return total
