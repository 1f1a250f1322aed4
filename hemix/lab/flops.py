"""Count floating-point operations of matrix products and attention while a model runs."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["flop_counter"]

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""PyTorch's counter has no formula for it."""


def flop_counter() -> FlopCounterMode:
    """Return a context manager that counts operations, those of backward passes included.

    After the block, ``get_total_flops()`` returns the count.
    """
    return FlopCounterMode(display=False, custom_mapping={_CPU_ATTENTION: _attention_flops})


def _attention_flops(
    query_shape: tuple[int, ...],
    key_shape: tuple[int, ...],
    value_shape: tuple[int, ...],
    *_: Any,
    **__: Any,
) -> int:
    batch, heads, queries, query_width = query_shape
    return 2 * batch * heads * queries * key_shape[2] * (query_width + value_shape[3])
