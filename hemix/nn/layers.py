"""Layers that several models share: a linear map per group, a linear map held in blocks, norms,
activations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.nn.init import WeightInit, fan_std

__all__ = [
    "ActivationKind",
    "BlockLinear",
    "GroupedLinear",
    "NormKind",
    "activation",
    "make_norm",
    "summed_rows",
    "unit",
]

NormKind = Literal["layer", "rms"]
ActivationKind = Literal["relu", "gelu"]

_MERGED_ROWS_MAX = 4096
_UNIT_EPSILON = 1e-6


class GroupedLinear(nn.Module):
    """``groups`` independent linear maps in one batched product: x_GNi -> y_GNo.

    The weight is [groups, in, out]; each group's matrix has the fan of its own, not of the 3-D
    tensor.
    """

    def __init__(self, groups: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(groups, outputs)) if bias else None

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw each group's matrix by its own fan."""
        init.normal(self.weight, fan_std(self.weight.shape[1]))
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x_GNi: Tensor) -> Tensor:
        """[groups, rows, in] -> [groups, rows, out]."""
        if self.bias is None:
            return torch.bmm(x_GNi, self.weight)
        return torch.baddbmm(self.bias.unsqueeze(1), x_GNi, self.weight)


class BlockLinear(nn.Module):
    """One linear map of a concatenation, held as one block of columns per part, so that each part
    is multiplied where it lives.

    ``project_part("user", x)`` is its partial product; the bias belongs to no part (add
    :attr:`bias` once).
    """

    def __init__(
        self, parts: Mapping[str, int], outputs: int, elementwise: Collection[str] = ()
    ) -> None:
        """Make the blocks.

        Args:
            parts: Width of every part.
            outputs: Width of the result.
            elementwise: Parts whose columns have no common scale. Their weights are updated one by
                one (AdamW), not as a matrix (Muon).
        """
        super().__init__()
        self.elementwise = frozenset(elementwise)
        self.blocks = nn.ParameterDict(
            {
                name: nn.Parameter(torch.empty(outputs, width))
                for name, width in parts.items()
                if width
            }
        )
        self.bias = nn.Parameter(torch.empty(outputs))

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw every block by the fan of the whole concatenation."""
        for block in self.blocks.values():
            init.normal(block, fan_std(self.inputs))
        self.bias.zero_()

    @property
    def inputs(self) -> int:
        """Width of the whole concatenation: the fan of every block."""
        return sum(block.shape[1] for block in self.blocks.values())

    def project_part(self, part: str, x_Ri: Tensor) -> Tensor | None:
        """Return the product [rows, out] of one part of the input; None for a part without columns.

        It is in the weights' precision under autocast too. Partial products are gathered, and the
        gradients of a gather add up many rows.

        Args:
            part: The part's name.
            x_Ri: Its columns.
        """
        if part not in self.blocks:
            return None
        with torch.autocast(x_Ri.device.type, enabled=False):
            return F.linear(x_Ri, self.blocks[part])


def activation(name: ActivationKind, x: Tensor) -> Tensor:
    """Apply an activation.

    Args:
        name: ``relu`` or ``gelu``.
        x: A tensor of any shape.
    """
    return F.relu(x) if name == "relu" else F.gelu(x)


def make_norm(kind: NormKind, width: int) -> nn.Module:
    """Return a norm over the last dimension.

    Args:
        kind: ``layer`` or ``rms``.
        width: Size of the last dimension.
    """
    return nn.LayerNorm(width) if kind == "layer" else nn.RMSNorm(width, eps=1e-6)


def unit(x: Tensor) -> Tensor:
    """Return vectors of length 1 along the last dimension; zeros stay zeros.

    Args:
        x: A tensor of any shape.
    """
    return x * (x.square().sum(-1, keepdim=True) + _UNIT_EPSILON).rsqrt()


def summed_rows(parts: list[tuple[Tensor, Tensor]], *, merge: bool = True) -> Tensor:
    """Return the sum [E, D] over parts of ``rows[index]``.

    Args:
        parts: Each rows [n, D] and an index int64 [E].
        merge: First merge neighbouring parts with few rows into one table of all their
            combinations, which saves a pass over E rows each.
    """
    merged = [parts[0]]
    for rows, index in parts[1:]:
        before, before_index = merged[-1]
        if merge and before.shape[0] * rows.shape[0] <= _MERGED_ROWS_MAX:
            both = (before.unsqueeze(1) + rows.unsqueeze(0)).flatten(0, 1)
            merged[-1] = (both, before_index * rows.shape[0] + index)
        else:
            merged.append((rows, index))
    total = merged[0][0].index_select(0, merged[0][1])
    for rows, index in merged[1:]:
        total = total + rows.index_select(0, index)
    return total
