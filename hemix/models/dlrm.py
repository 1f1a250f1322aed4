"""DLRM: dot products between all pairs of fields (Naumov et al. 2019, arXiv 1906.00091, section 2.1.4).

The numbers pass a bottom MLP that ends in a vector as wide as an embedding; the dot products of all distinct pairs among it and the
fields, concatenated with it, go through the top MLP. Its last layers are the towers that all models share. Histories are pooled
multi-valued features, as in the paper.

Letters: N candidates, F fields, d width of a table, K numbers, P pooled width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hemix.config import ModelSettings
from hemix.data.spec import InputSpec
from hemix.models.pooled import PooledRanker
from hemix.nn.deep import Perceptron, hidden_width
from hemix.nn.products import pair_dots

__all__ = ["DLRM"]


class DLRM(PooledRanker):
    """Bottom MLP, pairwise dots, top MLP of ``layers`` layers."""

    def __init__(self, spec: InputSpec, settings: ModelSettings) -> None:
        super().__init__(spec, settings)
        d, dropout, wide = settings.embedding_size, settings.dropout, hidden_width(settings)
        K, vectors = self.fields.numbers_count, self.fields.count + bool(self.fields.numbers_count)
        self.bottom = Perceptron([K, settings.tower_hidden, d], dropout) if K else None
        self.alone = vectors == 1 and not K  # one field has no pair: it is read as it is
        inputs = d if self.alone else vectors * (vectors - 1) // 2 + (d if K else 0)
        self.top = Perceptron([inputs] + [wide] * settings.layers, dropout)
        self.heads = self.make_heads(wide)

    def interact(self, fields_NFd: Tensor, numbers_NK: Tensor) -> Tensor:
        """[N, P]"""
        parts = list[Tensor]()
        if self.bottom is not None:
            dense_Nd = self.bottom(numbers_NK)
            fields_NFd = torch.cat([dense_Nd.unsqueeze(1), fields_NFd.to(dense_Nd.dtype)], 1)
            parts.append(dense_Nd)
        if self.alone:
            parts.append(fields_NFd.flatten(1))
        pooled_NP: Tensor = self.top(torch.cat([*parts, pair_dots(fields_NFd)], 1))
        return pooled_NP
