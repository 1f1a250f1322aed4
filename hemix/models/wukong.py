"""Wukong: stacked factorisation machines (Zhang et al. 2024, arXiv 2403.02545, sections 3.3 to
3.7).

A layer maps n vectors to n_F + n_L:

- factorisation machine block: ``reshape(MLP(LN(flatten(FM(X)))))`` with ``FM(X) = X (X^T Y)``, the
  pairwise dots X X^T projected to k columns by a learned Y [n, k] (section 3.6, without computing Y
  from X, which the paper offers besides);
- linear compress block: ``W_L X`` (section 3.5);
- ``LN(concat(FMB(X), LCB(X)) + X)``, where the residual X goes through a linear map of its vectors
  when n is not n_F + n_L.

The numbers become one vector by an MLP; histories are pooled fields. The final MLP is the towers
that all models share. A size scales what the paper scales: layers, n_F and n_L (half of the token
width each) and the MLP's width; k stays at the paper's 24.

Letters: N candidates, n vectors, d width of a table, m numbers, k columns of the projected dots, P
pooled width.
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

__all__ = ["FactorizationMachineBlock", "Wukong", "WukongConfig", "WukongLayer", "recombine"]

_PROJECTED = 24
"""k, at most"""


class WukongConfig(SizedConfig):
    """Settings of Wukong: n_F and n_L are half of ``token_width`` each."""

    name: Literal["wukong"] = "wukong"


def recombine(x_Nnd: Tensor, linear: nn.Linear) -> Tensor:
    """Return linear combinations of vectors, the same in every one of the d positions.

    Args:
        x_Nnd: Vectors.
        linear: The weights, n to out.

    Returns:
        [N, out, d].
    """
    combined: Tensor = linear(x_Nnd.transpose(1, 2)).transpose(1, 2)
    return combined


class FactorizationMachineBlock(nn.Module):
    """FMB: [N, n, d] -> [N, n_F, d]."""

    def __init__(self, inputs: int, outputs: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.outputs, self.width = outputs, width
        self.project = nn.Linear(inputs, min(_PROJECTED, inputs), bias=False)
        flat = inputs * self.project.out_features
        self.norm = nn.LayerNorm(flat)
        self.hidden = MLP([flat, hidden], dropout)
        self.out = nn.Linear(hidden, outputs * width)

    def dots(self, x_Nnd: Tensor) -> Tensor:
        """FM(X) = X (X^T Y), [N, n, k]"""
        return torch.bmm(x_Nnd, self.project(x_Nnd.transpose(1, 2)))

    def forward(self, x_Nnd: Tensor) -> Tensor:
        """[N, n, d] -> [N, n_F, d]"""
        flat: Tensor = self.out(self.hidden(self.norm(self.dots(x_Nnd).flatten(1))))
        return flat.view(-1, self.outputs, self.width)


class WukongLayer(nn.Module):
    """[N, n, d] -> [N, n_F + n_L, d]."""

    def __init__(self, inputs: int, config: WukongConfig) -> None:
        super().__init__()
        (dots, linear), d = self.sizes(config), config.embedding_size
        hidden = hidden_width(config.token_width) // 2
        self.dots = FactorizationMachineBlock(inputs, dots, d, hidden, config.dropout)
        self.compress = nn.Linear(inputs, linear, bias=False)
        self.residual = (
            nn.Linear(inputs, dots + linear, bias=False) if inputs != dots + linear else None
        )
        self.norm = nn.LayerNorm(d)

    @staticmethod
    def sizes(config: WukongConfig) -> tuple[int, int]:
        """(n_F, n_L)"""
        half = max(1, config.token_width // 2)
        return half, half

    def forward(self, x_Nnd: Tensor) -> Tensor:
        """[N, n, d] -> [N, n_F + n_L, d]"""
        residual_Nnd = x_Nnd if self.residual is None else recombine(x_Nnd, self.residual)
        out: Tensor = self.norm(
            torch.cat([self.dots(x_Nnd), recombine(x_Nnd, self.compress)], 1) + residual_Nnd
        )
        return out


@register_model("wukong")
class Wukong(PooledRanker):
    """``layers`` layers over the fields and one vector of the numbers."""

    Config = WukongConfig

    def __init__(self, spec: InputSpec, config: WukongConfig) -> None:
        super().__init__(spec, config)
        d, numbers = config.embedding_size, self.fields.numbers_count
        hidden = config.tower_hidden
        self.dense = MLP([numbers, hidden], config.dropout) if numbers else None
        self.dense_out = nn.Linear(hidden, d) if numbers else None
        first, later = self.fields.count + bool(numbers), sum(WukongLayer.sizes(config))
        counts = [first] + [later] * config.layers
        self.layers = nn.ModuleList(WukongLayer(count, config) for count in counts[:-1])
        self.heads = self.make_heads(counts[-1] * d)

    def interact(self, fields_NFd: Tensor, numbers_Nm: Tensor) -> Tensor:
        """Pass the fields through all layers.

        Args:
            fields_NFd: Fields of every candidate.
            numbers_Nm: Standardised numbers of every candidate.

        Returns:
            Pooled vectors [N, P].
        """
        x_Nnd = fields_NFd
        if self.dense is not None and self.dense_out is not None:
            x_Nnd = torch.cat(
                [
                    fields_NFd,
                    self.dense_out(self.dense(numbers_Nm)).unsqueeze(1).to(fields_NFd.dtype),
                ],
                1,
            )
        for layer in self.layers:
            x_Nnd = layer(x_Nnd)
        return x_Nnd.flatten(1)
