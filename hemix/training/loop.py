"""The training loop: one plain pass over the plans of the epochs.

It owns no model code and no data code. A step is: batch; logits, loss and backward of each of its parts; both optimisers. Everything
that the next step depends on (weights, optimisers, position in the data) goes into a checkpoint; random numbers come from the seed, the
step and the part alone.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from hemix.config import Settings
from hemix.data.batch import RequestBatch
from hemix.data.dataset import Dataset, Plan, Replacement
from hemix.data.unshared import unshared
from hemix.errors import HemixError, RunError, SettingsError, UsageError
from hemix.evaluation.notes import training_notes, valid_notes
from hemix.files import link_target, storage_errors
from hemix.measure import PeakMemory, keep_freed_memory
from hemix.models import LightGBM, Ranker, build_model, count_parameters, model_class
from hemix.run import folder as run_folder
from hemix.run.folder import INFO_FILE, Run
from hemix.run.weights import dense_of
from hemix.team import Team
from hemix.training.boosting import boost
from hemix.training.calibrate import calibrate
from hemix.training.checkpoint import BEST, WEIGHT, Checkpoint, Checkpoints
from hemix.training.checks import check_labels, check_memory, check_out
from hemix.training.launch import LAUNCHED
from hemix.training.meters import Meters
from hemix.training.optimizers import Optimizers
from hemix.training.origin import first_run, keep_origin
from hemix.training.parts import check_parts, micro_batches, own_parts
from hemix.training.position import Position
from hemix.training.start import agree, check_fits, identity, in_first, part_seed, together
from hemix.training.validate import autocast, validate, validated
from hemix.training.warm_start import carried_weights, progressive
from hemix.training.writer import Writer

__all__ = ["Interrupted", "Record", "train", "validate"]

Record = dict[str, Any]
"""One line of log.jsonl; and, after the last one, the ``notes`` that metrics.json keeps."""


class Interrupted(HemixError):
    """Training was asked to stop and did, after saving a checkpoint."""


def train(
    data: Dataset,
    out: str | Path,
    settings: Settings,
    *,
    resume: bool = False,
    start_from: Run | None = None,
    team: Team | None = None,
    on_start: Callable[[Record], None] = lambda _: None,
    on_record: Callable[[Record], None] = lambda _: None,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Train a model on ``data``'s train split into the run folder ``out``; returns it.

    Of a ``team`` every process calls this with the same arguments; each holds some of the tables' rows and works on its users of every
    batch, the batches, losses and files are those of one process, and only the first one's callbacks are called.

    With ``resume`` an interrupted run goes on exactly (its own settings count), a finished one is left as it is, and without a
    complete checkpoint it starts afresh, from the first weights that it began with. ``start_from`` gives those. Raises UsageError (while
    another process trains into ``out``, too), RunError, StorageError; Interrupted after Ctrl-C or SIGTERM, when the checkpoint is saved.
    """
    out = link_target(out)
    if team is not None:
        agree(team, data, out, settings, resume=resume, start_from=start_from)
        if not team.first:
            on_start, on_record, on_step = (lambda _: None), (lambda _: None), (lambda *_: None)
    if resume and (out / INFO_FILE).exists():
        return out
    with Writer(out) as writer:
        return _train(data, out, settings, resume, start_from, team, writer, on_start, on_record, on_step)


