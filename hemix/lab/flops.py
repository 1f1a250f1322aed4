"""Counter of floating-point operations: matrix products and attention, as PyTorch counts them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["flop_counter"]


def flop_counter() -> FlopCounterMode:
    """Make a context whose ``get_total_flops()`` counts the operations inside it.

    Backward passes count too. PyTorch's own counter lacks the attention kernel of CPUs.
    """
    return FlopCounterMode(display=False, custom_mapping={_CPU_ATTENTION: _attention_flops})


_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention_flops(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *_: Any, **__: Any
) -> int:
    rows = q[0] * q[1] * q[2]
    return 2 * rows * k[2] * (q[3] + v[3])
