"""Boosted trees: one booster a task on the rows where its label is known, stopped early on valid.

The rows of train and valid lie in memory as fp32, 4 bytes a feature. There are no checkpoints: the
run folder is written when the trees are done, so an interrupted run leaves none. The trees are the
same for the same number of threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hemix.config import BoostingSettings
from hemix.data.sampler import SequentialSampler
from hemix.data.split import Split
from hemix.errors import DataError, SettingsError, UsageError
from hemix.evaluation.notes import Note, cut_off_note, training_notes, valid_notes
from hemix.files import storage_errors
from hemix.measure import PeakMemory
from hemix.models import build_predictor
from hemix.models.lightgbm import LightGBM, load_lightgbm
from hemix.runs import folder as run_folder
from hemix.training.calibrate import calibrate
from hemix.training.callbacks import Record
from hemix.training.checks import check_labels
from hemix.training.device import set_threads
from hemix.training.job import TrainingJob
from hemix.training.validate import Validation, validate

__all__ = ["boost"]

Array = npt.NDArray[Any]
_BATCH_IMPRESSIONS = 8192
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split as the trees see it."""

    features: Array
    """float32 [n, features]"""
    labels: Array
    """float32 [n, T]"""
    weights: Array
    """float32 [n, T]; 0 where a label is unknown"""


@dataclass(frozen=True, kw_only=True)
class _Boosted:
    """The booster of one task."""

    text: str
    trees: int
    was_cut_off: bool
    """Whether early stopping had not come to an end at the last of the rounds"""


@dataclass(frozen=True, kw_only=True)
class _Result:
    """The results of training, without the trees, which the model holds."""

    trees: dict[str, int]
    """How many, by task"""
    validation: Validation
    calibration: dict[str, dict[str, Any]] | None
    notes: list[Note]
    seconds: float
    peak_bytes: int

    @property
    def steps(self) -> int:
        """Trees of all tasks."""
        return sum(self.trees.values())


def boost(job: TrainingJob) -> None:
    """Boost trees on the train split and write the run folder.

    Args:
        job: What to train, in one process.

    Raises:
        UsageError: For a run to start from, or an unfinished run.
        SettingsError: For another device than the CPU.
        MissingExtra: Without LightGBM.
        DataError: Naming a task of which the train rows hold one class.
    """
    _check(job)
    label_notes = check_labels(job.data)
    set_threads(job.settings.train.threads)
    model = build_predictor(job.data.spec, job.settings.model)
    assert isinstance(model, LightGBM)
    job.callback.on_start(_header(job))
    _write(job, model, _train(job, model, label_notes))


def _check(job: TrainingJob) -> None:
    """Refuse what boosted trees cannot do."""
    load_lightgbm()
    if job.init_from is not None:
        reason = "lightgbm cannot start from another run's trees"
        raise UsageError(f"--init-from: {reason}", field="--init-from", hint="leave out the flag")
    if job.resume and (job.out / "log.jsonl").exists():
        reason = f"{job.out} is unfinished and lightgbm keeps no checkpoints"
        raise UsageError(
            f"--resume: {reason}",
            field="--resume",
            hint="remove it and train again without the flag",
        )
    device = job.settings.train.device
    if device != "cpu":
        raise SettingsError(
            f"train.device: lightgbm trains on the CPU, got {device}", field="train.device"
        )


def _header(job: TrainingJob) -> Record:
    boosting = job.settings.boosting
    return {
        "model": job.settings.model.name,
        "rounds": boosting.rounds,
        "leaves": boosting.leaves,
        "train_impressions": job.data.split("train").impressions,
        "steps": len(job.data.spec.tasks) * boosting.rounds,
        "threads": torch.get_num_threads(),
    }


def _train(job: TrainingJob, model: LightGBM, label_notes: list[Note]) -> _Result:
    """Grow the trees of every task, give them to the model, validate and calibrate it."""
    settings, valid = job.settings, job.data.split("valid")
    started = time.perf_counter()
    with PeakMemory() as memory:
        train_rows, valid_rows = _rows(model, job.data.split("train")), _rows(model, valid)
        tasks = range(len(model.spec.tasks))
        boosters = [_boost_task(job, model, train_rows, valid_rows, task) for task in tasks]
        model.set_trees([booster.text for booster in boosters])
        validation = validate(model, valid, settings, _CPU)
        calibrates = settings.train.calibrate
        calibration = calibrate(model, valid, settings, _CPU) if calibrates else None
    by_task = dict(zip((task.name for task in model.spec.tasks), boosters, strict=True))
    cut_off = [
        cut_off_note(task, settings.boosting.rounds)
        for task, booster in by_task.items()
        if booster.was_cut_off
    ]
    return _Result(
        trees={task: booster.trees for task, booster in by_task.items()},
        validation=validation,
        calibration=calibration,
        notes=training_notes(label_notes, [*cut_off, *valid_notes(validation.tasks)], calibration),
        seconds=time.perf_counter() - started,
        peak_bytes=memory.bytes,
    )


def _boost_task(
    job: TrainingJob,
    model: LightGBM,
    train: Rows,
    valid: Rows,
    task: int,
) -> _Boosted:
    """The booster of one task; reports every tree."""
    rounds = job.settings.boosting.rounds
    total = len(model.spec.tasks) * rounds

    def on_round(done: int) -> None:
        job.callback.on_step(task * rounds + done, total)

    booster = _booster(job, model, train, valid, task, on_round)
    on_round(rounds)
    return booster


