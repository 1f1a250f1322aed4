"""Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al., "Muon:
an optimizer for hidden layers in neural networks", 2024).

PyTorch's own takes 2-D parameters and works in bf16. The models here hold one matrix per token or
per mix-token in a 3-D weight, and a CPU wants fp32. Each update is scaled to the root mean square
of AdamW's update, so that one learning rate serves both. That is equation 4 of Liu et al., "Muon is
scalable for LLM training", arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from hemix.nn.layers import BlockLinear, GroupedLinear

__all__ = ["Muon", "linear_maps", "orthogonalised"]

_STEPS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ADAM_RMS = 0.2


def orthogonalised(x: Tensor) -> Tensor:
    """U V' of every matrix U S V' in ``x`` [..., rows, columns], nearly: singular values end
    between about 0.7 and 1.2.

    Five Newton-Schulz steps x <- a x + (b x x' + c (x x')^2) x with Jordan's coefficients. A zero
    matrix stays zero.
    """
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


def linear_maps(model: nn.Module) -> set[Tensor]:
    """Return the weights of a model that are linear maps with more than one row and column.

    Learned vectors, look-ups and the ``elementwise`` columns of a map are no linear maps.
    """
    weights: set[Tensor] = set()
    for module in model.modules():
        if isinstance(module, nn.Linear | GroupedLinear):
            weights.add(module.weight)
        elif isinstance(module, BlockLinear):
            weights.update(
                block for name, block in module.blocks.items() if name not in module.elementwise
            )
    return {weight for weight in weights if min(weight.shape[-2:]) > 1}


class Muon(torch.optim.Optimizer):
    """Updates matrices [..., rows, columns]: w <- w - lr * 0.2 sqrt(max(rows, columns)) *
    orthogonalised(Nesterov momentum), after decoupled weight decay as in AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(
            list(parameters), dict(lr=lr, weight_decay=weight_decay, momentum=momentum)
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                direction = orthogonalised(weight.grad.lerp(state["momentum"], group["momentum"]))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(
                    direction, alpha=-group["lr"] * _ADAM_RMS * max(weight.shape[-2:]) ** 0.5
                )
