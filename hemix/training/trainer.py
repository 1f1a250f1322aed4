"""The trainer: epochs over the train split, and what happens between their steps.

Other modules have the order of the data (batches), the step (step), validation
(early_stopping), checkpoints (checkpoint_writer) and the log (run_log). The state (state) is
everything that the next step depends on.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence

import torch

from hemix.data.batch import RequestBatch
from hemix.distributed import DistributedContext
from hemix.errors import Interrupted
from hemix.measure import PeakMemory, keep_freed_memory
from hemix.models import Ranker, build_model, count_parameters
from hemix.runs import folder as run_folder
from hemix.runs.device import choose_device
from hemix.training.base_rates import start_at_base_rates, train_base_rates
from hemix.training.batches import TrainBatches
from hemix.training.calibrate import calibrate
from hemix.training.callbacks import Record
from hemix.training.checkpoint import BEST, Checkpoint, Checkpoints
from hemix.training.checkpoint_writer import CheckpointWriter
from hemix.training.checks import check_labels, check_pairs
from hemix.training.consistency import check_same_data
from hemix.training.device import compile_model, set_threads
from hemix.training.early_stopping import EarlyStopping
from hemix.training.job import TrainingJob
from hemix.training.launch import LAUNCHED
from hemix.training.optimizers import Optimizers
from hemix.training.results import training_metrics
from hemix.training.run_log import RunLog
from hemix.training.signals import stop_signals
from hemix.training.slots import own_slots
from hemix.training.state import TrainState
from hemix.training.step import TrainStep
from hemix.training.validate import validate
from hemix.training.warm_start import progressive_validation, remap_embedding_rows

__all__ = ["Trainer"]


class Trainer:
    """Trains the model of one job, in one process or as one of several."""

    def __init__(
        self, job: TrainingJob, background_group: DistributedContext | None = None
    ) -> None:
        """Build model and optimisers.

        Args:
            job: What to train.
            background_group: Connections of the processes for asynchronous checkpoints.

        Raises:
            DataError: If the train rows teach nothing of the first label.
            SettingsError: If this machine lacks what a setting needs.
        """
        options = job.settings.train
        self._job = job
        self._device = (
            job.distributed.device
            if job.distributed
            else choose_device(options.device, field="train.device")
        )
        keep_freed_memory()
        set_threads(options.threads)
        slots = own_slots(job.settings, job.distributed)
        self._batches = TrainBatches(job.data.split("train"), options, slots)
        self._valid_split = job.data.split("valid")
        self._data_notes = [*check_labels(job.data), *check_pairs(job.data, job.settings)]
        model = _build_model(job, self._device)
        self._total_steps = self._batches.total_steps
        self._state = TrainState(
            model=model,
            optimizers=Optimizers(model, options, self._total_steps, job.distributed),
        )
        self._step = TrainStep(self._state, job, self._device)
        self._early_stopping = EarlyStopping(options)
        self._checkpoints = Checkpoints(job.out, options.keep_checkpoints)
        self._writer = CheckpointWriter(self._checkpoints, job, background_group)
        self._log = RunLog(job)
        self._started = time.perf_counter()

    def header(self) -> Record:
        """Describe the run, for the callback's ``on_start``."""
        settings = self._job.settings
        dense, embedding = count_parameters(self._job.data.spec, settings.model)
        return {
            "model": settings.model.name,
            "size": getattr(settings.model, "size", None),
            "dense_parameters": dense,
            "embedding_parameters": embedding,
            "train_impressions": self._batches.split.impressions,
            "automatic": {name: getattr(settings.train, name) for name in self._job.automatic},
            "steps": self._total_steps,
            "resumed_at": self._state.position.step,
            "device": str(self._device),
            "processes": self._job.processes,
            "gradient_accumulation": settings.train.gradient_accumulation,
            "embedding_backend": self._state.optimizers.embedding_backend,
            "threads": torch.get_num_threads(),
            "precision": settings.train.precision,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            RunError: Naming what is damaged and which checkpoint may be used instead.
        """

        def fits(other: Checkpoint) -> None:
            check_same_data(other, self._job.data)

        with self._checkpoints.offering_another(checkpoint.folder, fits):
            self._state.load(checkpoint)
        self._log.drop_after(self._state.position.step)

    def run(self) -> None:
        """Train until all epochs are done or valid no longer improves.

        Raises:
            Interrupted: After a stop signal, when the checkpoint is saved.
            RunError: If the loss is not finite.
        """
        position = self._state.position
        if self._job.init_from is not None and position.step == 0:
            self._score_before_training()
        self._started = time.perf_counter() - position.seconds
        with stop_signals() as stop_requested:
            while position.epoch < self._job.settings.train.epochs and not position.finished:
                self._train_epoch(stop_requested)

    def finish(self, memory: PeakMemory) -> None:
        """Keep the chosen weights, calibrate them and complete the run folder.

        Args:
            memory: The peak of memory since training began.
        """
        job, state = self._job, self._state
        self._writer.wait()
        best = self._checkpoints.best() if self._early_stopping.keeps_best else None
        if best is not None:
            state.load_weights(best)
        else:
            state.optimizers.apply_average()
        calibration = None
        if job.settings.train.calibrate:
            calibration = calibrate(
                state.model,
                self._valid_split,
                job.settings,
                self._device,
                job.distributed,
            )
        metrics = training_metrics(
            job,
            state.position,
            self._data_notes,
            calibration,
            peak_bytes=memory.so_far(),
        )
        if metrics["notes"]:
            job.callback.on_record({"step": state.position.step, "notes": metrics["notes"]})
        run_folder.finish(job.out, state.model, job.data, metrics)
        if job.is_rank_zero:
            self._checkpoints.remove()

    def close(self) -> None:
        """Wait until nothing of this run is being written any more."""
        self._writer.close()

    # -- between the steps ---------------------------------------------------------------------

    def _score_before_training(self) -> None:
        """Score the train rows with the parent's weights, which have not seen them."""
        position = self._state.position
        position.progressive = progressive_validation(
            self._state.model,
            self._batches.split,
            self._job.settings,
            self._device,
            self._job.distributed,
        )
        self._log.write(position.step, {"progressive": position.progressive})

    def _train_epoch(self, stop_requested: Callable[[], bool]) -> None:
        position = self._state.position
        self._state.model.train()
        for batches in self._batches.read(position):
            self._train_step(batches)
            self._after_step(is_last=position.epoch_step == self._batches.steps_per_epoch)
            self._stop_if(stop_requested())
            if position.finished:
                return
            if _is_due(position.step, self._job.settings.train.checkpoint_every_steps):
                self._save(f"step-{position.step:08d}", background=True)

    def _train_step(self, batches: Sequence[RequestBatch]) -> None:
        position = self._state.position
        self._step(batches)
        self._job.callback.on_step(position.step, self._total_steps)
        position.epoch_step += 1
        position.seconds = time.perf_counter() - self._started

    def _after_step(self, *, is_last: bool) -> None:
        """Log and validate where that is due. ``is_last``: this step ends the epoch."""
        options, position = self._job.settings.train, self._state.position
        if is_last or _is_due(position.step, options.log_every_steps):
            self._step.read_results()
            self._write_log(self._state.meters.record())
        if is_last or _is_due(position.step, options.evaluate_every_steps):
            self._step.read_results()
            with self._state.optimizers.averaged_weights():
                self._validate()
            self._state.model.train()
            position.seconds = time.perf_counter() - self._started
        if is_last:
            position.epoch, position.epoch_step = position.epoch + 1, 0

    def _validate(self) -> None:
        """Score valid and keep the weights that are the best so far."""
        job, position = self._job, self._state.position
        validation = validate(
            self._state.model,
            self._valid_split,
            job.settings,
            self._device,
            job.distributed,
        )
        self._write_log(validation.record())
        if self._early_stopping.update(position, validation):
            self._save(BEST)
        elif position.finished:
            stopped = {"stopped_early": job.settings.train.patience}
            self._log.write(position.step, {**stopped, "kept_step": position.best_step})

    def _write_log(self, record: Record) -> None:
        position = self._state.position
        moment = {"epoch": position.epoch, "seconds": position.seconds}
        self._log.write(position.step, {**record, **moment})

    def _stop_if(self, requested: bool) -> None:
        """Save and raise Interrupted where a stop was requested in any process."""
        job, step = self._job, self._state.position.step
        if not (requested if job.distributed is None else job.distributed.any(requested)):
            return
        self._save(f"step-{step:08d}")
        launched = job.distributed is not None and LAUNCHED in os.environ
        processes = f"--processes {job.processes} " if launched else ""
        folders = f"--data {shlex.quote(str(job.data.folder))} --out {shlex.quote(str(job.out))}"
        raise Interrupted(
            f"stopped at step {step} of {self._total_steps}, checkpoint saved",
            hint=f"continue with: hemix train --resume {processes}{folders}",
        )

    def _save(self, name: str, *, background: bool = False) -> None:
        self._step.read_results()
        snapshot = self._state.snapshot(self._job.data)
        self._writer.save(name, snapshot, background=background)


def _build_model(job: TrainingJob, device: torch.device) -> Ranker:
    """The model on its device, with first weights of the seed or of another run."""
    settings = job.settings
    model: Ranker = build_model(job.data.spec, settings.model, settings.train.seed, job.distributed)
    if job.init_from is None:
        rates = train_base_rates(job.data.split("train"), job.data.spec)
        start_at_base_rates(model, rates)
    else:
        weights = remap_embedding_rows(job.init_from, job.data, settings)
        first, last = model.tables.owned
        weights["tables.weight"] = weights["tables.weight"][first:last]
        model.load_state_dict(weights)
    model.to(device)
    if settings.train.compile:
        compile_model(model, device)
    return model


def _is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps is due; 0: never."""
    return every > 0 and step % every == 0
