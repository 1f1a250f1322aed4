"""The optimisers of a run: AdamW or Muon for the dense part, a row-wise one for the tables.

Also the schedule of the learning rates, gradient clipping of the dense part and the moving average
of the weights. All state is named tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hemix.config import ResolvedTrainSettings
from hemix.distributed import DistributedContext
from hemix.models import Ranker
from hemix.training.moving_average import MovingAverage
from hemix.training.muon import Muon, linear_maps
from hemix.training.table_optimizers import build_table_optimizer

__all__ = ["Optimizers", "lr_factor"]


def lr_factor(step: int, total: int, warmup: int, min_factor: float) -> float:
    """Return the factor of the peak learning rate: a linear warm-up, then a cosine.

    Args:
        step: Number of the step, from 0.
        total: Steps of the run.
        warmup: Steps of the warm-up.
        min_factor: The factor at the end (``train.min_lr_factor``).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimizers:
    """Updates the whole model after a backward pass."""

    def __init__(
        self,
        model: Ranker,
        settings: ResolvedTrainSettings,
        total_steps: int,
        distributed: DistributedContext | None = None,
    ) -> None:
        """Make the optimisers of a model that is already on its device.

        Args:
            model: The model.
            settings: Learning rates and their schedule, optimisers, clipping, averages.
            total_steps: Steps of the run.
            distributed: The processes over which dense gradients are summed; None: this one alone.
        """
        self._settings = settings
        self._total = total_steps
        self._named = dict(model.named_dense_parameters())
        self._dense = _dense_optimizers(model, settings)
        self._average = (
            MovingAverage(self._named, model.tables, settings.ema_decay)
            if settings.ema_decay > 0
            else None
        )
        self._distributed = distributed
        self._tables = build_table_optimizer(
            settings.table_optimizer, model.tables, settings.embedding_backend
        )
        self._tables.weight_decay = settings.table_weight_decay
        self._tables.average = self._average

    @property
    def embedding_backend(self) -> str:
        """Who updates the tables, and why, for a person."""
        return self._tables.backend

    def step(self, step: int) -> None:
        """Update all weights and clear the gradients. ``step``: its number, from 0."""
        settings = self._settings
        factor = lr_factor(step, self._total, settings.warmup_steps, settings.min_lr_factor)
        parameters = list(self._named.values())
        if self._distributed is not None:
            _sum_gradients(parameters, self._distributed)
        torch.nn.utils.clip_grad_norm_(
            parameters, settings.max_grad_norm if settings.max_grad_norm > 0 else math.inf
        )
        if self._average is not None:
            self._average.begin_step()
        for optimizer in self._dense:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._tables.step(settings.table_learning_rate * factor)
        if self._average is not None:
            self._average.end_step()

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Give the model its averaged weights inside the block, if the run averages them."""
        if self._average is None:
            yield
        else:
            with self._average.applied():
                yield

    def apply_average(self) -> None:
        """Replace the weights by their averages for good, if the run averages them."""
        if self._average is not None:
            self._average.swap()

    def row_tensors(self) -> dict[str, Tensor]:
        """Return the row-wise state of the tables by name, [rows of this process, ...] each."""
        return {name: tensor for name, tensor in self._all_tensors().items() if name in _ROW_STATE}

    def tensors(self) -> dict[str, Tensor]:
        """Return all other state by name."""
        return {
            name: tensor for name, tensor in self._all_tensors().items() if name not in _ROW_STATE
        }

    def _all_tensors(self) -> dict[str, Tensor]:
        state = {f"tables.{name}": tensor for name, tensor in self._tables.tensors().items()}
        for name, parameter in self._named.items():
            for optimizer in self._dense:
                for key, value in optimizer.state.get(parameter, {}).items():
                    state[f"dense.{key}.{name}"] = value
        if self._average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self._average.tensors().items()}
        return state

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`tensors` and :meth:`row_tensors` returned."""
        self._tables.load(_with_prefix("tables.", tensors))
        if self._average is not None:
            self._average.load(_with_prefix("average.", tensors))
        for optimizer, keys in zip(self._dense, _DENSE_STATE, strict=False):
            for name, parameter in self._named.items():
                state = {
                    key: tensors[f"dense.{key}.{name}"].clone()
                    for key in keys
                    if f"dense.{key}.{name}" in tensors
                }
                if state:
                    optimizer.state[parameter] = state


_ROW_STATE = ("tables.mean", "tables.square", "tables.sum", "average.table", "average.seen")
_DENSE_STATE = (("step", "exp_avg", "exp_avg_sq"), ("momentum",))
"""Names of the state of AdamW and of Muon"""


def _sum_gradients(parameters: list[torch.nn.Parameter], distributed: DistributedContext) -> None:
    """Sum the gradients over the processes; one that no process has stays None."""
    counts = distributed.sum(
        torch.tensor(
            [p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device
        )
    )
    used = [p for p, count in zip(parameters, counts.tolist(), strict=True) if count]
    if not used:
        return
    total = distributed.sum(
        torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used])
    )
    sizes = [p.numel() for p in used]
    for parameter, gradient in zip(used, torch.split(total, sizes), strict=True):
        parameter.grad = gradient.view_as(parameter).clone()


def _dense_optimizers(
    model: Ranker, settings: ResolvedTrainSettings
) -> list[torch.optim.Optimizer]:
    """Make AdamW for all dense weights, or for all but the linear maps, which Muon updates."""
    maps = linear_maps(model) if settings.dense_optimizer == "muon" else set()
    parameters, biases = list(model.dense_parameters()), set(model.bias_parameters())
    matrices = [p for p in parameters if p.ndim >= 2 and p not in maps | biases]
    others = [p for p in parameters if p.ndim < 2]
    rate, decay = settings.dense_learning_rate, settings.weight_decay
    groups = [
        {"params": matrices, "lr": rate, "weight_decay": decay},
        {"params": others, "lr": rate, "weight_decay": 0.0},
    ]
    if biases:
        in_order = [p for p in parameters if p in biases]
        bias_rate = settings.bias_learning_rate
        groups.append({"params": in_order, "lr": bias_rate, "weight_decay": 0.0})
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, fused=True)]
    if maps:
        optimizers.append(Muon([p for p in parameters if p in maps], rate, weight_decay=decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
