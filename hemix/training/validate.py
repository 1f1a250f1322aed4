"""The loss of a split, summed batch by batch, and the logits behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.split import Split
from hemix.distributed import DistributedContext
from hemix.evaluation.metrics import auc, base_rate_loss
from hemix.models import Predictor
from hemix.nn.heads import counted_weights
from hemix.settings import Settings
from hemix.training.microbatches import microbatch_count, own_microbatches

__all__ = ["Validation", "autocast", "batches_with_logits", "validate"]


@torch.no_grad()
def batches_with_logits(
    model: Predictor,
    split: Split,
    settings: Settings,
    device: torch.device,
    distributed: DistributedContext | None = None,
) -> Iterator[tuple[RequestBatch, Tensor]]:
    """Score a split with a model in evaluation mode.

    The batches are divided into the microbatches of training. Each process scores its own, and all
    processes get all logits.

    Args:
        model: The model, on ``device``.
        split: What to score.
        settings: Batch size, microbatches and precision.
        device: Where the model lies.
        distributed: The processes; None: this one alone.

    Yields:
        A batch on the device, and its logits [N, T] in at least fp32.
    """
    model.eval()
    plan = split.plan(4 * settings.train.batch_size)
    count = microbatch_count(settings, distributed)
    for batch in split.batches(plan, workers=settings.train.loader_workers):
        logits, positions = [], []
        for _, microbatch, candidates in own_microbatches(batch, count, distributed):
            with autocast(device, settings.train.precision):
                logits.append(model(microbatch.to(device)).float())
            positions.append(candidates.to(device))
        if distributed is not None:
            logits = distributed.all_gather(torch.cat(logits))
            positions = distributed.all_gather(torch.cat(positions))
        logits_NT = torch.cat(logits)
        if count > 1:
            shuffled = logits_NT
            logits_NT = torch.empty_like(shuffled).index_copy_(0, torch.cat(positions), shuffled)
        yield batch.to(device), logits_NT


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
    settings: Settings,
    device: torch.device,
    distributed: DistributedContext | None = None,
) -> Validation:
    """Compute the losses of a split and the first task's AUC.

    Args:
        model: The model, on ``device``.
        split: What to score.
        settings: Batch size, microbatches, precision, and how a funnel is trained.
        device: Where the model lies.
        distributed: The processes; None: this one alone.
    """
    total = weight = positive = torch.zeros(len(model.spec.tasks), dtype=torch.float64)
    scores, labels = [], []
    for batch, logits_NT in batches_with_logits(model, split, settings, device, distributed):
        batch_total, batch_weight = model.loss_sums(logits_NT, batch)
        total, weight = total + batch_total.double().cpu(), weight + batch_weight.double().cpu()
        assert batch.labels is not None and batch.weights is not None
        counted = counted_weights(batch.labels, batch.weights, model.spec, settings.model.funnel)
        positive = positive + (counted * batch.labels).double().sum(0).cpu()
        known = batch.weights[:, 0] > 0
        scores.append(logits_NT[known, 0].cpu())
        labels.append(batch.labels[known, 0].cpu())
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
