"""The optimisers of a run behind one step: AdamW, or Muon beside it, for the dense part, a row-wise
one for the tables; warm-up and decay of the learning rates; clipping (of the dense part only);
averages of the weights; all state as named tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hemix.config import TrainSettings
from hemix.models import Ranker
from hemix.team import Team
from hemix.training.average import Average
from hemix.training.muon import Muon, linear_maps
from hemix.training.table_optimizers import build_table_optimizer

__all__ = ["Optimizers", "learning_rate_share"]


def learning_rate_share(step: int, total: int, warmup: int, final: float) -> float:
    """Share of the peak learning rate at ``step`` (from 0) of ``total``: linear up over ``warmup``,
    a cosine down to ``final``.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimizers:
    """Steps the whole model after a backward pass."""

    def __init__(
        self, model: Ranker, settings: TrainSettings, total_steps: int, team: Team | None = None
    ) -> None:
        """``team``: gradients of the dense part are added up over its processes; the tables' go to
        their owners.
        """
        self._settings = settings
        self._total = total_steps
        self._named = dict(model.named_dense_parameters())
        self._dense = _dense_optimizers(model, settings)
        self._average = (
            Average(self._named, model.tables, settings.ema_decay)
            if settings.ema_decay > 0
            else None
        )
        self._team = team
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
        """Update everything, clear the gradients."""
        settings = self._settings
        share = learning_rate_share(
            step, self._total, settings.warmup_steps, settings.min_lr_factor
        )
        parameters = list(self._named.values())
        if self._team is not None:
            _add_up(parameters, self._team)
        torch.nn.utils.clip_grad_norm_(
            parameters, settings.max_grad_norm if settings.max_grad_norm > 0 else math.inf
        )
        if self._average is not None:
            self._average.begin_step()
        for optimizer in self._dense:
            for group in optimizer.param_groups:
                group["lr"] = settings.dense_learning_rate * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._tables.step(settings.table_learning_rate * share)
        if self._average is not None:
            self._average.end_step()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model's weights are their averages where the run keeps any."""
        if self._average is None:
            yield
        else:
            with self._average.applied():
                yield

    def keep_average(self) -> None:
        """Put the averages in the weights' place for good, where the run keeps any."""
        if self._average is not None:
            self._average.swap()

    def row_tensors(self) -> dict[str, Tensor]:
        """The state by row of the tables, [rows of this process, ...] each, by name."""
        return {name: tensor for name, tensor in self._every_tensor().items() if name in _BY_ROW}

    def tensors(self) -> dict[str, Tensor]:
        """All other state by name."""
        return {
            name: tensor for name, tensor in self._every_tensor().items() if name not in _BY_ROW
        }

    def _every_tensor(self) -> dict[str, Tensor]:
        state = {f"tables.{name}": tensor for name, tensor in self._tables.tensors().items()}
        for name, parameter in self._named.items():
            for optimizer in self._dense:
                for key, value in optimizer.state.get(parameter, {}).items():
                    state[f"dense.{key}.{name}"] = value
        if self._average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self._average.tensors().items()}
        return state

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of :meth:`tensors` and :meth:`row_tensors` together."""
        self._tables.load(_below("tables.", tensors))
        if self._average is not None:
            self._average.load(_below("average.", tensors))
        for optimizer, keys in zip(self._dense, _STATE, strict=False):
            for name, parameter in self._named.items():
                state = {
                    key: tensors[f"dense.{key}.{name}"].clone()
                    for key in keys
                    if f"dense.{key}.{name}" in tensors
                }
                if state:
                    optimizer.state[parameter] = state


_BY_ROW = ("tables.mean", "tables.square", "tables.sum", "average.table", "average.seen")
_STATE = (("step", "exp_avg", "exp_avg_sq"), ("momentum",))
"""State by name: of AdamW, of Muon."""


def _add_up(parameters: list[torch.nn.Parameter], team: Team) -> None:
    """Sum the gradients over the processes.

    One that no process has stays None, as on one process.
    """
    has = team.sum(
        torch.tensor(
            [p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device
        )
    )
    used = [p for p, count in zip(parameters, has.tolist(), strict=True) if count]
    if not used:
        return
    total = team.sum(
        torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used])
    )
    for parameter, piece in zip(used, torch.split(total, [p.numel() for p in used]), strict=True):
        parameter.grad = piece.view_as(parameter).clone()


def _dense_optimizers(model: Ranker, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW for all, or for all but the linear maps, which are Muon's."""
    maps = linear_maps(model) if settings.dense_optimizer == "muon" else set()
    parameters = list(model.dense_parameters())
    matrices = [p for p in parameters if p.ndim >= 2 and p not in maps]
    others = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = settings.dense_learning_rate
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, fused=True)]
    if maps:
        optimizers.append(
            Muon([p for p in parameters if p in maps], rate, weight_decay=settings.weight_decay)
        )
    return optimizers


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