def _train(
    data: Dataset,
    out: Path,
    settings: Settings,
    resume: bool,
    start_from: Run | None,
    team: Team | None,
    writer: Writer,
    on_start: Callable[[Record], None],
    on_record: Callable[[Record], None],
    on_step: Callable[[int, int], None],
) -> Path:
    def check() -> None:
        check_out(out, resume=resume)
        if (out / "log.jsonl").exists():
            with storage_errors(out):
                writer.take()

    in_first(team, check, f"begin {out}")
    saves_beside = settings.train.save_in_background and settings.train.checkpoint_every_steps > 0
    beside = team.beside() if team is not None and saves_beside else None  # now, while all are known to be here
    if issubclass(model_class(settings.model.name), LightGBM):
        if team is not None:
            raise UsageError("--processes: lightgbm trains in one process, with train.threads")
        return boost(
            data, out, settings, resume=resume, start_from=start_from, on_start=on_start, on_record=on_record, on_step=on_step
        )
    check_memory(data.spec, settings, team.size if team else 1)
    check_parts(settings, team)
    checkpoints = Checkpoints(out, settings.train.keep_checkpoints)
    checkpoint = checkpoints.latest(lambda found: check_fits(found, data)) if resume else None
    half_written = checkpoints.half_written() if resume else []
    if team is not None:
        chosen = (None, None) if checkpoint is None else (checkpoint.folder.name, checkpoint.digest)
        team.same({"checkpoints": dict(zip(("the newest complete one", "its state.json"), chosen, strict=True))})
    if resume:
        start_from = first_run(out, start_from, has_checkpoint=checkpoint is not None)
    loop = _Loop(data, out, settings, start_from=start_from, team=team, beside=beside, on_record=on_record, on_step=on_step)

    def begin() -> None:
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            writer.take()
            (out / "log.jsonl").write_text("")
            keep_origin(out, start_from)
            run_folder.begin(out, settings, data)

    if checkpoint is None:
        in_first(team, begin, f"begin {out}")
    else:
        together(team, lambda: loop.restore(checkpoint), f"read {checkpoint.folder}")
    on_start({**loop.header(), "nothing_to_resume": resume and checkpoint is None, "half_written": half_written})
    try:
        with storage_errors(out), PeakMemory() as memory:
            loop.run()
            loop.finish(memory)
    finally:
        loop.close()
    return out


