"""The last step of training: a line through every task's logits, fitted on valid (Platt,
"Probabilistic outputs for support vector machines", 1999), and folded into the model's last layer,
so that nothing else knows of it.

A model learns the level of its train days; what follows has another one. Valid is the newest that
is known before serving.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.dataset import Split
from hemix.data.spec import InputSpec
from hemix.models import Predictor
from hemix.settings import Settings
from hemix.team import Team
from hemix.training.validate import logits_of

__all__ = [
    "LEAST_OF_A_CLASS",
    "SLOPE_MIN",
    "Line",
    "calibrate",
    "effective_weights",
    "fit_line",
    "line_of",
]

_PRIOR = 1.0
"""Precision of a normal prior around slope 1 and shift 0: what a handful of impressions outweigh"""

SLOPE_MIN = 0.01
"""A line never falls, so that the order within a task stays; where valid's own order is the other
way round, it is nearly flat"""

LEAST_OF_A_CLASS = 10
"""Positives and negatives (as many as their weights are worth) from which a line is fitted"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """``slope * logit + shift``; (1, 0), and why, where no line was fitted."""

    slope: float = 1.0
    shift: float = 0.0
    left_out: str | None = None
    """Why there is no line"""
    held: str | None = None
    """Why the slope is SLOPE_MIN"""

    def to_json(self) -> dict[str, Any]:
        """As metrics.json keeps it."""
        remarks = {"left_out": self.left_out, "held": self.held}
        return {
            "slope": self.slope,
            "shift": self.shift,
            **{key: text for key, text in remarks.items() if text},
        }


def calibrate(
    model: Predictor,
    split: Split,
    settings: Settings,
    device: torch.device,
    team: Team | None = None,
) -> dict[str, dict[str, Any]]:
    """Fit and apply; returns ``{"slope", "shift"}`` by task, as metrics.json keeps them; with
    ``left_out``, the reason, where no line can be fitted and the logits stay as they are, and with
    ``held`` where the slope is held above 0.

    A task with ``given`` is fitted where that label is known and 1, for its logit is conditional on
    it.
    """
    parts = [
        (logits.cpu().double(), batch.labels.cpu().double(), batch.weights.cpu().double())
        for batch, logits in logits_of(model, split, settings, device, team)
        if batch.labels is not None and batch.weights is not None
    ]
    logits_NT, labels_NT, weights_NT = (torch.cat(column) for column in zip(*parts, strict=True))
    lines = []
    for index in range(len(model.spec.tasks)):
        counted = _counted(index, labels_NT, weights_NT, model.spec)
        lines.append(
            line_of(
                logits_NT[counted, index], labels_NT[counted, index], weights_NT[counted, index]
            )
        )
    slope_T, shift_T = torch.tensor(
        [[line.slope, line.shift] for line in lines], dtype=torch.float64
    ).T
    model.rescale(slope_T, shift_T)
    return {task.name: line.to_json() for task, line in zip(model.spec.tasks, lines, strict=True)}


def _counted(index: int, labels_NT: Tensor, weights_NT: Tensor, spec: InputSpec) -> Tensor:
    """Rows whose label is known, of a weight above 0; of a task with ``given`` those where that
    label is 1."""
    counted, given = weights_NT[:, index] > 0, spec.tasks[index].given
    if given is not None:
        counted = counted & (labels_NT[:, given] > 0) & (weights_NT[:, given] > 0)
    return counted


def line_of(logits: Tensor, labels: Tensor, weights: Tensor) -> Line:
    """The line of rows that count, float64 [rows] each, weights above 0. The scale of the weights
    does not matter."""
    reason = _why_none(logits, labels, weights)
    if reason is not None:
        return Line(left_out=reason)
    weights = effective_weights(weights)
    same = bool(logits.min() == logits.max())  # such rows say nothing of a slope
    slope, shift = fit_line(logits, labels, weights, slope=1.0 if same else None)
    if not (math.isfinite(slope) and math.isfinite(shift)):
        return Line(left_out="the fit does not converge")
    if slope >= SLOPE_MIN:
        return Line(slope=slope, shift=shift)
    _, shift = fit_line(logits, labels, weights, slope=SLOPE_MIN)
    why = "valid's order is the other way round" if slope < 0 else "valid hardly follows the logits"
    return Line(slope=SLOPE_MIN, shift=shift, held=f"{why} (the best slope is {slope:.3g})")


def effective_weights(weights: Tensor) -> Tensor:
    """The same weights, of the sum that they are worth: the effective number of rows, (sum w)^2 /
    sum w^2 (Kish, "Survey sampling", 1965). Equal weights of any scale become 1 each."""
    weights = weights / weights.max()
    return weights * (weights.sum() / weights.square().sum())


def _why_none(logits: Tensor, labels: Tensor, weights: Tensor) -> str | None:
    """Why no line can be fitted to these rows."""
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
    worth = [float(effective_weights(weights[of]).sum()) for of in (positive, ~positive)]
    if min(worth) < LEAST_OF_A_CLASS:
        few = "{:.3g} positives and {:.3g} negatives".format(*worth)
        return f"too few valid rows: {few}, expected {LEAST_OF_A_CLASS} of each"
    ups, downs = logits[positive], logits[~positive]
    if bool((ups.min() > downs.max()) | (ups.max() < downs.min())):
        return "the logits part valid's positives from its negatives: no finite slope is the best"
    return None


def fit_line(
    logits: Tensor, labels: Tensor, weights: Tensor, *, slope: float | None = None
) -> tuple[float, float]:
    """(slope, shift) with the least weighted cross-entropy of sigmoid(slope * logit + shift), under
    a weak prior around (1, 0).

    Args:
        logits: float64 [rows].
        labels: 0 or 1, float64 [rows].
        weights: How many rows each row stands for, float64 [rows].
        slope: Fit the shift alone, with this slope.

    Returns:
        Slope and shift; (1, 0) where there is no row.
    """
    start = [1.0, 0.0] if slope is None else [slope, 0.0]
    line = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    middle = torch.tensor([1.0, 0.0], dtype=torch.float64)
    free = torch.tensor([float(slope is None), 1.0], dtype=torch.float64)
    optimizer = torch.optim.LBFGS(
        [line],
        max_iter=200,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        optimizer.zero_grad()
        misfit = F.binary_cross_entropy_with_logits(
            line[0] * logits + line[1], labels, weights, reduction="sum"
        )
        value = misfit + _PRIOR / 2 * (line - middle).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        assert line.grad is not None
        line.grad *= free
        return float(value.detach())

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted_slope, shift = line.tolist()
    return fitted_slope, shift
