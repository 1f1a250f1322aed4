"""The last step of training: a line through every task's logits, fitted on valid (Platt, "Probabilistic outputs for support vector
machines", 1999), and folded into the model's last layer, so that nothing else knows of it.

A model learns the level of its train days; what follows has another one. Valid is the newest that is known before serving.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.dataset import Split
from hemix.models import Predictor
from hemix.settings import Settings
from hemix.team import Team
from hemix.training.validate import logits_of

__all__ = ["calibrate", "fit_line"]

_PRIOR = 1.0
"""Precision of a normal prior around slope 1 and shift 0: what a handful of impressions outweigh, and one class alone does not"""


def calibrate(
    model: Predictor, split: Split, settings: Settings, device: torch.device, team: Team | None = None
) -> dict[str, dict[str, float]]:
    """Fit and apply; returns ``{"slope", "shift"}`` by task, as metrics.json keeps them.

    A task with ``given`` is fitted where that label is known and 1, for its logit is conditional on it.
    """
    parts = [
        (logits.cpu().double(), batch.labels.cpu().double(), batch.weights.cpu().double())
        for batch, logits in logits_of(model, split, settings, device, team)
        if batch.labels is not None and batch.weights is not None
    ]
    logits_NT, labels_NT, weights_NT = (torch.cat(column) for column in zip(*parts, strict=True))
    lines = []
    for index, task in enumerate(model.spec.tasks):
        weights = weights_NT[:, index]
        if task.given is not None:
            weights = weights * labels_NT[:, task.given] * (weights_NT[:, task.given] > 0)
        known = weights > 0
        lines.append(fit_line(logits_NT[known, index], labels_NT[known, index], weights[known]))
    slope_T, shift_T = torch.tensor(lines, dtype=torch.float64).T
    model.rescale(slope_T, shift_T)
    return {task.name: {"slope": a, "shift": b} for task, (a, b) in zip(model.spec.tasks, lines, strict=True)}


def fit_line(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[float, float]:
    """(slope, shift) with the least weighted cross-entropy of sigmoid(slope * logit + shift), under a weak prior around (1, 0); all
    three are float64 [rows]. (1, 0) where there is no row."""
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    middle = line.detach().clone()
    optimizer = torch.optim.LBFGS(
        [line], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        misfit = F.binary_cross_entropy_with_logits(line[0] * logits + line[1], labels, weights, reduction="sum")
        value = misfit + _PRIOR / 2 * (line - middle).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    slope, shift = line.tolist()
    return slope, shift