class _Loop:
    def __init__(
        self,
        data: Dataset,
        out: Path,
        settings: Settings,
        *,
        start_from: Run | None,
        team: Team | None,
        beside: Team | None,
        on_record: Callable[[Record], None],
        on_step: Callable[[int, int], None],
    ) -> None:
        self.data, self.out, self.settings = data, out, settings
        self.on_record, self.on_step = on_record, on_step
        options = settings.train
        self.team = team
        self.device = team.device if team else _device(options.device)
        keep_freed_memory()
        torch.set_num_threads(options.threads or int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
        self.train_split, self.valid_split = data.split("train"), data.split("valid")
        self._label_notes = check_labels(data)
        self.model: Ranker = build_model(data.spec, settings.model, options.seed, team)
        if start_from is not None:
            self._take_weights(carried_weights(start_from, data, settings))
        self.model.to(self.device)
        self._warm = start_from is not None
        if options.compile:
            _compile(self.model, self.device)
        self.total_steps = options.epochs * len(self._plan(0))
        self.optimizers = Optimizers(self.model, options, self.total_steps, team)
        self.meters = Meters()
        self.position = Position()
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="hemix-checkpoint")
        self._saving: Future[None] | None = None
        self._beside = beside
        self._parts = micro_batches(settings, team)
        self._unread: list[_Unread] = []
        self._speaks = team is None or team.first
        self.checkpoints = Checkpoints(out, options.keep_checkpoints)
        self.board = _board(out) if options.tensorboard and self._speaks else None
        self._keeps_best = options.patience > 0 and (options.epochs > 1 or options.evaluate_every_steps > 0)

    # -- the steps ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        options, position = self.settings.train, self.position
        if self._warm and position.step == 0:
            position.progressive = progressive(self.model, self.train_split, self.settings, self.device, self.team)
            self._log({"progressive": position.progressive})
        started = time.perf_counter() - position.seconds
        with _stop_signals() as asked_to_stop:
            while position.epoch < options.epochs and not self.position.finished:
                plan = self._plan(position.epoch)
                replacement = Replacement(rate=options.unknown_rate, seed=(options.seed, position.epoch))
                self.model.train()
                workers = options.loader_workers
                for batch in self.train_split.batches(plan, first=position.batch, replacement=replacement, workers=workers):
                    self._step(batch)
                    position.impressions += batch.candidates_count
                    position.batch += 1
                    position.seconds = time.perf_counter() - started
                    ends = position.batch == len(plan)
                    if position.step % options.log_every_steps == 0 or ends:
                        self._read_steps()
                        self._log({**self.meters.record(), "epoch": position.epoch, "seconds": position.seconds})
                    if ends or (options.evaluate_every_steps and position.step % options.evaluate_every_steps == 0):
                        with self.optimizers.averaged():
                            self._validate()
                        self.model.train()
                        position.seconds = time.perf_counter() - started
                    if ends:
                        position.epoch, position.batch = position.epoch + 1, 0
                    every = options.checkpoint_every_steps
                    if asked_to_stop() if self.team is None else self.team.any(asked_to_stop()):
                        self._save(f"step-{position.step:08d}")
                        started_by_us = f"--processes {self.team.size} " if self.team and LAUNCHED in os.environ else ""
                        raise Interrupted(f"stopped at step {position.step} of {self.total_steps}, checkpoint saved; go on with: "
                                          f"hemix train --resume {started_by_us}--data {self.data.folder} --out {self.out}")  # fmt: skip
                    if position.finished:
                        return
                    if every and position.step % every == 0:
                        self._save(f"step-{position.step:08d}", background=True)

    def _plan(self, epoch: int) -> Plan:
        options = self.settings.train
        order = "shuffled" if options.shuffle == "requests" else options.shuffle
        return self.train_split.plan(options.batch_impressions, order=order, seed=options.seed, epoch=epoch)

    def _step(self, whole: RequestBatch) -> None:
        options, seen = self.settings.train, _Unread(self.position.step)
        weight = self.model.loss_weight(whole) if self._parts > 1 else None
        for number, part, _ in own_parts(whole, self._parts, self.team):
            torch.manual_seed(part_seed(options.seed, self.position.step, number))
            batch = replace(part if options.share else unshared(part), loss_weight=weight).to(self.device)
            with autocast(self.device, options.precision):
                logits = self.model(batch)
            loss = self.model.loss(logits.float(), batch)
            loss.backward()  # type: ignore[no-untyped-call]
            if self._parts > 1:
                self.model.tables.keep_part()
            seen.add(loss.detach(), logits[:, 0].detach(), part)
        self._unread.append(seen)
        if self.device.type == "cpu":
            self._read_steps()
        self.optimizers.step(self.position.step)
        self.position.step += 1
        self.on_step(self.position.step, self.total_steps)

    def _read_steps(self) -> None:
        """Look at the losses and logits of the steps since the last call: a device would have to be waited for in each step."""
        steps, self._unread = self._unread, []
        for step in steps:
            loss, seen = sum(step.losses[1:], step.losses[0]), step.seen()
            if self.team is not None:
                loss = self.team.sum(loss.clone())
                seen = torch.cat(self.team.gathered(seen.to(self.device))).cpu()
            value = float(loss)
            if value != value or value in (float("inf"), float("-inf")):
                raise RunError(
                    f"the loss is {value} at step {step.number}: lower train.dense_learning_rate or train.table_learning_rate"
                )
            self.meters.add(value, *seen.unbind(1))

    def _validate(self) -> None:
        position, options = self.position, self.settings.train
        found = validated(self.model, self.valid_split, self.settings, self.device, self.team)
        self._log({**found.record(), "epoch": position.epoch, "seconds": position.seconds})
        if not self._keeps_best or found.loss is None:  # nothing to choose by: the last weights are kept
            position.valid_notes = valid_notes(found.tasks)
            return
        if position.best_valid_loss is None or found.loss < position.best_valid_loss:
            position.best_valid_loss, position.evaluations_without_gain = found.loss, 0
            position.best_step, position.valid_notes = position.step, valid_notes(found.tasks)
            self._save(BEST)
        else:
            position.evaluations_without_gain += 1
            position.finished = position.evaluations_without_gain >= options.patience
            if position.finished:
                self._log({"stopped_early": options.patience, "kept_step": position.best_step})

    # -- what surrounds them ----------------------------------------------------------------------------------------------

    def header(self) -> Record:
        dense, embedding = count_parameters(self.data.spec, self.settings.model)
        return {
            "model": self.settings.model.name,
            "size": self.settings.model.size,
            "dense_parameters": dense,
            "embedding_parameters": embedding,
            "train_impressions": self.train_split.impressions,
            "steps": self.total_steps,
            "resumed_at": self.position.step,
            "device": str(self.device),
            "processes": self.team.size if self.team else 1,
            "micro_batches": self._parts,
            "tables": self.optimizers.tables,
            "threads": torch.get_num_threads(),
            "precision": self.settings.train.precision,
        }

    def _log(self, record: Record) -> None:
        if not self._speaks:
            return
        record = {"step": self.position.step, **record}
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.board is not None:
            for key, value in record.items():
                if key not in ("step", "epoch") and isinstance(value, int | float):
                    self.board.add_scalar(key, value, self.position.step)
        self.on_record(record)

    def _save(self, name: str, *, background: bool = False) -> None:
        self._read_steps()
        schema = self.data.schema.model_dump(mode="json")
        state = {"position": asdict(self.position), "data": identity(self.data), "schema": schema}
        tensors = {**self.optimizers.tensors(), **self.meters.tensors()}
        rows = {WEIGHT: self.model.tables.weight, **self.optimizers.row_tensors()}
        dense, total = dense_of(self.model), self.model.tables.rows
        self._wait_for_saving()
        if not (self.settings.train.save_in_background and background):
            self.checkpoints.save(name, dense, rows, tensors, state, total, self.team)
            return
        dense, rows, tensors = (
            {key: tensor.detach().cpu().clone() for key, tensor in part.items()}
            for part in ((dense, rows, tensors) if self._speaks else ({}, rows, {}))
        )
        self._saving = self._saver.submit(self.checkpoints.save, name, dense, rows, tensors, state, total, self._beside)

    def _wait_for_saving(self) -> None:
        """Until the last checkpoint is written. Raises what went wrong there."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Until nothing of this run is being written any more."""
        self._saver.shutdown()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from there. Raises RunError naming what is damaged and which checkpoint may be used instead."""
        with self.checkpoints.offering_another(checkpoint.folder, lambda found: check_fits(found, self.data)):
            checkpoint.load_model(self.model)
            tensors, rows = checkpoint.load_optimizer(), self.optimizers.row_tensors()
            checkpoint.load_rows(rows, *self.model.tables.owned)
            self.position = Position(**checkpoint.state["position"])
        self.optimizers.load({**tensors, **rows})
        self.meters.load(tensors)
        if not self._speaks:
            return
        log = self.out / "log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        kept = [line for line in lines if _step_of(line) <= self.position.step]
        log.write_text("".join(line + "\n" for line in kept))

    def finish(self, memory: PeakMemory) -> None:
        self._wait_for_saving()
        best = self.checkpoints.best() if self._keeps_best else None
        if best is not None:
            best.load_model(self.model)
        else:
            self.optimizers.keep_average()
        position = self.position
        dense, embedding = count_parameters(self.data.spec, self.settings.model)
        lines = None
        if self.settings.train.calibrate:
            lines = calibrate(self.model, self.valid_split, self.settings, self.device, self.team)
        notes = training_notes(self._label_notes, position.valid_notes, lines)
        if notes:
            self.on_record({"step": position.step, "notes": notes})
        metrics = {
            "schema_version": 1,
            "model": self.settings.model.name,
            "dense_parameters": dense,
            "embedding_parameters": embedding,
            "train_seconds": round(position.seconds, 3),
            "impressions_per_second": round(position.impressions / max(position.seconds, 1e-9), 1),
            "peak_bytes": memory.so_far(),
            "steps": position.step,
            "calibration": lines,
            "notes": notes,
            **({} if position.progressive is None else {"progressive": position.progressive}),
            "split": {},
        }
        run_folder.finish(self.out, self.model, self.data, metrics)
        if self._speaks:
            self.checkpoints.remove()

    def _take_weights(self, state: dict[str, Tensor]) -> None:
        """Weights of a whole model, of the tables this process's rows."""
        first, last = self.model.tables.owned
        self.model.load_state_dict({**state, "tables.weight": state["tables.weight"][first:last]})


