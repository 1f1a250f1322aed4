"""From predictions to a split's entry of ``metrics.json``: every metric of every task, intervals,
calibration, slices.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hemix.evaluation import metrics
from hemix.evaluation.intervals import auc_interval, auc_standard_error
from hemix.evaluation.metrics import Array, RankedLists, UndefinedMetric
from hemix.evaluation.predictions import Predictions, TaskRows
from hemix.evaluation.resampling import UserResamples
from hemix.evaluation.slices import slice_masks

__all__ = ["by_position", "evaluate_predictions", "slice_metrics", "task_metrics"]

RANKS = (5, 10)
"""The k of nDCG@k, hit rate@k and recall@k."""

TECHJAM_RANKS = 5
"""The k of the nDCG in ``techjam_score``."""

_FLOOR_REPETITIONS = 200
_FLOOR_REPETITIONS_OF_A_SLICE = 50


def evaluate_predictions(
    predictions: Predictions, *, seed: int = 0, replicates: int = 1000
) -> dict[str, Any]:
    """Evaluate the predictions of a split.

    Args:
        predictions: Of the split's impressions.
        seed: Of the bootstrap and of the ECE floor.
        replicates: How many bootstrap resamples of users.

    Returns:
        JSON-able ``{"rows", "users", "requests", "tasks": {task: {...}}, "slices": {dimension:
        {slice: {...}}}}``. A task has the values of :func:`task_metrics`, ``auc_ci95``,
        ``calibration`` (points) and, with positions, ``by_position`` (:func:`by_position`). A
        slice has ``rows`` and the values of every task, with ``auc_standard_error`` in place of
        the interval and without these points.

    Raises:
        DataError: A label is neither 0, 1, -1 nor NaN.
    """
    all_rows = predictions.task_rows()
    resamples = (
        UserResamples(predictions.user, count=replicates, seed=seed) if predictions.rows else None
    )
    tasks = {}
    for task in all_rows:
        entry = task_metrics(task, predictions, seed=seed)
        if "auc" in entry and resamples is not None:
            weights = None if (task.weights == 1).all() else task.weights
            interval = auc_interval(
                task.labels, task.probabilities, resamples.of_rows(task.rows), weights
            )
            if isinstance(interval, UndefinedMetric):
                entry.setdefault("absent", {})["auc_ci95"] = interval.reason
            else:
                entry["auc_ci95"] = [interval.low, interval.high]
        entry["calibration"] = [
            dataclasses.asdict(point)
            for point in metrics.calibration_curve(task.labels, task.probabilities, task.weights)
        ]
        if task.position is not None:
            entry["by_position"] = by_position(task)
        tasks[task.name] = entry
    return {
        "rows": predictions.rows,
        "users": int(np.unique(predictions.user).size),
        "requests": int(np.unique(predictions.request).size),
        "tasks": tasks,
        "slices": {
            dimension: {
                name: _slice_entry(mask, predictions, all_rows, seed)
                for name, mask in slices.items()
            }
            for dimension, slices in slice_masks(predictions).items()
        },
    }


def task_metrics(
    task: TaskRows,
    predictions: Predictions,
    *,
    seed: int = 0,
    repetitions: int = _FLOOR_REPETITIONS,
) -> dict[str, Any]:
    """Compute every metric of one task's rows but the intervals.

    Args:
        task: The rows, labels and probabilities.
        predictions: Of the split that the rows are positions in.
        seed: Of the ECE floor.
        repetitions: Simulations of the ECE floor.

    Returns:
        JSON-able metrics by name. ``absent: {metric: reason}`` names the undefined ones. Names that
        begin with ``user_`` are of lists by user, other metrics of top ranks by request. With truth
        also ``oracle_auc``, ``oracle_distance`` (oracle_auc - auc) and ``truth_logloss``; with
        baselines ``<name>_auc`` and ``<name>_logloss``.
    """
    y, p, w = task.labels, task.probabilities, task.weights
    auc = metrics.auc(y, p, w)
    gauc, coverage = metrics.gauc(y, p, predictions.user[task.rows], w)
    values: dict[str, float | UndefinedMetric] = {
        "auc": auc,
        "gauc": gauc,
        **_list_metrics(task, predictions),
        "logloss": metrics.logloss(y, p, w),
        "ne": metrics.ne(y, p, w),
        "pcoc": metrics.pcoc(y, p, w),
        "ece": metrics.ece(y, p, w),
        "ece_floor": metrics.ece_floor(y, p, w, seed=seed, repetitions=repetitions),
    }
    if task.truth is not None:
        oracle = metrics.auc(y, task.truth, w)
        values["oracle_auc"] = oracle
        if not isinstance(oracle, UndefinedMetric) and not isinstance(auc, UndefinedMetric):
            values["oracle_distance"] = oracle - auc
        values["truth_logloss"] = metrics.logloss(y, task.truth, w)
    for name, baseline in task.baselines.items():
        values[f"{name}_auc"] = metrics.auc(y, baseline, w)
        values[f"{name}_logloss"] = metrics.logloss(y, baseline, w)
    absent = {
        name: value.reason for name, value in values.items() if isinstance(value, UndefinedMetric)
    }
    return {
        "rows": int(y.size),
        "positives": int(y.sum()),
        **{name: value for name, value in values.items() if name not in absent},
        "gauc_coverage": coverage,
        **({"absent": absent} if absent else {}),
    }


def by_position(task: TaskRows) -> list[dict[str, Any]]:
    """Compute the rate and the mean prediction of a task's rows at every position.

    Args:
        task: The rows, with their positions.

    Returns:
        By position, ascending: ``position``, ``rows``, ``rate``, ``prediction``, and
        ``standard_error`` of the rate as that of independent rows. Positions without weight are
        left out.
    """
    assert task.position is not None
    positions, index = np.unique(task.position, return_inverse=True)

    def total(values: Array) -> Array:
        return np.bincount(index, weights=values, minlength=positions.size)

    weight, squared = total(task.weights), total(task.weights**2)
    counted = weight > 0
    divisor = np.where(counted, weight, 1.0)
    rate = total(task.weights * task.labels) / divisor
    prediction = total(task.weights * task.probabilities) / divisor
    error = np.sqrt(rate * (1 - rate) * squared) / divisor
    rows = np.bincount(index, minlength=positions.size)
    return [
        {
            "position": int(positions[i]),
            "rows": int(rows[i]),
            "rate": float(rate[i]),
            "prediction": float(prediction[i]),
            "standard_error": float(error[i]),
        }
        for i in np.flatnonzero(counted)
    ]


def _list_metrics(task: TaskRows, predictions: Predictions) -> dict[str, float | UndefinedMetric]:
    """Metrics of the ranking within requests and within users, by name."""
    y, p, w = task.labels, task.probabilities, task.weights
    user = predictions.user[task.rows]
    requests = RankedLists(y, p, predictions.request[task.rows], w, owner="request")
    users = RankedLists(y, p, user, w, owner="user")
    by_positives, _ = metrics.gauc(y, p, user, w, by="positives")
    of_all_users = users.ndcg_at(TECHJAM_RANKS, no_positives="zero")
    values: dict[str, float | UndefinedMetric] = {"gauc_by_positives": by_positives}
    for k in RANKS:
        values[f"ndcg_at_{k}"] = requests.ndcg_at(k)
        values[f"hit_rate_at_{k}"] = requests.hit_rate_at(k)
        values[f"user_ndcg_at_{k}"] = users.ndcg_at(k)
        values[f"user_recall_at_{k}"] = users.recall_at(k)
    values["mrr"] = requests.mrr()
    values[f"user_ndcg_at_{TECHJAM_RANKS}_all"] = of_all_users
    if isinstance(by_positives, UndefinedMetric) or isinstance(of_all_users, UndefinedMetric):
        values["techjam_score"] = (
            by_positives if isinstance(by_positives, UndefinedMetric) else of_all_users
        )
    else:
        values["techjam_score"] = (by_positives + of_all_users) / 2
    return values


def slice_metrics(predictions: Predictions, *, seed: int = 0) -> dict[str, Any]:
    """Evaluate predictions as one slice of :func:`evaluate_predictions`.

    Args:
        predictions: All impressions of the slice.
        seed: Of the ECE floor.
    """
    everything = np.ones(predictions.rows, dtype=bool)
    return _slice_entry(everything, predictions, predictions.task_rows(), seed)


def _slice_entry(
    mask: Array, predictions: Predictions, tasks: list[TaskRows], seed: int
) -> dict[str, Any]:
    entries = {}
    for task in tasks:
        selected = task.select(mask[task.rows])
        entry = task_metrics(
            selected, predictions, seed=seed, repetitions=_FLOOR_REPETITIONS_OF_A_SLICE
        )
        error = auc_standard_error(
            selected.labels,
            selected.probabilities,
            predictions.user[selected.rows],
            selected.weights,
        )
        if isinstance(error, UndefinedMetric):
            entry.setdefault("absent", {})["auc_standard_error"] = error.reason
        else:
            entry["auc_standard_error"] = error
        entries[task.name] = entry
    return {"rows": int(mask.sum()), "tasks": entries}
