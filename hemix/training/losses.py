"""The training objective: log loss with the tasks' weights, and a ranking loss within groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.models import Ranker
from hemix.nn.heads import LossOptions
from hemix.nn.ranking_loss import RankedGroups, log_odds, rank_groups, ranking_loss
from hemix.schema import Schema
from hemix.settings import Settings

__all__ = ["RankedBatch", "TrainingLoss"]


@dataclass(frozen=True, kw_only=True)
class RankedBatch:
    """The groups of a batch, for the ranking loss."""

    tasks: Sequence[RankedGroups]
    divisor_T: Tensor
    """float32 [T], in the CPU's memory: the weight of the groups of the whole step"""


class TrainingLoss:
    """Computes the objective of a batch by the run's settings and the labels' weights."""

    def __init__(self, model: Ranker, settings: Settings, schema: Schema) -> None:
        """Read the settings.

        Args:
            model: Whose logits are given.
            settings: Of the run.
            schema: With the labels' weights.
        """
        self._model, self._train = model, settings.train
        self._funnel = settings.model.funnel
        self._task_weights = [label.loss_weight for label in schema.labels.values()]
        self._options = LossOptions(
            task_weights=self._task_weights if set(self._task_weights) != {1.0} else None,
            label_smoothing=self._train.label_smoothing,
        )

    def rank(self, cpu_batch: RequestBatch) -> RankedBatch | None:
        """Find the groups of a batch; None without a ranking loss.

        Args:
            cpu_batch: The batch in the CPU's memory, with one row for each user and request.
        """
        if self._train.ranking_loss == "none":
            return None
        assert cpu_batch.labels is not None and cpu_batch.weights is not None
        group_N = cpu_batch.request_index
        if self._train.ranking_group == "user":
            group_N = cpu_batch.user_index.index_select(0, group_N)
        tasks = rank_groups(
            cpu_batch.labels, cpu_batch.weights, group_N, self._model.spec, self._funnel
        )
        return RankedBatch(
            tasks=tasks, divisor_T=torch.stack([task.weight.float() for task in tasks])
        )

    def __call__(
        self,
        logits_NT: Tensor,
        batch: RequestBatch,
        auxiliary: Sequence[Tensor],
        ranked: RankedBatch | None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the objective.

        Args:
            logits_NT: float32 [N, T].
            batch: The batch of the logits, with labels.
            auxiliary: float32 [N, T] each, logits of auxiliary predictions; they are not ranked.
            ranked: What :meth:`rank` returned, with the divisor of the whole step.

        Returns:
            What is minimised, and the log loss in it; scalars.
        """
        log_loss = self._model.loss(logits_NT, batch, auxiliary, self._options)
        if ranked is None or self._train.ranking_loss == "none":
            return log_loss, log_loss
        scores_NT = log_odds(logits_NT, self._model.spec, self._funnel)
        objective = log_loss
        columns = zip(ranked.tasks, ranked.divisor_T.tolist(), self._task_weights, strict=True)
        for task, (groups, divisor, weight) in enumerate(columns):
            if groups.groups:
                total = ranking_loss(
                    self._train.ranking_loss, scores_NT[:, task], groups.to(logits_NT.device)
                )
                objective = objective + self._train.ranking_weight * weight / divisor * total
        return objective, log_loss
