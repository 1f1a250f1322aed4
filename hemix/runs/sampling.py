"""Weights that undo the sampling of negatives in a log."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.spec import InputSpec

__all__ = ["full_log_weights"]

Array = npt.NDArray[Any]


def full_log_weights(spec: InputSpec, labels: Array, weight: Array) -> Array:
    """Row weights that undo negative sampling of the first label.

    Args:
        spec: With the logit shift of the sampling.
        labels: [n, tasks] of 0 and 1; -1 or NaN for unknown.
        weight: float64 [n] of the log.

    Returns:
        float64 [n]: a sampled negative counts for those that were dropped, too.
    """
    return np.where(labels[:, 0] == 0, weight * np.exp(-spec.logit_shift[0]), weight)
