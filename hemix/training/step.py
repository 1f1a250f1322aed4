"""One step: loss and gradients of every microbatch, then the optimisers."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.errors import RunError
from hemix.training.job import TrainingJob
from hemix.training.microbatches import microbatch_count, microbatch_seed, own_microbatches
from hemix.training.state import TrainState
from hemix.training.validate import autocast

__all__ = ["TrainStep"]


class TrainStep:
    """Trains the model on one batch at a time and passes the results to the meters."""

    def __init__(self, state: TrainState, job: TrainingJob, device: torch.device) -> None:
        """Prepare the steps.

        Args:
            state: What the steps change.
            job: Settings and processes.
            device: Where the model lies.
        """
        self._state, self._device = state, device
        self._options, self._distributed = job.settings.train, job.distributed
        self.microbatch_count = microbatch_count(job.settings, job.distributed)
        """Microbatches of a step, over all processes"""
        self._pending: list[_StepResult] = []

    def __call__(self, batch: RequestBatch) -> None:
        """Do one step. Raises RunError where the loss of an earlier one is not finite."""
        state, options = self._state, self._options
        result = _StepResult(state.position.step)
        accumulates = self.microbatch_count > 1
        loss_weight = state.model.loss_weight(batch) if accumulates else None
        for number, cpu_batch, _ in own_microbatches(
            batch, self.microbatch_count, self._distributed
        ):
            torch.manual_seed(microbatch_seed(options.seed, state.position.step, number))
            if not options.deduplicate:
                cpu_batch = cpu_batch.expand_per_impression()
            microbatch = replace(cpu_batch, loss_weight=loss_weight).to(self._device)
            with autocast(self._device, options.precision):
                logits_NT, *auxiliary = state.model.training_logits(microbatch)
            loss = state.model.loss(
                logits_NT.float(), microbatch, [logits.float() for logits in auxiliary]
            )
            loss.backward()  # type: ignore[no-untyped-call]
            if accumulates:
                state.model.tables.end_microbatch()
            result.add(loss.detach(), logits_NT[:, 0].detach(), cpu_batch)
        self._pending.append(result)
        if self._device.type == "cpu":
            self.read_results()
        state.optimizers.step(state.position.step)
        state.position.step += 1

    def read_results(self) -> None:
        """Give the meters the losses and logits of the steps since the last call.

        Reading waits for the device, so it is not done after each step on a GPU. All processes
        call this together. Raises RunError where a loss is not finite.
        """
        pending, self._pending = self._pending, []
        for result in pending:
            loss, impressions = result.loss(), result.impressions()
            if self._distributed is not None:
                loss = self._distributed.sum(loss.clone())
                by_rank = self._distributed.all_gather(impressions.to(self._device))
                impressions = torch.cat(by_rank).cpu()
            value = float(loss)
            if not math.isfinite(value):
                advice = "lower train.dense_learning_rate or train.table_learning_rate"
                raise RunError(
                    f"the loss is {value} at step {result.step}: {advice}", code="diverged"
                )
            self._state.meters.add(value, *impressions.unbind(1))


class _StepResult:
    """Losses and logits of the microbatches of a step, on their device until they are read."""

    def __init__(self, step: int) -> None:
        self.step = step
        self._losses: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, loss: Tensor, logits: Tensor, cpu_batch: RequestBatch) -> None:
        """Add a microbatch.

        Args:
            loss: Its summand of the step's loss, a scalar.
            logits: The first task's logits [n].
            cpu_batch: The microbatch in the CPU's memory, with labels and weights.
        """
        assert cpu_batch.labels is not None and cpu_batch.weights is not None
        self._losses.append(loss)
        self._logits.append(logits)
        labels, weights = cpu_batch.labels[:, 0].float(), cpu_batch.weights[:, 0].float()
        self._targets.append(torch.stack([labels, weights], 1))

    def loss(self) -> Tensor:
        """The sum of the losses."""
        return sum(self._losses[1:], self._losses[0])

    def impressions(self) -> Tensor:
        """Logit, label and weight [n, 3] of the first task, in the CPU's memory."""
        logits = torch.cat(self._logits).cpu().float().unsqueeze(1)
        return torch.cat([logits, torch.cat(self._targets)], 1)
