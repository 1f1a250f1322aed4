"""Training of the boosted trees: one booster a task on the rows where its label is known, stopped early on valid.

The rows of train and valid lie in memory as fp32, 4 bytes a feature. There are no checkpoints: a run folder is written when the trees
are done, so an interrupted run leaves none. Deterministic for a number of threads. Knows what a row is from the model alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hemix.data.dataset import Dataset, Split
from hemix.errors import DataError, SettingsError, UsageError
from hemix.evaluation.notes import training_notes, valid_notes
from hemix.files import storage_errors
from hemix.measure import PeakMemory
from hemix.models import build_predictor
from hemix.models.lightgbm import LightGBM, load_lightgbm
from hemix.run import folder as run_folder
from hemix.run.folder import Run
from hemix.settings import Settings
from hemix.training.calibrate import calibrate
from hemix.training.checks import check_labels
from hemix.training.validate import validated

__all__ = ["boost"]

Array = npt.NDArray[Any]
Record = dict[str, Any]
_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split as the trees see it."""

    features: Array
    """float32 [n, features]"""
    labels: Array
    """float32 [n, T]"""
    weights: Array
    """float32 [n, T]; 0 where a label is unknown"""


def boost(
    data: Dataset,
    out: Path,
    settings: Settings,
    *,
    resume: bool = False,
    start_from: Run | None = None,
    on_start: Callable[[Record], None] = lambda _: None,
    on_record: Callable[[Record], None] = lambda _: None,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Boost trees on ``data``'s train split into the run folder ``out``; returns it. See :func:`hemix.training.loop.train`.

    Raises UsageError for ``start_from`` and for an unfinished run, MissingExtra without LightGBM, DataError naming a task that has one
    class only.
    """
    options = settings.train
    load_lightgbm()
    if start_from is not None:
        raise UsageError("--from: lightgbm cannot go on from another run's trees; leave the flag away")
    if resume and out.exists() and (out / "log.jsonl").exists():
        raise UsageError(
            f"--resume: {out} is unfinished and lightgbm keeps no checkpoints; remove it and train again without the flag"
        )
    if options.device != "cpu":
        raise SettingsError(f"train.device: lightgbm trains on the CPU, got {options.device}")
    label_notes = check_labels(data)
    torch.set_num_threads(options.threads or int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
    model = build_predictor(data.spec, settings.model)
    assert isinstance(model, LightGBM)
    train, valid = data.split("train"), data.split("valid")
    tasks = [task.name for task in data.spec.tasks]
    total = len(tasks) * settings.boosting.rounds
    header = {
        "model": settings.model.name,
        "rounds": settings.boosting.rounds,
        "leaves": settings.boosting.leaves,
        "train_impressions": train.impressions,
        "steps": total,
        "threads": torch.get_num_threads(),
    }
    on_start(header)
    started = time.perf_counter()
    with PeakMemory() as memory:
        rows, held_out = _rows(model, train), _rows(model, valid)
        texts, kept = list[str](), list[int]()
        for task in range(len(tasks)):

            def tell(done: int, before: int = task * settings.boosting.rounds) -> None:
                on_step(before + done, total)

            text, best = _booster(model, settings, data, rows, held_out, task, tell)
            texts.append(text)
            kept.append(best)
            on_step((task + 1) * settings.boosting.rounds, total)
        model.set_trees(texts)
        found = validated(model, valid, settings, torch.device("cpu"))
        lines = calibrate(model, valid, settings, torch.device("cpu")) if options.calibrate else None
    seconds = time.perf_counter() - started
    notes = training_notes(label_notes, valid_notes(found.tasks), lines)
    record: Record = {"step": sum(kept), **found.record(), "epoch": 0, "seconds": seconds}
    metrics = {
        "schema_version": 1,
        "model": settings.model.name,
        "dense_parameters": model.leaves(),
        "embedding_parameters": 0,
        "train_seconds": round(seconds, 3),
        "impressions_per_second": round(train.impressions / max(seconds, 1e-9), 1),
        "peak_bytes": memory.bytes,
        "steps": sum(kept),
        "trees": dict(zip(tasks, kept, strict=True)),
        "calibration": lines,
        "notes": notes,
        "split": {},
    }
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "log.jsonl").write_text(json.dumps(record) + "\n")
        run_folder.begin(out, settings, data)
        run_folder.finish(out, model, data, metrics)
    on_record(record)
    if notes:
        on_record({"step": sum(kept), "notes": notes})
    return out


def _rows(model: LightGBM, split: Split) -> Rows:
    count, tasks = split.impressions, len(model.spec.tasks)
    features = np.empty((count, len(model.features)), dtype=np.float32)
    labels, weights = (np.empty((count, tasks), dtype=np.float32) for _ in range(2))
    first = 0
    for batch in split.batches(split.plan(_AT_ONCE)):
        assert batch.labels is not None and batch.weights is not None
        here = slice(first, first + batch.candidates_count)
        features[here], labels[here], weights[here] = model.rows(batch).numpy(), batch.labels.numpy(), batch.weights.numpy()
        first = here.stop
    return Rows(features=features, labels=labels, weights=weights)


def _of_mean_one(weights: Array) -> Array:
    """The same weights, of mean one: LightGBM's least sum of a leaf's Hessians would else depend on their scale."""
    return (weights / weights.mean(dtype=np.float64)).astype(np.float32) if weights.size else weights


def _booster(
    model: LightGBM, settings: Settings, data: Dataset, train: Rows, valid: Rows, task: int, tell: Callable[[int], None]
) -> tuple[str, int]:
    """(the booster's text, how many trees it has). Raises DataError where train's known labels are of one class."""
    lightgbm = load_lightgbm()
    names = model.features
    given = model.spec.tasks[task].given if settings.model.funnel == "given_only" else None

    def known(rows: Rows) -> Array:
        here = rows.weights[:, task] > 0
        return here if given is None else here & (rows.labels[:, given] > 0) & (rows.weights[:, given] > 0)

    def dataset(rows: Rows, here: Array, reference: Any = None) -> Any:
        return lightgbm.Dataset(
            rows.features if here.all() else rows.features[here],
            label=rows.labels[here, task],
            weight=_of_mean_one(rows.weights[here, task]),
            categorical_feature=[at for at, (_, category) in enumerate(names) if category],
            reference=reference,
            free_raw_data=True,
        )

    here, held_out = known(train), known(valid)
    positives = int(train.labels[here, task].sum())
    if positives in (0, int(here.sum())):
        raise DataError(f"{data.folder}: {positives} positives of {model.spec.tasks[task].name} among the {int(here.sum())} train rows "
                        "that lightgbm would learn it from: nothing can be learned from one class")  # fmt: skip
    options, boosting = settings.train, settings.boosting
    parameters = {
        "objective": "binary",
        "metric": "binary_logloss",
        "learning_rate": boosting.learning_rate,
        "num_leaves": boosting.leaves,
        "min_data_in_leaf": boosting.min_data_in_leaf,
        "feature_fraction": boosting.feature_share,
        "seed": options.seed % 2**31,  # LightGBM's are int32
        "num_threads": torch.get_num_threads(),
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    callbacks: list[Callable[[Any], None]] = [lambda state: tell(state.iteration + 1)]
    matrix = dataset(train, here)
    judged = bool(held_out.any())
    if judged and boosting.patience > 0:
        callbacks.append(lightgbm.early_stopping(boosting.patience, verbose=False))
    booster = lightgbm.train(
        parameters,
        matrix,
        num_boost_round=boosting.rounds,
        valid_sets=[dataset(valid, held_out, matrix)] if judged else None,
        callbacks=callbacks,
    )
    best = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
    return booster.model_to_string(num_iteration=best), best
