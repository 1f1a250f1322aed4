"""Evaluate a run on a split: score it, measure it, merge the figures into metrics.json and write
the report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.dataset import Dataset, Plan, Split
from hemix.data.layout import load_array
from hemix.data.spec import InputSpec
from hemix.errors import StorageError
from hemix.evaluation.evaluate import evaluate_predictions
from hemix.evaluation.importance import permutation_importance
from hemix.evaluation.metrics import UndefinedMetric, auc
from hemix.evaluation.notes import evaluation_notes
from hemix.evaluation.predictions import Predictions
from hemix.evaluation.report import write_report
from hemix.runs.folder import METRICS_FILE, METRICS_FORMAT, Run, check_same_schema
from hemix.runs.scoring import (
    SCORING_IMPRESSIONS,
    BatchChange,
    permute_feature,
    score_split,
    without_history,
)

__all__ = ["evaluate_run", "full_log_weights", "predictions_of"]

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]

_SMOOTHING_IMPRESSIONS = 20.0
"""Popularity is an item's train rate, smoothed by so many impressions of the average."""


def evaluate_run(
    run: Run,
    data: Dataset,
    split: str = "test",
    *,
    importance_impressions: int = 8_000,
    seed: int = 0,
    on_progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Metrics of ``run`` on a split of ``data``; merges them into RUN/metrics.json, rewrites
    RUN/report.html, returns the split's.

    ``importance_impressions``: how many impressions permutation importance is measured on; 0 leaves
    it out. Raises RunError where the dataset has another schema, StorageError, before anything is
    measured, where the run folder cannot be written.
    """
    check_same_schema(run, data)
    if not os.access(run.folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"{run.folder}: permission denied: evaluation writes {METRICS_FILE} and report.html "
            "there; "
            "evaluate a copy of the run"
        )
    part = data.split(split)
    predictions = predictions_of(run, data, part, on_progress=on_progress)
    figures = evaluate_predictions(predictions, seed=seed)
    figures["notes"] = evaluation_notes(
        predictions.task_rows(), figures["tasks"], predictions.user, split
    )
    importance = _importance(run, part, importance_impressions, seed, on_progress)
    figures["importance"] = [] if isinstance(importance, UndefinedMetric) else importance
    if isinstance(importance, UndefinedMetric):
        figures["absent"] = {"importance": importance.reason}
    metrics = run.metrics
    metrics["split"][split] = figures
    METRICS_FORMAT.write(run.folder / METRICS_FILE, metrics)
    write_report(
        run.folder / "report.html",
        metrics=metrics,
        log=_log(run.folder),
        settings=run.settings.model_dump(mode="json"),
        manifest=data.manifest,
        info={
            key: value
            for key, value in run.info.items()
            if key in ("hemix", "torch", "fingerprint")
        },
    )
    return figures


def predictions_of(
    run: Run, data: Dataset, part: Split, *, on_progress: Progress = lambda *_: None
) -> Predictions:
    """Every impression of a split, scored at its logged position, with labels, truth and popularity
    beside it.
    """
    tasks, outputs = run.schema.tasks, run.schema.outputs
    scores = {name: np.empty(part.impressions) for name in outputs}
    lengths = np.zeros((part.impressions, 2), dtype=np.int64)
    for scored in score_split(
        run, part, on_progress=lambda n: on_progress("score", n / part.impressions)
    ):
        for name, values in scored.outputs.items():
            scores[name][scored.impression_index] = values
        lengths[scored.impression_index, 0] = scored.global_length + scored.realtime_length
        lengths[scored.impression_index, 1] = scored.realtime_length
    rows = np.arange(part.impressions)
    labels = part.labels[rows].astype(np.float64)
    request = part.request_of
    user = part.user[request]
    item = load_array(data.folder / "items" / "number.npy")[part.item_row[rows]]
    item_impressions = load_array(data.folder / "items" / "train_impressions.npy")
    user_impressions = load_array(data.folder / "users" / "train_impressions.npy")
    conditional = np.stack(
        [scores[name if not g else f"{name}_given_{g}"] for name, g in _given(run)], axis=1
    )
    return Predictions(
        tasks=tasks,
        given=tuple(task.given for task in run.spec.tasks),
        probabilities=np.stack([scores[name] for name in tasks], axis=1),
        conditional=conditional,
        labels=labels,
        weights=full_log_weights(run.spec, labels, part.weight[rows].astype(np.float64)),
        user=user,
        request=request,
        truth=_truth(data, part),
        popularity=_popularity(data, item)
        if part.name != "train"
        else None,  # it counts the labels of train
        history_length=lengths[:, 0],
        realtime_length=lengths[:, 1],
        user_seen_in_train=user_impressions[user] > 0,
        item_seen_in_train=_at(item_impressions, item) > 0,
    )


def _given(run: Run) -> list[tuple[str, str | None]]:
    return [(name, label.given) for name, label in run.schema.labels.items()]


def full_log_weights(spec: InputSpec, labels: Array, weight: Array) -> Array:
    """Row weights that stand for the full log: a kept negative counts for all that were dropped."""
    return np.where(labels[:, 0] == 0, weight * np.exp(-spec.logit_shift[0]), weight)


def _at(values: Array, number: Array) -> Array:
    """``values[number]``, zeros for the unknown item (-1)."""
    found = values[np.maximum(number, 0)]
    found[number < 0] = 0
    return found


def _popularity(data: Dataset, item: Array) -> Array:
    shown = load_array(data.folder / "items" / "train_known.npy")
    positives = load_array(data.folder / "items" / "train_positives.npy")
    mean = positives.sum(0) / np.maximum(shown.sum(0), 1.0)
    rate: Array = (_at(positives, item) + _SMOOTHING_IMPRESSIONS * mean) / (
        _at(shown, item) + _SMOOTHING_IMPRESSIONS
    )
    return rate


def _truth(data: Dataset, part: Split) -> Array | None:
    files = sorted((data.folder / "truth" / part.name).glob("*.npy"))
    return np.concatenate([load_array(file) for file in files]) if files else None


def _importance(
    run: Run, part: Split, impressions: int, seed: int, on_progress: Progress
) -> list[dict[str, Any]] | UndefinedMetric:
    if impressions == 0:
        return []
    whole = part.plan(min(SCORING_IMPRESSIONS, impressions), order="shuffled", seed=seed)
    batches = max(1, min(len(whole), impressions // SCORING_IMPRESSIONS))
    plan = Plan(order=whole.order, begin=whole.begin[: batches + 1])

    def score(change: BatchChange | None) -> tuple[Array, Array]:
        done = [
            (s.impression_index, s.outputs[run.schema.tasks[0]])
            for s in score_split(run, part, plan=plan, change=change)
        ]
        return np.concatenate([rows for rows, _ in done]), np.concatenate(
            [values for _, values in done]
        )

    features: dict[str, Callable[[int], BatchChange]] = {
        "history: global": lambda _: without_history(run, "global"),
        "history: real time": lambda _: without_history(run, "realtime"),
    }
    schema = run.schema
    numbers = [(schema.statistic_level(name), name) for name in schema.statistics]
    counts = [("context", "history")] if schema.history.counts else []
    for level, name in (*((level, name) for level, name, _ in schema.features), *numbers, *counts):
        features[f"{level}.{name}"] = lambda s, level=level, name=name: permute_feature(
            run, level, name, s
        )  # type: ignore[misc]
    rows, baseline = score(None)
    labels = part.labels[rows]
    weights = full_log_weights(
        run.spec, labels.astype(np.float64), part.weight[rows].astype(np.float64)
    )
    labels = labels[:, 0]
    known = labels >= 0
    undefined = auc(labels[known], baseline[known], weights[known])
    if isinstance(undefined, UndefinedMetric):
        return undefined
    asked = 0

    def scorer(feature: str, rng: np.random.Generator) -> Array:
        nonlocal asked
        on_progress("importance", asked / len(features))
        asked += 1
        return score(features[feature](int(rng.integers(2**31))))[1][known]

    return permutation_importance(
        scorer,
        list(features),
        labels[known],
        baseline[known],
        weights[known],
        repetitions=1,
        seed=seed,
    )


def _log(folder: Path) -> list[dict[str, Any]]:
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
