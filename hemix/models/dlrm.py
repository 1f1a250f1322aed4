"""DLRM: dot products between all pairs of fields (Naumov et al. 2019, arXiv 1906.00091, section
2.1.4).

The numbers pass a bottom MLP that ends in a vector as wide as an embedding. The model takes the dot
products of all distinct pairs among that vector and the fields. They go, concatenated with the
vector, through the top MLP. Its last layers are the towers that all models share. Histories are
pooled multi-valued features, as in the paper.

Letters: N candidates, F fields, d width of a table, m numbers, P pooled width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hemix.data.spec import InputSpec
from hemix.models.base import SizedConfig
from hemix.models.pooled import PooledRanker
from hemix.models.registry import register_model
from hemix.nn.deep import MLP, hidden_width
from hemix.nn.products import pair_dots

__all__ = ["DLRM", "DLRMConfig"]


class DLRMConfig(SizedConfig):
    """Settings of DLRM: hidden layers are 16 ``token_width`` wide."""

    name: Literal["dlrm"] = "dlrm"


@register_model("dlrm")
class DLRM(PooledRanker):
    """Bottom MLP, pairwise dots, top MLP of ``layers`` layers."""

    Config = DLRMConfig

    def __init__(self, spec: InputSpec, config: DLRMConfig) -> None:
        super().__init__(spec, config)
        d, dropout, wide = config.embedding_size, config.dropout, hidden_width(config.token_width)
        numbers = self.fields.numbers_count
        vectors = self.fields.count + bool(numbers)
        self.bottom = MLP([numbers, config.tower_hidden, d], dropout) if numbers else None
        self.alone = vectors == 1 and not numbers  # one field has no pair: it is read as it is
        inputs = d if self.alone else vectors * (vectors - 1) // 2 + (d if numbers else 0)
        self.top = MLP([inputs] + [wide] * config.layers, dropout)
        self.heads = self.make_heads(wide)

    def interact(self, fields_NFd: Tensor, numbers_Nm: Tensor) -> Tensor:
        """Take the dot products of all pairs and pass them through the top MLP.

        Args:
            fields_NFd: Fields of every candidate.
            numbers_Nm: Standardised numbers of every candidate, for the bottom MLP.

        Returns:
            Pooled vectors [N, P].
        """
        parts = list[Tensor]()
        if self.bottom is not None:
            dense_Nd = self.bottom(numbers_Nm)
            fields_NFd = torch.cat([dense_Nd.unsqueeze(1), fields_NFd.to(dense_Nd.dtype)], 1)
            parts.append(dense_Nd)
        if self.alone:
            parts.append(fields_NFd.flatten(1))
        pooled_NP: Tensor = self.top(torch.cat([*parts, pair_dots(fields_NFd)], 1))
        return pooled_NP
