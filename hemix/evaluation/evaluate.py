"""Predictions to the ``split`` part of ``metrics.json``: every metric of every task, intervals,
calibration, slices.

Knows predictions and metrics; not models, files or torch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hemix.evaluation import metrics
from hemix.evaluation.intervals import UserResamples, auc_interval, auc_standard_error
from hemix.evaluation.metrics import Absent, Array
from hemix.evaluation.predictions import Predictions, TaskRows
from hemix.evaluation.slices import slice_masks

__all__ = ["evaluate_predictions", "task_metrics"]

_FLOOR_REPETITIONS = 200
_FLOOR_REPETITIONS_OF_A_SLICE = 50


def evaluate_predictions(
    predictions: Predictions, *, seed: int = 0, replicates: int = 1000
) -> dict[str, Any]:
    """One split's entry, JSON-able: ``{"rows", "users", "requests", "tasks": {task: {...}},
    "slices": {cut: {slice: {...}}}}``.

    A task holds the metrics of design, ``calibration`` (points) and, where something is undefined,
    ``absent: {metric: reason}`` in place of the metric. With truth it also holds ``oracle_auc``,
    ``oracle_distance`` (oracle_auc - auc) and ``truth_logloss``; with popularity
    ``popularity_auc``. A slice holds ``rows`` and the same of every task, with
    ``auc_standard_error`` in place of the bootstrapped interval and without calibration points.
    """
    whole = predictions.task_rows()
    tasks = {}
    resamples = (
        UserResamples(predictions.user, count=replicates, seed=seed) if predictions.rows else None
    )
    for task in whole:
        entry = task_metrics(task, predictions, seed=seed)
        if "auc" in entry and resamples is not None:
            weights = None if (task.weights == 1).all() else task.weights
            interval = auc_interval(
                task.labels, task.probabilities, resamples.of_rows(task.rows), weights
            )
            if isinstance(interval, Absent):
                entry.setdefault("absent", {})["auc_ci95"] = interval.reason
            else:
                entry["auc_ci95"] = [interval.low, interval.high]
        entry["calibration"] = [
            dataclasses.asdict(point)
            for point in metrics.calibration_curve(task.labels, task.probabilities, task.weights)
        ]
        tasks[task.name] = entry
    return {
        "rows": predictions.rows,
        "users": int(np.unique(predictions.user).size),
        "requests": int(np.unique(predictions.request).size),
        "tasks": tasks,
        "slices": _slices(predictions, whole, seed),
    }


def task_metrics(
    task: TaskRows,
    predictions: Predictions,
    *,
    seed: int = 0,
    repetitions: int = _FLOOR_REPETITIONS,
) -> dict[str, Any]:
    """Every metric of one task's rows but the intervals.

    ``repetitions``: simulations of the ECE floor.
    """
    y, p, w = task.labels, task.probabilities, task.weights
    auc = metrics.auc(y, p, w)
    gauc, coverage = metrics.gauc(y, p, predictions.user[task.rows], w)
    found: dict[str, float | Absent] = {
        "auc": auc,
        "gauc": gauc,
        "ndcg_at_10": metrics.ndcg_at_k(y, p, predictions.request[task.rows], w, k=10),
        "logloss": metrics.logloss(y, p, w),
        "ne": metrics.ne(y, p, w),
        "pcoc": metrics.pcoc(y, p, w),
        "ece": metrics.ece(y, p, w),
        "ece_floor": metrics.ece_floor(y, p, w, seed=seed, repetitions=repetitions),
    }
    if task.truth is not None:
        oracle = metrics.auc(y, task.truth, w)
        found["oracle_auc"] = oracle
        if not isinstance(oracle, Absent) and not isinstance(auc, Absent):
            found["oracle_distance"] = oracle - auc
        found["truth_logloss"] = metrics.logloss(y, task.truth, w)
    if task.popularity is not None:
        found["popularity_auc"] = metrics.auc(y, task.popularity, w)
    absent = {name: value.reason for name, value in found.items() if isinstance(value, Absent)}
    return {
        "rows": int(y.size),
        "positives": int(y.sum()),
        **{name: value for name, value in found.items() if not isinstance(value, Absent)},
        "gauc_coverage": coverage,
        **({"absent": absent} if absent else {}),
    }


def _slices(
    predictions: Predictions, tasks: list[TaskRows], seed: int
) -> dict[str, dict[str, Any]]:
    return {
        cut: {name: _slice(mask, predictions, tasks, seed) for name, mask in slices.items()}
        for cut, slices in slice_masks(predictions).items()
    }


def _slice(
    mask: Array, predictions: Predictions, tasks: list[TaskRows], seed: int
) -> dict[str, Any]:
    entries = {}
    for task in tasks:
        part = _part(task, mask[task.rows])
        entry = task_metrics(
            part, predictions, seed=seed, repetitions=_FLOOR_REPETITIONS_OF_A_SLICE
        )
        error = auc_standard_error(
            part.labels, part.probabilities, predictions.user[part.rows], part.weights
        )
        if isinstance(error, Absent):
            entry.setdefault("absent", {})["auc_standard_error"] = error.reason
        else:
            entry["auc_standard_error"] = error
        entries[task.name] = entry
    return {"rows": int(mask.sum()), "tasks": entries}


def _part(task: TaskRows, keep: Array) -> TaskRows:
    return TaskRows(
        name=task.name,
        rows=task.rows[keep],
        labels=task.labels[keep],
        probabilities=task.probabilities[keep],
        weights=task.weights[keep],
        truth=None if task.truth is None else task.truth[keep],
        popularity=None if task.popularity is None else task.popularity[keep],
    )
