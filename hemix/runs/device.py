"""The device that a model computes on, by name."""

from __future__ import annotations

import torch

from hemix.errors import SettingsError

__all__ = ["choose_device"]


def choose_device(name: str, *, field: str = "device") -> torch.device:
    """Return a device that can be used.

    Args:
        name: PyTorch's name, such as ``cpu`` or ``cuda:1``.
        field: The setting that names it, for the message.

    Raises:
        SettingsError: The device cannot be used on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"{field}: {name} cannot be used here: {reason}", field=field
        ) from error
    return device