class _Unread:
    """What a step's parts gave, on their device until somebody looks."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.losses: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._known: list[Tensor] = []

    def add(self, loss: Tensor, logits: Tensor, part: RequestBatch) -> None:
        """The first task's ``logits`` [n] of a part in the host's memory, and its share of the loss."""
        assert part.labels is not None and part.weights is not None
        self.losses.append(loss)
        self._logits.append(logits)
        self._known.append(torch.stack([part.labels[:, 0].float(), part.weights[:, 0].float()], 1))

    def seen(self) -> Tensor:
        """Logit, label and weight [n, 3] of the first task, in the host's memory."""
        return torch.cat([torch.cat(self._logits).cpu().float().unsqueeze(1), torch.cat(self._known)], 1)


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 2**62  # a line cut off by a kill


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"train.device: {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _compile(model: Ranker, device: torch.device) -> None:
    """Raises SettingsError where the machine lacks what torch.compile needs, before any step."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # every backend has errors of its own
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SettingsError(f"train.compile: torch.compile does not work on this machine: {reason.strip()}") from error
    for part in model.compilable():
        part.compile(dynamic=True)


def _board(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError("train.tensorboard: needs the package tensorboard, which is not installed: "
                            "pip install 'hemix[dev]'") from error  # fmt: skip
    return SummaryWriter(str(out / "tensorboard"))


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM end the run after the step in progress; further ones change nothing, so that the checkpoint is saved."""
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
