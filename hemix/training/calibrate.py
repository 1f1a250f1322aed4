"""Platt scaling at the end of training: fit a slope and a shift of every task's logit on valid.

The scaling is folded into the model's last layer, so no other code depends on it. Train days have
another rate of positives than the days after them; valid is the newest split that is known before
serving (Platt, "Probabilistic outputs for support vector machines", 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.spec import InputSpec
from hemix.data.split import Split
from hemix.distributed import DistributedContext
from hemix.models import Predictor
from hemix.settings import ResolvedSettings
from hemix.training.validate import scored_rows

__all__ = [
    "MIN_ROWS_PER_CLASS",
    "MIN_SLOPE",
    "PlattScaling",
    "calibrate",
    "effective_weights",
    "fit_platt_scaling",
    "minimise_log_loss",
]

_PRIOR_PRECISION = 1.0
"""Precision of a normal prior around slope 1 and shift 0; a few impressions outweigh it"""

MIN_SLOPE = 0.01
"""The slope stays positive, so that the order within a task stays. Where valid has the opposite
order, the scaled logits are nearly constant."""

MIN_ROWS_PER_CLASS = 10
"""Fewest positives and negatives, by their effective number, for a fit"""


@dataclass(frozen=True, kw_only=True)
class PlattScaling:
    """``slope * logit + shift``; slope 1 and shift 0 where nothing was fitted."""

    slope: float = 1.0
    shift: float = 0.0
    left_out: str | None = None
    """Why nothing was fitted"""
    held: str | None = None
    """Why the slope is MIN_SLOPE"""

    def to_json(self) -> dict[str, Any]:
        """Return the entry of metrics.json."""
        remarks = {"left_out": self.left_out, "held": self.held}
        return {
            "slope": self.slope,
            "shift": self.shift,
            **{key: text for key, text in remarks.items() if text},
        }


def calibrate(
    model: Predictor,
    split: Split,
    settings: ResolvedSettings,
    device: torch.device,
    distributed: DistributedContext | None = None,
) -> dict[str, dict[str, Any]]:
    """Fit the scaling of every task and fold it into the model.

    A task with ``given`` is fitted where that label is 1, because its logit is conditional on it.

    Args:
        model: The model, on ``device``; changed in place.
        split: The rows to fit on.
        settings: Batch size, slots and precision.
        device: Where the model lies.
        distributed: The processes; None: this one alone.

    Returns:
        By task ``slope`` and ``shift``, with ``left_out``, the reason, where nothing was fitted,
        and ``held`` where the slope is MIN_SLOPE.
    """
    columns = [
        tuple(c.cpu().double() for c in (rows.logits_NT, rows.labels_NT, rows.weights_NT))
        for rows in scored_rows(model, split, settings, device, distributed)
    ]
    logits_NT, labels_NT, weights_NT = (torch.cat(column) for column in zip(*columns, strict=True))
    scalings = []
    for index in range(len(model.spec.tasks)):
        counted = _counted(index, labels_NT, weights_NT, model.spec)
        scalings.append(
            fit_platt_scaling(
                logits_NT[counted, index], labels_NT[counted, index], weights_NT[counted, index]
            )
        )
    slope_T, shift_T = torch.tensor(
        [[scaling.slope, scaling.shift] for scaling in scalings], dtype=torch.float64
    ).T
    model.rescale(slope_T, shift_T)
    return {
        task.name: scaling.to_json()
        for task, scaling in zip(model.spec.tasks, scalings, strict=True)
    }


def _counted(index: int, labels_NT: Tensor, weights_NT: Tensor, spec: InputSpec) -> Tensor:
    """bool [N]: rows with a known label and a weight above 0; of a task with ``given`` those where
    that label is 1."""
    counted, given = weights_NT[:, index] > 0, spec.tasks[index].given
    if given is not None:
        counted = counted & (labels_NT[:, given] > 0) & (weights_NT[:, given] > 0)
    return counted


def fit_platt_scaling(logits: Tensor, labels: Tensor, weights: Tensor) -> PlattScaling:
    """Fit slope and shift to the rows of one task.

    Args:
        logits: float64 [rows].
        labels: 0 or 1, float64 [rows].
        weights: Above 0, float64 [rows]; their scale does not matter.
    """
    reason = _reason_for_no_fit(logits, labels, weights)
    if reason is not None:
        return PlattScaling(left_out=reason)
    weights = effective_weights(weights)
    constant = bool(logits.min() == logits.max())  # constant logits do not determine a slope
    slope, shift = minimise_log_loss(logits, labels, weights, slope=1.0 if constant else None)
    if not (math.isfinite(slope) and math.isfinite(shift)):
        return PlattScaling(left_out="the fit does not converge")
    if slope >= MIN_SLOPE:
        return PlattScaling(slope=slope, shift=shift)
    _, shift = minimise_log_loss(logits, labels, weights, slope=MIN_SLOPE)
    why = "valid's order is the other way round" if slope < 0 else "valid hardly follows the logits"
    return PlattScaling(slope=MIN_SLOPE, shift=shift, held=f"{why} (the best slope is {slope:.3g})")


def effective_weights(weights: Tensor) -> Tensor:
    """Scale weights so that their sum is the effective number of rows, (sum w)^2 / sum w^2.

    Equal weights of any scale become 1 each (Kish, "Survey sampling", 1965).
    """
    weights = weights / weights.max()
    return weights * (weights.sum() / weights.square().sum())


def _reason_for_no_fit(logits: Tensor, labels: Tensor, weights: Tensor) -> str | None:
    """Return why these rows cannot be fitted; None if they can."""
    if not len(labels):
        return "no valid row counts (its label is unknown, or its weight 0)"
    if not bool(torch.isfinite(logits).all()):
        return "logits of valid are not finite"
    positive = labels > 0.5
    if bool(positive.all()) or not bool(positive.any()):
        return (
            f"valid holds one class only ({int(positive.sum()):,} positives in {len(labels):,} "
            "rows)"
        )
    counts = [float(effective_weights(weights[of]).sum()) for of in (positive, ~positive)]
    if min(counts) < MIN_ROWS_PER_CLASS:
        few = "{:.3g} positives and {:.3g} negatives".format(*counts)
        return f"too few valid rows: {few}, expected {MIN_ROWS_PER_CLASS} of each"
    positives, negatives = logits[positive], logits[~positive]
    separated = (positives.min() > negatives.max()) | (positives.max() < negatives.min())
    if bool(separated):
        return "the logits part valid's positives from its negatives: no finite slope is the best"
    return None


def minimise_log_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, *, slope: float | None = None
) -> tuple[float, float]:
    """Minimise the weighted log loss of sigmoid(slope * logit + shift), with a weak prior around
    slope 1 and shift 0.

    Args:
        logits: float64 [rows].
        labels: 0 or 1, float64 [rows].
        weights: How many rows each row stands for, float64 [rows].
        slope: Fit the shift alone, with this slope.

    Returns:
        Slope and shift; (1, 0) where there is no row.
    """
    start = [1.0, 0.0] if slope is None else [slope, 0.0]
    parameters = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    prior_mean = torch.tensor([1.0, 0.0], dtype=torch.float64)
    is_free = torch.tensor([float(slope is None), 1.0], dtype=torch.float64)
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=200,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        optimizer.zero_grad()
        log_loss = F.binary_cross_entropy_with_logits(
            parameters[0] * logits + parameters[1], labels, weights, reduction="sum"
        )
        value = log_loss + _PRIOR_PRECISION / 2 * (parameters - prior_mean).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        assert parameters.grad is not None
        parameters.grad *= is_free
        return float(value.detach())

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted_slope, shift = parameters.tolist()
    return fitted_slope, shift
