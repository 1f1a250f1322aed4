"""DCN-V2: explicit crosses of bounded degree, then a deep network (Wang et al. 2021, arXiv
2008.13535).

The cross layer is ``x' = x0 * (W x + b) + x``, where ``*`` is by element; l layers hold every cross
up to degree l + 1. W is a product of two thin matrices, ``U V'`` (equation 3), as the paper advises
for production; ``cross_rank`` 0 takes full matrices (equation 1). The deep part is stacked on the
crosses (the paper's figure 1a). The input x0 is the concatenation of all fields and numbers,
histories pooled.

Letters: N candidates, F fields, d width of a table, m numbers, x = F d + m, P pooled width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hemix.config import CountOrZero
from hemix.data.spec import InputSpec
from hemix.models.base import SizedConfig, named_sizes
from hemix.models.pooled import PooledRanker
from hemix.models.registry import register_model
from hemix.nn.deep import MLP, hidden_width

__all__ = ["DCNv2", "DCNv2Config", "cross"]


def cross(first_Nx: Tensor, x_Nx: Tensor, linear: nn.Module) -> Tensor:
    """Return the output [N, x] of one cross layer (equation 1, or 3 with a low-rank map).

    Args:
        first_Nx: The network's input x0.
        x_Nx: The layer's input.
        linear: The layer's W and b, x to x.
    """
    crossed: Tensor = first_Nx * linear(x_Nx) + x_Nx
    return crossed


class DCNv2Config(SizedConfig):
    """Settings of DCN-V2: hidden layers are 16 ``token_width`` wide."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024), layers=(2, 3, 3, 7), cross_rank=(128, 256, 512, 1024)
    )

    name: Literal["dcnv2"] = "dcnv2"
    cross_rank: CountOrZero = 128
    """Rank of the cross layers' maps, W = U V'; 0: full matrices."""


@register_model("dcnv2")
class DCNv2(PooledRanker):
    """``layers`` cross layers, then as many wide ones."""

    Config = DCNv2Config

    def __init__(self, spec: InputSpec, config: DCNv2Config) -> None:
        super().__init__(spec, config)
        width = self.fields.count * config.embedding_size + self.fields.numbers_count
        wide = hidden_width(config.token_width)
        self.crosses = nn.ModuleList(
            _cross_map(width, config.cross_rank) for _ in range(config.layers)
        )
        self.deep = MLP([width] + [wide] * config.layers, config.dropout)
        self.heads = self.make_heads(wide)

    def interact(self, fields_NFd: Tensor, numbers_Nm: Tensor) -> Tensor:
        """Cross the fields and pass the result through the deep part.

        Args:
            fields_NFd: Fields of every candidate.
            numbers_Nm: Standardised numbers of every candidate.

        Returns:
            Pooled vectors [N, P].
        """
        first_Nx = torch.cat([fields_NFd.flatten(1), numbers_Nm.to(fields_NFd.dtype)], 1)
        x_Nx = first_Nx
        for linear in self.crosses:
            x_Nx = cross(first_Nx, x_Nx, linear)
        pooled_NP: Tensor = self.deep(x_Nx)
        return pooled_NP


def _cross_map(width: int, rank: int) -> nn.Module:
    """W x + b of a cross layer: a full matrix where ``rank`` is 0, else U V' x + b."""
    if rank == 0:
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
