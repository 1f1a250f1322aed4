"""Both optimisers of a run behind one step: AdamW for the dense part, a row-wise one for the tables; warm-up and decay of the
learning rates; clipping (of the dense part only); all state as named tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hemix.config import TrainSettings
from hemix.model import Ranker
from hemix.training.table_optimizers import build_table_optimizer

__all__ = ["Optimizers", "learning_rate_share"]


def learning_rate_share(step: int, total: int, warmup: int, final: float) -> float:
    """Share of the peak learning rate at ``step`` (from 0) of ``total``: linear up over ``warmup``, a cosine down to ``final``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimizers:
    """Steps the whole model after a backward pass."""

    def __init__(self, model: Ranker, settings: TrainSettings, total_steps: int) -> None:
        self._settings = settings
        self._total = total_steps
        self._named = dict(model.named_dense_parameters())
        matrices = [p for p in self._named.values() if p.ndim >= 2]
        others = [p for p in self._named.values() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._dense = torch.optim.AdamW(groups, lr=settings.dense_learning_rate, fused=True)
        self._tables = build_table_optimizer(settings.table_optimizer, model.tables, settings.tables)

    @property
    def tables(self) -> str:
        """Who updates the tables, and how to get the other."""
        return self._tables.how

    def step(self, step: int) -> None:
        """Update everything, clear the gradients."""
        settings = self._settings
        share = learning_rate_share(step, self._total, settings.warmup_steps, settings.final_learning_rate)
        parameters = list(self._named.values())
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm if settings.clip_norm > 0 else math.inf)
        for group in self._dense.param_groups:
            group["lr"] = settings.dense_learning_rate * share
        self._dense.step()
        self._dense.zero_grad(set_to_none=True)
        self._tables.step(settings.table_learning_rate * share)

    def tensors(self) -> dict[str, Tensor]:
        """All state by name."""
        state = {f"tables.{name}": tensor for name, tensor in self._tables.tensors().items()}
        for name, parameter in self._named.items():
            for key, value in self._dense.state.get(parameter, {}).items():
                state[f"dense.{key}.{name}"] = value
        return state

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of :meth:`tensors`."""
        self._tables.load({name.removeprefix("tables."): t for name, t in tensors.items() if name.startswith("tables.")})
        for name, parameter in self._named.items():
            state = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"dense.{key}.{name}" in tensors:
                    state[key] = tensors[f"dense.{key}.{name}"].clone()
            if state:
                self._dense.state[parameter] = state
