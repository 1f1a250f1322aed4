"""One step: loss and gradients of every slot, then the optimisers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.distributed import tree_reduce
from hemix.errors import RunError
from hemix.training.job import TrainingJob
from hemix.training.losses import RankedBatch, TrainingLoss
from hemix.training.slots import own_slots, slot_seed
from hemix.training.state import TrainState
from hemix.training.validate import autocast

__all__ = ["TrainStep"]

Gradients = list[Tensor | None]
"""Of the dense parameters; None where no candidate reached one"""


class TrainStep:
    """Trains the model on one step's batches at a time and passes the results to the meters."""

    def __init__(self, state: TrainState, job: TrainingJob, device: torch.device) -> None:
        """Prepare the steps.

        Args:
            state: What the steps change.
            job: Settings and processes.
            device: Where the model lies.
        """
        self._state, self._device = state, device
        self._options, self._distributed = job.settings.train, job.distributed
        self._slots = own_slots(job.settings, job.distributed)
        self._loss = TrainingLoss(state.model, job.settings, job.data.schema)
        self._dense = list(state.model.dense_parameters())
        self._pending: list[_StepResult] = []

    def __call__(self, batches: Sequence[RequestBatch]) -> None:
        """Do one step.

        Args:
            batches: One for each slot of this process, in the CPU's memory.

        Raises:
            RunError: The loss of an earlier step is not finite.
        """
        state = self._state
        result = _StepResult(state.position.step)
        ranked = [self._loss.rank(batch) for batch in batches]
        if self._options.gradient_accumulation == 1:
            self._run_slot(self._slots[0], batches[0], ranked[0], result)
        else:
            loss_weight = self._sum_of_step([state.model.loss_weight(batch) for batch in batches])
            weighted = [replace(batch, loss_weight=loss_weight) for batch in batches]
            self._accumulate(weighted, self._of_whole_step(ranked), result)
        self._pending.append(result)
        if self._device.type == "cpu":
            self.read_results()
        state.optimizers.step(state.position.step)
        state.position.step += 1

    def _sum_of_step(self, weights: Sequence[Tensor]) -> Tensor:
        """Return [T], the sum over all slots of what the loss of every slot is divided by."""
        own = tree_reduce(weights.__getitem__, torch.add, 0, len(weights))
        if self._distributed is None:
            return own
        return self._distributed.sum(own.to(self._device)).cpu()

    def _of_whole_step(self, ranked: Sequence[RankedBatch | None]) -> list[RankedBatch | None]:
        """Return the groups of the slots with the divisor of the whole step."""
        batches = [batch for batch in ranked if batch is not None]
        if not batches:
            return list(ranked)
        divisor_T = self._sum_of_step([batch.divisor_T for batch in batches])
        return [replace(batch, divisor_T=divisor_T) for batch in batches]

    def _accumulate(
        self,
        batches: Sequence[RequestBatch],
        ranked: Sequence[RankedBatch | None],
        result: _StepResult,
    ) -> None:
        """Add up the gradients of the slots of this process."""

        def gradients(number: int) -> Gradients:
            self._run_slot(self._slots[number], batches[number], ranked[number], result)
            self._state.model.tables.end_microbatch()
            own = [parameter.grad for parameter in self._dense]
            for parameter in self._dense:
                parameter.grad = None
            return own

        total = tree_reduce(gradients, _add, 0, len(batches))
        for parameter, gradient in zip(self._dense, total, strict=True):
            parameter.grad = gradient

    def _run_slot(
        self,
        slot: int,
        cpu_batch: RequestBatch,
        ranked: RankedBatch | None,
        result: _StepResult,
    ) -> None:
        """Compute the loss of a slot and its gradients."""
        state, options = self._state, self._options
        torch.manual_seed(slot_seed(options.seed, state.position.step, slot))
        if not options.deduplicate:
            cpu_batch = cpu_batch.expand_per_impression()
        batch = cpu_batch.to(self._device)
        with autocast(self._device, options.precision):
            logits_NT, *auxiliary = state.model.training_logits(batch)
        objective, log_loss = self._loss(
            logits_NT.float(), batch, [logits.float() for logits in auxiliary], ranked
        )
        objective.backward()  # type: ignore[no-untyped-call]
        result.add(log_loss.detach(), logits_NT[:, 0].detach(), cpu_batch)

    def read_results(self) -> None:
        """Give the meters the losses and logits of the steps since the last call.

        Reading waits for the device, so it is not done after each step on a GPU. All processes
        call this together. Raises RunError where a loss is not finite.
        """
        pending, self._pending = self._pending, []
        for result in pending:
            loss, impressions = result.loss(), result.impressions()
            if self._distributed is not None:
                loss = self._distributed.sum(loss)
                by_rank = self._distributed.all_gather(impressions.to(self._device))
                impressions = torch.cat(by_rank).cpu()
            value = float(loss)
            if not math.isfinite(value):
                advice = "lower train.dense_learning_rate or train.table_learning_rate"
                raise RunError(
                    f"the loss is {value} at step {result.step}: {advice}", code="diverged"
                )
            self._state.meters.add(value, *impressions.unbind(1))
            self._state.position.impressions += len(impressions)


def _add(left: Gradients, right: Gradients) -> Gradients:
    """Add gradients in place."""
    return [
        other if own is None else own if other is None else own.add_(other)
        for own, other in zip(left, right, strict=True)
    ]


class _StepResult:
    """Losses and logits of the slots of a step, on their device until they are read."""

    def __init__(self, step: int) -> None:
        self.step = step
        self._losses: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, loss: Tensor, logits: Tensor, cpu_batch: RequestBatch) -> None:
        """Add a slot.

        Args:
            loss: Its summand of the step's loss, a scalar.
            logits: The first task's logits [n].
            cpu_batch: The batch in the CPU's memory, with labels and weights.
        """
        assert cpu_batch.labels is not None and cpu_batch.weights is not None
        self._losses.append(loss)
        self._logits.append(logits)
        labels, weights = cpu_batch.labels[:, 0].float(), cpu_batch.weights[:, 0].float()
        self._targets.append(torch.stack([labels, weights], 1))

    def loss(self) -> Tensor:
        """The sum of the losses."""
        return tree_reduce(self._losses.__getitem__, torch.add, 0, len(self._losses))

    def impressions(self) -> Tensor:
        """Logit, label and weight [n, 3] of the first task, in the CPU's memory."""
        logits = torch.cat(self._logits).cpu().float().unsqueeze(1)
        return torch.cat([logits, torch.cat(self._targets)], 1)
