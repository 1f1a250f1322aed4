"""Sets the threads and compiles the model before the first step."""

from __future__ import annotations

import os

import torch

from hemix.errors import SettingsError
from hemix.models import Ranker

__all__ = ["compile_model", "set_threads"]


def set_threads(threads: int) -> None:
    """Use so many threads; 0: OMP_NUM_THREADS where it is set, else all cores."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS", cores)))


def compile_model(model: Ranker, device: torch.device) -> None:
    """Compile the parts of a model that allow it.

    Args:
        model: The model, already on its device.
        device: Where it runs.

    Raises:
        SettingsError: If the machine lacks what torch.compile needs.
    """
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # every backend raises errors of its own
        lines = (line for line in str(error).splitlines() if line.strip())
        reason = next(lines, type(error).__name__).strip()
        message = f"train.compile: torch.compile does not work on this machine: {reason}"
        raise SettingsError(message, field="train.compile") from error
    for module in model.compilable():
        module.compile(dynamic=True)
