"""FBGEMM's fused update of the embedding tables: sum the gradients by row and apply them.

FBGEMM's CPU build has row-wise Adagrad and no Adam. FBGEMM is imported only when it is used. The
state is the same as with PyTorch, so a checkpoint fits both
(docs/project/decisions/0008-fused-tables.md).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from hemix.errors import MissingExtra, SettingsError
from hemix.nn.embedding import Gradients

__all__ = ["PACKAGE", "fits", "installed", "load", "rowwise_adagrad"]

PACKAGE = "fbgemm-gpu-cpu"
_MODULE = "fbgemm_gpu"
_KERNEL = "split_embedding_backward_codegen_rowwise_adagrad_cpu"
_MEAN = 1


def installed() -> str | None:
    """Return FBGEMM's version without importing it; None if it is not installed."""
    if importlib.util.find_spec(_MODULE) is None:
        return None
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "of another build"


def fits(optimizer: str, weight: Tensor) -> bool:
    """Return whether the kernel can do the work of a table optimiser.

    Args:
        optimizer: The value of ``train.table_optimizer``.
        weight: All tables [rows, width].
    """
    small = weight.shape[0] < 2**31
    return (
        optimizer == "rowwise_adagrad"
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and small
    )


@cache
def load() -> Callable[..., None]:
    """Import FBGEMM and return the kernel.

    Raises:
        MissingExtra: If FBGEMM is not installed.
        SettingsError: If it does not load or lacks the kernel.
    """
    installed_version = installed()
    if installed_version is None:
        raise MissingExtra(PACKAGE, "fast", "train.embedding_backend=fbgemm")
    try:
        importlib.import_module(_MODULE)
        kernel: Any = getattr(torch.ops.fbgemm, _KERNEL).default
    except (ImportError, OSError, AttributeError) as error:
        raise SettingsError(
            f"train.embedding_backend: {_MODULE} {installed_version} cannot be used with torch "
            f"{torch.__version__}: {str(error).splitlines()[0]}",
            field="train.embedding_backend",
            hint="choose torch or pip install 'hemix[fast]'",
        ) from error
    return kernel  # type: ignore[no-any-return]


@torch.no_grad()
def rowwise_adagrad(
    weight: Tensor, total: Tensor, gradients: Gradients, learning_rate: float, epsilon: float
) -> None:
    """Do one step of row-wise Adagrad, in place.

    The table is declared as used by two features, the second of which has no ids. FBGEMM then takes
    its compiled loop. The generated loop is several times slower on some processors.

    Args:
        weight: All tables [rows, width].
        total: The state of the optimiser [rows].
        gradients: The gradients of the step.
        learning_rate: Of the step.
        epsilon: Added to the root of the state.
    """
    rows, width = weight.shape
    vectors = gradients.values.shape[0]
    mean_offsets = (
        torch.zeros(1, dtype=torch.int64)
        if gradients.mean_offsets is None
        else gradients.mean_offsets
    )
    single = vectors + 1 - mean_offsets.shape[0]
    offsets = torch.cat([torch.arange(single), single + mean_offsets])
    both, on_host = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int32)
    load()(
        grad_output=gradients.values.contiguous(),
        host_weights=weight.detach().view(-1),
        weights_placements=on_host,
        weights_offsets=both,
        D_offsets=torch.tensor([0, width, 2 * width], dtype=torch.int32),
        max_D=width,
        hash_size_cumsum=torch.tensor([0, 0, rows]),
        total_hash_size_bits=rows.bit_length(),
        indices=gradients.ids,
        offsets=torch.cat([offsets, offsets[-1:].expand(vectors)]),
        pooling_mode=_MEAN,
        indice_weights=None,
        stochastic_rounding=False,
        momentum1_host=total,
        momentum1_placements=on_host,
        momentum1_offsets=both,
        learning_rate_tensor=torch.tensor(learning_rate, dtype=torch.float32),
        eps=epsilon,
    )
