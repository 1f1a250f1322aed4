"""Moving tensors to a device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["to_device"]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device.

    A copy to a GPU starts from pinned memory; otherwise the CPU would wait for the copy.

    Args:
        tensor: In the CPU's memory, or on ``device`` already.
        device: Where it is needed.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
