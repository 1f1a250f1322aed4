"""The loss of a split, added up batch by batch: what early stopping goes by; and the logits behind
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.dataset import Split
from hemix.evaluation.metrics import auc, base_rate_loss
from hemix.models import Predictor
from hemix.nn.heads import counted_weights
from hemix.settings import Settings
from hemix.team import Team
from hemix.training.microbatches import microbatch_count, own_microbatches

__all__ = ["Validation", "autocast", "logits_of", "validate", "validated"]


@torch.no_grad()
def logits_of(
    model: Predictor,
    split: Split,
    settings: Settings,
    device: torch.device,
    team: Team | None = None,
) -> Iterator[tuple[RequestBatch, Tensor]]:
    """Every batch of a split, as it lies on the device, with its logits [N, T], at least fp32,
    scored in the parts that train has. Of a team each process scores its own and all have the
    whole.
    """
    model.eval()
    plan, count = split.plan(4 * settings.train.batch_size), microbatch_count(settings, team)
    for batch in split.batches(plan, workers=settings.train.loader_workers):
        found, places = [], []
        for _, microbatch, candidates in own_microbatches(batch, count, team):
            with autocast(device, settings.train.precision):
                found.append(model(microbatch.to(device)).float())
            places.append(candidates.to(device))
        if team is not None:
            found, places = team.gathered(torch.cat(found)), team.gathered(torch.cat(places))
        logits = torch.cat(found)
        yield (
            batch.to(device),
            logits
            if count == 1
            else torch.empty_like(logits).index_copy_(0, torch.cat(places), logits),
        )


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a split says of a model, over the rows that count (a known label, a weight above 0)."""

    loss: float | None
    """Mean loss, summed over tasks; None where no row counts"""
    first_auc: float | None
    """None where the first task lacks a class"""
    tasks: dict[str, tuple[float, float]]
    """By task (mean loss, the same of always saying the base rate); without tasks of which no row
    counts"""

    def record(self) -> dict[str, float | None]:
        """As log.jsonl keeps it."""
        return {"valid_loss": self.loss, "valid_auc": self.first_auc}


@torch.no_grad()
def validated(
    model: Predictor,
    split: Split,
    settings: Settings,
    device: torch.device,
    team: Team | None = None,
) -> Validation:
    """The losses of a split and the first task's AUC."""
    total = weight = positive = torch.zeros(len(model.spec.tasks), dtype=torch.float64)
    scores, labels = [], []
    for here, logits in logits_of(model, split, settings, device, team):
        batch_total, batch_weight = model.loss_sums(logits, here)
        total, weight = total + batch_total.double().cpu(), weight + batch_weight.double().cpu()
        assert here.labels is not None and here.weights is not None
        counted = counted_weights(here.labels, here.weights, model.spec, settings.model.funnel)
        positive = positive + (counted * here.labels).double().sum(0).cpu()
        known = here.weights[:, 0] > 0
        scores.append(logits[known, 0].cpu())
        labels.append(here.labels[known, 0].cpu())
    mean_T = total / torch.where(weight > 0, weight, 1)
    first_auc = auc(torch.cat(labels).numpy(), torch.cat(scores).numpy())
    return Validation(
        loss=float(mean_T.sum()) if bool((weight > 0).any()) else None,
        first_auc=first_auc if isinstance(first_auc, float) else None,
        tasks={
            task.name: (float(loss), base_rate_loss(float(of_positive / of_all)))
            for task, loss, of_positive, of_all in zip(
                model.spec.tasks, mean_T, positive, weight, strict=True
            )
            if of_all > 0
        },
    )


def validate(
    model: Predictor,
    split: Split,
    settings: Settings,
    device: torch.device,
    team: Team | None = None,
) -> tuple[float, float | None]:
    """Mean loss of all tasks (0 where no row counts) and the first task's AUC (None where one class
    is missing) over a split."""
    found = validated(model, split, settings, device, team)
    return found.loss or 0.0, found.first_auc


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """``bf16`` autocast, or none for ``fp32``."""
    return (
        torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
    )