def _write(job: TrainingJob, model: LightGBM, result: _Result) -> None:
    """Write the whole run folder and report the results to the callback."""
    validation, seconds = result.validation, result.seconds
    record: Record = {
        "step": result.steps,
        **validation.record(),
        "epoch": 0,
        "seconds": seconds,
    }
    impressions = job.data.split("train").impressions
    metrics = {
        "schema_version": 1,
        "model": job.settings.model.name,
        "dense_parameters": model.leaves(),
        "embedding_parameters": 0,
        "train_seconds": round(seconds, 3),
        "impressions_per_second": round(impressions / max(seconds, 1e-9), 1),
        "peak_bytes": result.peak_bytes,
        "steps": result.steps,
        "trees": result.trees,
        "calibration": result.calibration,
        "notes": result.notes,
        "split": {},
    }
    with storage_errors(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
        (job.out / "log.jsonl").write_text(json.dumps(record) + "\n")
        run_folder.begin(job.out, job.settings, job.data)
        run_folder.finish(job.out, model, job.data, metrics)
    job.callback.on_record(record)
    if result.notes:
        job.callback.on_record({"step": result.steps, "notes": result.notes})


def _rows(model: LightGBM, split: Split) -> Rows:
    """Read a whole split."""
    count, tasks = split.impressions, len(model.spec.tasks)
    features = np.empty((count, len(model.features)), dtype=np.float32)
    labels, weights = (np.empty((count, tasks), dtype=np.float32) for _ in range(2))
    first = 0
    for batch in split.batches(SequentialSampler(split, _BATCH_IMPRESSIONS)):
        assert batch.labels is not None and batch.weights is not None
        here = slice(first, first + batch.candidates_count)
        features[here] = model.rows(batch).numpy()
        labels[here], weights[here] = batch.labels.numpy(), batch.weights.numpy()
        first = here.stop
    return Rows(features=features, labels=labels, weights=weights)


def _with_mean_one(weights: Array) -> Array:
    """Scale weights to mean one, so that LightGBM's least sum of Hessians means the same."""
    if not weights.size:
        return weights
    scaled: Array = (weights / weights.mean(dtype=np.float64)).astype(np.float32)
    return scaled


def _booster(
    job: TrainingJob,
    model: LightGBM,
    train: Rows,
    valid: Rows,
    task: int,
    on_round: Callable[[int], None],
) -> _Boosted:
    """Train one booster.

    Args:
        job: Settings, and the dataset's folder for messages.
        model: Names the features and the tasks.
        train: Rows to learn from.
        valid: Rows to stop by.
        task: Position of the task.
        on_round: Called with how many trees there are, after each.

    Returns:
        The booster, as good as it was on valid.

    Raises:
        DataError: Where train's known labels are of one class.
    """
    lightgbm = load_lightgbm()
    counted, valid_counted = (_counted(job, model, rows, task) for rows in (train, valid))
    _refuse_one_class(job, model, train, counted, task)
    boosting = job.settings.boosting
    done = 0

    def count(state: Any) -> None:
        nonlocal done
        done = state.iteration + 1
        on_round(done)

    callbacks: list[Callable[[Any], None]] = [count]
    matrix = _matrix(model, train, counted, task)
    has_valid = bool(valid_counted.any())
    stops_early = has_valid and boosting.patience > 0
    if stops_early:
        callbacks.append(lightgbm.early_stopping(boosting.patience, verbose=False))
    booster = lightgbm.train(
        _parameters(boosting, job.settings.train.seed),
        matrix,
        num_boost_round=boosting.rounds,
        valid_sets=[_matrix(model, valid, valid_counted, task, matrix)] if has_valid else None,
        callbacks=callbacks,
    )
    trees = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
    return _Boosted(
        text=booster.model_to_string(num_iteration=trees),
        trees=trees,
        was_cut_off=stops_early and done == boosting.rounds < trees + boosting.patience,
    )


def _refuse_one_class(
    job: TrainingJob, model: LightGBM, train: Rows, counted: Array, task: int
) -> None:
    """Raise DataError where train's known labels are of one class."""
    positives, known = int(train.labels[counted, task].sum()), int(counted.sum())
    if positives in (0, known):
        name = model.spec.tasks[task].name
        rows = f"the {known} train rows that lightgbm would learn it from"
        counts = f"{positives} positives of {name} among {rows}"
        raise DataError(
            f"{job.data.folder}: {counts}: nothing can be learned from one class",
            code="one_class",
            field=f"labels.{name}",
        )


def _counted(job: TrainingJob, model: LightGBM, rows: Rows, task: int) -> Array:
    """bool [n]: rows with a known label, under ``given_only`` positives of the given task only."""
    counted: Array = rows.weights[:, task] > 0
    given = model.spec.tasks[task].given
    if given is None or job.settings.model.funnel != "given_only":
        return counted
    return counted & (rows.labels[:, given] > 0) & (rows.weights[:, given] > 0)


def _matrix(model: LightGBM, rows: Rows, counted: Array, task: int, reference: Any = None) -> Any:
    """The counted rows as LightGBM's Dataset; ``reference`` gives the bins of the features."""
    categorical = [at for at, (_, category) in enumerate(model.features) if category]
    return load_lightgbm().Dataset(
        rows.features if counted.all() else rows.features[counted],
        label=rows.labels[counted, task],
        weight=_with_mean_one(rows.weights[counted, task]),
        categorical_feature=categorical,
        reference=reference,
        free_raw_data=True,
    )


def _parameters(boosting: BoostingSettings, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "learning_rate": boosting.learning_rate,
        "num_leaves": boosting.leaves,
        "min_data_in_leaf": boosting.min_data_in_leaf,
        "feature_fraction": boosting.feature_share,
        "seed": seed % 2**31,  # LightGBM's are int32
        "num_threads": torch.get_num_threads(),
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
