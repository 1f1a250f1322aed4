"""The loss of a split, and the scored rows behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hemix.data.sampler import SequentialSampler
from hemix.data.split import Split
from hemix.distributed import DistributedContext
from hemix.evaluation.metrics import auc, base_rate_loss
from hemix.models import Predictor
from hemix.nn.heads import counted_weights
from hemix.settings import ResolvedSettings

__all__ = ["ScoredRows", "Validation", "autocast", "scored_rows", "validate"]

_SCORED_IMPRESSIONS = 1024
"""Impressions of a scored batch over all slots, at least; smaller ones take longer a row"""


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """Impressions with their logits, on the model's device."""

    logits_NT: Tensor
    """float32 [N, T]"""
    labels_NT: Tensor
    """float32 [N, T]; 0 where unknown"""
    weights_NT: Tensor
    """float32 [N, T]; 0 where the label is unknown"""


@torch.no_grad()
def scored_rows(
    model: Predictor,
    split: Split,
    settings: ResolvedSettings,
    device: torch.device,
    distributed: DistributedContext | None = None,
) -> Iterator[ScoredRows]:
    """Score a split with a model in evaluation mode.

    The processes score its batches in turn, and all processes get all rows in the same order.

    Args:
        model: The model, on ``device``.
        split: What to score.
        settings: Batch size, slots and precision.
        device: Where the model lies.
        distributed: The processes; None: this one alone.

    Yields:
        The rows of a batch of every process, about four times as many as a slot trains on, and more
        where a step is small.
    """
    model.eval()
    train = settings.train
    rank, size = (distributed.rank, distributed.world_size) if distributed is not None else (0, 1)
    impressions = max(4 * train.batch_size, _SCORED_IMPRESSIONS) // train.gradient_accumulation
    sampler = SequentialSampler(split, max(1, impressions))
    rounds = -(-sampler.steps // size)
    # in the last round a process may have an empty batch: look-ups need all processes
    steps = range(rank, rounds * size, size)
    for batch in split.batches(sampler, steps=steps, workers=train.loader_workers):
        moved = batch.to(device)
        assert moved.labels is not None and moved.weights is not None
        with autocast(device, train.precision):
            logits_NT = model(moved)
        rows = torch.cat([logits_NT.float(), moved.labels, moved.weights], 1)
        if distributed is not None:
            rows = torch.cat(distributed.all_gather(rows))
        logits_NT, labels_NT, weights_NT = rows.chunk(3, 1)
        yield ScoredRows(logits_NT=logits_NT, labels_NT=labels_NT, weights_NT=weights_NT)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The losses of a split, over the rows with a known label and a weight above 0."""

    loss: float | None
    """Mean loss, summed over tasks; None where no row counts"""
    first_auc: float | None
    """The first task's AUC; None where it has one class only"""
    tasks: dict[str, tuple[float, float]]
    """By task (mean loss, mean loss of always predicting the base rate); without tasks of which no
    row counts"""

    def record(self) -> dict[str, float | None]:
        """Return the fields of log.jsonl."""
        return {"valid_loss": self.loss, "valid_auc": self.first_auc}


@torch.no_grad()
def validate(
    model: Predictor,
    split: Split,
    settings: ResolvedSettings,
    device: torch.device,
    distributed: DistributedContext | None = None,
) -> Validation:
    """Compute the losses of a split and the first task's AUC.

    Args:
        model: The model, on ``device``.
        split: What to score.
        settings: Batch size, slots, precision, and how a funnel is trained.
        device: Where the model lies.
        distributed: The processes; None: this one alone.
    """
    total = weight = positive = torch.zeros(len(model.spec.tasks), dtype=torch.float64)
    scores, labels = [], []
    for rows in scored_rows(model, split, settings, device, distributed):
        labels_NT, weights_NT = rows.labels_NT, rows.weights_NT
        rows_total, rows_weight = model.loss_sums(rows.logits_NT, labels_NT, weights_NT)
        total, weight = total + rows_total.double().cpu(), weight + rows_weight.double().cpu()
        counted = counted_weights(labels_NT, weights_NT, model.spec, settings.model.funnel)
        positive = positive + (counted * labels_NT).double().sum(0).cpu()
        known = weights_NT[:, 0] > 0
        scores.append(rows.logits_NT[known, 0].cpu())
        labels.append(labels_NT[known, 0].cpu())
    mean_T = total / torch.where(weight > 0, weight, 1)
    first_auc = auc(torch.cat(labels).numpy(), torch.cat(scores).numpy())
    return Validation(
        loss=float(mean_T.sum()) if bool((weight > 0).any()) else None,
        first_auc=first_auc if isinstance(first_auc, float) else None,
        tasks={
            task.name: (float(loss), base_rate_loss(float(task_positive / task_weight)))
            for task, loss, task_positive, task_weight in zip(
                model.spec.tasks, mean_T, positive, weight, strict=True
            )
            if task_weight > 0
        },
    )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which a model computes.

    Args:
        device: Where the model lies.
        precision: ``bf16`` for autocast, ``fp32`` for none.
    """
    return (
        torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
    )
