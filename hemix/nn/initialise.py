"""The one place where weights get their first values.

Linear maps: normal with variance 1 / fan of their own matrix (of a :class:`GroupedLinear`, each group's; of a :class:`BlockLinear`, the
whole concatenation's). Everything is drawn on the CPU from one generator, in the order of the modules, so that a seed means the same
weights on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hemix.config import ModelSettings
from hemix.nn.embedding import Tables
from hemix.nn.layers import BlockLinear, GroupedLinear

__all__ = ["initialise"]

_ROWS_AT_ONCE = 2**16
_ZERO = ("age_bias", "position")
"""Vectors that start as if they were not there."""


@torch.no_grad()
def initialise(model: nn.Module, settings: ModelSettings, seed: int) -> None:
    """Draw all weights of ``model`` anew from ``seed``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter: Tensor, deviation: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * deviation)

    for module in model.modules():
        if isinstance(module, Tables):
            _fill_tables(module, settings.embedding_deviation, generator)
        elif isinstance(module, GroupedLinear):
            normal(module.weight, _fan_deviation(module.weight.shape[1]))
        elif isinstance(module, BlockLinear):
            for block in module.blocks.values():
                normal(block, _fan_deviation(module.inputs))
        elif isinstance(module, nn.Linear):
            normal(module.weight, _fan_deviation(module.in_features))
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.weight.fill_(1)
        elif isinstance(module, nn.PReLU):
            module.weight.fill_(0.25)
        elif not isinstance(module, nn.ParameterDict):  # its owner, a BlockLinear, has drawn it
            for name, parameter in module.named_parameters(recurse=False):
                if name in _ZERO:
                    parameter.zero_()
                else:
                    normal(parameter, _own_deviation(name, settings))
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            bias.zero_()
        line = getattr(module, "line", None)
        if isinstance(line, Tensor):  # slopes and shifts beside boosted trees
            line.copy_(torch.tensor([[1.0], [0.0]]).expand_as(line))


def _fill_tables(tables: Tables, deviation: float, generator: torch.Generator) -> None:
    """Piece by piece, so that a process that owns some of the rows draws all and keeps its own: the same values for any number."""
    first, last = tables.owned
    for begin in range(0, tables.rows, _ROWS_AT_ONCE):
        end = min(begin + _ROWS_AT_ONCE, tables.rows)
        drawn = torch.randn(end - begin, tables.width, generator=generator, dtype=torch.float32) * deviation
        low, high = max(begin, first), min(end, last)
        if low < high:
            tables.weight[low - first : high - first] = drawn[low - begin : high - begin].to(tables.weight.dtype)


def _fan_deviation(fan: int) -> float:
    """Of a linear map; one without inputs (a schema without features of a level) has no weights to
    draw."""
    return float(max(fan, 1) ** -0.5)


def _own_deviation(name: str, settings: ModelSettings) -> float:
    """Of learned vectors: queries like the NS tokens beside them, the others like what they are added to."""
    return 1.0 if name == "fixed_queries" else settings.embedding_deviation
