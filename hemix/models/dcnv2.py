"""DCN-V2: explicit crosses of bounded degree, then a deep network (Wang et al. 2021, arXiv
2008.13535).

The cross layer is equation 1, with a full matrix: ``x' = x0 * (W x + b) + x``, where ``*`` is by
element. With l layers the network holds every cross up to degree l + 1. The deep part is stacked on
the crosses (the paper's figure 1a). The input x0 is the concatenation of all fields and numbers,
histories pooled.

Letters: N candidates, F fields, d width of a table, m numbers, x = F d + m, P pooled width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hemix.data.spec import InputSpec
from hemix.models.base import SizedConfig
from hemix.models.pooled import PooledRanker
from hemix.models.registry import register_model
from hemix.nn.deep import MLP, hidden_width

__all__ = ["DCNv2", "DCNv2Config", "cross"]


def cross(first_Nx: Tensor, x_Nx: Tensor, linear: nn.Linear) -> Tensor:
    """Return the output [N, x] of one cross layer (equation 1).

    Args:
        first_Nx: The network's input x0.
        x_Nx: The layer's input.
        linear: The layer's W and b, x to x.
    """
    crossed: Tensor = first_Nx * linear(x_Nx) + x_Nx
    return crossed


class DCNv2Config(SizedConfig):
    """Settings of DCN-V2: hidden layers are 16 ``token_width`` wide."""

    name: Literal["dcnv2"] = "dcnv2"


@register_model("dcnv2")
class DCNv2(PooledRanker):
    """``layers`` cross layers, then as many wide ones."""

    Config = DCNv2Config

    def __init__(self, spec: InputSpec, config: DCNv2Config) -> None:
        super().__init__(spec, config)
        width = self.fields.count * config.embedding_size + self.fields.numbers_count
        wide = hidden_width(config.token_width)
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(config.layers))
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
            assert isinstance(linear, nn.Linear)
            x_Nx = cross(first_Nx, x_Nx, linear)
        pooled_NP: Tensor = self.deep(x_Nx)
        return pooled_NP
