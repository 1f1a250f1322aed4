"""The loss of a split, added up batch by batch: what early stopping goes by; and the logits behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.dataset import Split
from hemix.evaluation.metrics import auc
from hemix.models import Predictor
from hemix.settings import Settings
from hemix.team import Team
from hemix.training.parts import micro_batches, own_parts

__all__ = ["autocast", "logits_of", "validate"]


@torch.no_grad()
def logits_of(
    model: Predictor, split: Split, settings: Settings, device: torch.device, team: Team | None = None
) -> Iterator[tuple[RequestBatch, Tensor]]:
    """Every batch of a split, as it lies on the device, with its logits [N, T], at least fp32, scored in the parts that train has. Of
    a team each process scores its own and all have the whole."""
    model.eval()
    plan, parts = split.plan(4 * settings.train.batch_impressions), micro_batches(settings, team)
    for batch in split.batches(plan, workers=settings.train.loader_workers):
        found, places = [], []
        for _, part, candidates in own_parts(batch, parts, team):
            with autocast(device, settings.train.precision):
                found.append(model(part.to(device)).float())
            places.append(candidates.to(device))
        if team is not None:
            found, places = team.gathered(torch.cat(found)), team.gathered(torch.cat(places))
        logits = torch.cat(found)
        yield batch.to(device), logits if parts == 1 else torch.empty_like(logits).index_copy_(0, torch.cat(places), logits)


@torch.no_grad()
def validate(
    model: Predictor, split: Split, settings: Settings, device: torch.device, team: Team | None = None
) -> tuple[float, float | None]:
    """Mean loss of all tasks and the first task's AUC (None where one class is missing) over a split."""
    total = weight = torch.zeros(len(model.spec.tasks), dtype=torch.float64)
    scores, labels = [], []
    for here, logits in logits_of(model, split, settings, device, team):
        batch_total, batch_weight = model.loss_sums(logits, here)
        total, weight = total + batch_total.double().cpu(), weight + batch_weight.double().cpu()
        assert here.labels is not None and here.weights is not None
        known = here.weights[:, 0] > 0
        scores.append(logits[known, 0].cpu())
        labels.append(here.labels[known, 0].cpu())
    mean = float((total / torch.where(weight > 0, weight, 1)).sum())
    first_auc = auc(torch.cat(labels).numpy(), torch.cat(scores).numpy())
    return mean, first_auc if isinstance(first_auc, float) else None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """``bf16`` autocast, or none for ``fp32``."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
