"""Figures of a run in progress: mean loss, progressive AUC and speed.

A checkpoint has the scores behind the AUC, so that a resumed run reports the same AUC.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hemix.evaluation.metrics import auc

__all__ = ["Meters"]

_WINDOW = 50_000


class Meters:
    """Progressive means: each impression is scored before the step that trains on it."""

    def __init__(self) -> None:
        self._score = np.zeros(_WINDOW, dtype=np.float32)
        self._label = np.zeros(_WINDOW, dtype=np.float32)
        self._weight = np.zeros(_WINDOW, dtype=np.float32)
        self._seen = 0
        self._loss_sum = 0.0
        self._steps = 0
        self._impressions = 0
        self._since = time.perf_counter()

    def add(self, loss: float, logit: Tensor, label: Tensor, weight: Tensor) -> None:
        """Add a step.

        Args:
            loss: The step's loss.
            logit: The first task's logits [N].
            label: Its labels [N].
            weight: Its weights [N]; 0 where the label is unknown.
        """
        count = len(logit)
        at = (self._seen + np.arange(count)) % _WINDOW
        for store, values in ((self._score, logit), (self._label, label), (self._weight, weight)):
            store[at] = values.detach().float().numpy()
        self._seen += count
        self._loss_sum += loss
        self._steps += 1
        self._impressions += count

    def record(self) -> dict[str, float | None]:
        """Return the means since the last record and the AUC of the last 50,000 impressions.

        The AUC is None while one class is missing.
        """
        filled = min(self._seen, _WINDOW)
        known = self._weight[:filled] > 0
        value = auc(self._label[:filled][known], self._score[:filled][known])
        now = time.perf_counter()
        record = {
            "loss": self._loss_sum / max(self._steps, 1),
            "progressive_auc": value if isinstance(value, float) else None,
            "impressions_per_second": self._impressions / max(now - self._since, 1e-9),
        }
        self._loss_sum, self._steps, self._impressions, self._since = 0.0, 0, 0, now
        return record

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors, for a checkpoint."""
        window: npt.NDArray[Any] = np.stack([self._score, self._label, self._weight])
        return {"meters.window": torch.from_numpy(window), "meters.seen": torch.tensor(self._seen)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`tensors` returned."""
        self._score, self._label, self._weight = (
            row.numpy().copy() for row in tensors["meters.window"]
        )
        self._seen = int(tensors["meters.seen"])
