"""Figures of a run in progress: mean loss, progressive AUC and speed.

A checkpoint has their state, so that a resumed run reports the same figures.
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
    """Progressive means before the update: each impression is scored by weights that never saw it
    (in the first epoch).
    """

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
        """One step: its loss and the first task's logits, labels, weights, each [N]."""
        count = len(logit)
        at = (self._seen + np.arange(count)) % _WINDOW
        for store, values in ((self._score, logit), (self._label, label), (self._weight, weight)):
            store[at] = values.detach().float().numpy()
        self._seen += count
        self._loss_sum += loss
        self._steps += 1
        self._impressions += count

    def record(self) -> dict[str, float | None]:
        """Means since the last record, the progressive AUC of the last 50,000 impressions (None
        while one class is missing).
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
        """The state as tensors, for a checkpoint."""
        window: npt.NDArray[Any] = np.stack([self._score, self._label, self._weight])
        return {"meters.window": torch.from_numpy(window), "meters.seen": torch.tensor(self._seen)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of :meth:`tensors`."""
        self._score, self._label, self._weight = (
            row.numpy().copy() for row in tensors["meters.window"]
        )
        self._seen = int(tensors["meters.seen"])
