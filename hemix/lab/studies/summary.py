"""Figures of a study from its finished trials: metrics by candidate, and paired differences."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from hemix.data.layout import load_array
from hemix.errors import RunError
from hemix.evaluation.differences import (
    PAIRED_METRICS,
    MetricEstimate,
    estimate_metric,
    holm,
    paired_difference,
)
from hemix.evaluation.metrics import UndefinedMetric
from hemix.evaluation.wording import BASELINE_NAMES
from hemix.lab.studies.datasets import EvaluatedRows, StudyDataset, evaluated_rows
from hemix.lab.studies.study import TrialsByLabel
from hemix.lab.studies.trial import EvaluatedSplit, Trial

__all__ = [
    "METRICS",
    "EvaluatedUsers",
    "MeasuredTrials",
    "measure_trials",
    "paired_differences",
    "summarise",
]

METRICS = (
    "auc",
    "gauc",
    "gauc_coverage",
    "gauc_by_positives",
    "ndcg_at_5",
    "ndcg_at_10",
    "mrr",
    "hit_rate_at_5",
    "hit_rate_at_10",
    "user_ndcg_at_5",
    "user_ndcg_at_10",
    "user_ndcg_at_5_all",
    "user_recall_at_5",
    "user_recall_at_10",
    "techjam_score",
    "logloss",
    "ne",
    "pcoc",
    "ece",
    "ece_floor",
    "oracle_auc",
    "oracle_distance",
    *(f"{name}_{metric}" for name in BASELINE_NAMES for metric in ("auc", "logloss")),
)

MeasuredTrials = list[dict[int, MetricEstimate]]
"""A metric of one candidate's trials: for every dataset, by seed"""

EvaluatedUsers = tuple[list[dict[str, EvaluatedRows]], int]
"""What :func:`~hemix.lab.studies.datasets.evaluated_rows` returns"""


def summarise(runs: TrialsByLabel, split: EvaluatedSplit) -> dict[str, Any]:
    """Summarise every candidate: its cost, and the mean and values of each metric.

    Args:
        runs: Finished trials.
        split: The split of the metrics.

    Returns:
        The ``models`` of compare.json.
    """
    return {
        label: _summarise_candidate(list(itertools.chain.from_iterable(trials)), split)
        for label, trials in runs.items()
    }


def _summarise_candidate(trials: Sequence[Trial], split: EvaluatedSplit) -> dict[str, Any]:
    results = [trial.result for trial in trials]
    metrics = [trial.metrics(split) for trial in trials]
    tasks: dict[str, dict[str, Any]] = {}
    for task in metrics[0]:
        tasks[task] = {}
        for metric in METRICS:
            values = [by_task[task][metric] for by_task in metrics if metric in by_task[task]]
            if len(values) == len(metrics):
                tasks[task][metric] = {"mean": fmean(values), "values": values}
    first, candidate = results[0], trials[0].candidate
    summary = {
        "model": candidate.model,
        "dense_parameters": first["dense_parameters"],
        "embedding_parameters": first["embedding_parameters"],
        "flops_per_impression": first["flops_per_impression"],
        "train_seconds": fmean(result["train_seconds"] for result in results),
        "peak_bytes": max(result["peak_bytes"] for result in results),
        "settings": candidate.overrides,
        "all_settings": candidate.settings.model_dump(mode="json"),
    }
    if candidate.history_events_max is not None:
        summary["history_events_max"] = candidate.history_events_max
    copied = ("train_seconds", "peak_bytes", "threads", "code", "hemix", "torch")
    summary["trials"] = [
        {
            "trial": trial.folder.name,
            "data": trial.dataset.name,
            "seed": trial.seed,
            **{key: result[key] for key in copied},
        }
        for trial, result in zip(trials, results, strict=True)
    ]
    return {**summary, "tasks": tasks}


def measure_trials(
    runs: TrialsByLabel,
    datasets: Sequence[StudyDataset],
    split: EvaluatedSplit,
    output: str,
    metric: str,
    users: EvaluatedUsers | None = None,
) -> dict[str, MeasuredTrials | UndefinedMetric]:
    """Compute a metric of all trials from their saved scores, with each user's influence.

    Args:
        runs: Finished trials.
        datasets: The study's datasets.
        split: valid or test.
        output: A task or conditional output.
        metric: One of PAIRED_METRICS.
        users: The result of ``evaluated_rows(datasets, split)``; None: compute it.

    Returns:
        By label the measured trials, or why the metric is undefined.

    Raises:
        RunError: Saved scores have another shape.
    """
    rows_by_dataset, user_count = users or evaluated_rows(datasets, split)
    column = datasets[0].dataset.schema.outputs.index(output)
    measured: dict[str, MeasuredTrials | UndefinedMetric] = {}
    for label, trials_by_dataset in runs.items():
        by_dataset: MeasuredTrials = []
        undefined: UndefinedMetric | None = None
        for rows_by_output, trials in zip(rows_by_dataset, trials_by_dataset, strict=True):
            rows = rows_by_output[output]
            by_seed: dict[int, MetricEstimate] = {}
            for trial in trials:
                scores = _load_scores(trial, split, outputs=len(rows_by_output))
                value = estimate_metric(
                    metric,
                    rows.labels,
                    np.asarray(scores[rows.rows, column], dtype=np.float64),
                    rows.users,
                    user_count,
                    rows.weights,
                )
                if isinstance(value, UndefinedMetric):
                    undefined = value
                else:
                    by_seed[trial.seed] = value
            by_dataset.append(by_seed)
        measured[label] = undefined or by_dataset
    return measured


def _load_scores(trial: Trial, split: EvaluatedSplit, *, outputs: int) -> np.ndarray[Any, Any]:
    path = trial.folder / f"{split}.npy"
    scores = load_array(path)
    if scores.ndim != 2 or scores.shape[1] != outputs:
        raise RunError(f"{path}: expected {outputs} columns, found shape {scores.shape}")
    return scores


def paired_differences(
    runs: TrialsByLabel,
    datasets: Sequence[StudyDataset],
    split: EvaluatedSplit,
    *,
    primary: Collection[tuple[str, str]] = (),
    pairs: Sequence[tuple[str, str]] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Compute the difference a - b of every pair of candidates, output and metric.

    Args:
        runs: Finished trials.
        datasets: The study's datasets.
        split: valid or test.
        primary: Pairs whose p-values are not adjusted.
        pairs: The other pairs; None: all pairs in the order of ``runs``.

    Returns:
        ``pairs`` of compare.json, and ``absent_pairs``: those that a task and metric do not define,
        with the reason. ``p_holm`` is adjusted over the pairs of one task and metric that are not
        primary.
    """
    others = list(itertools.combinations(runs, 2)) if pairs is None else list(pairs)
    unordered_primary = {frozenset(pair) for pair in primary}
    others = [pair for pair in others if frozenset(pair) not in unordered_primary]
    users = evaluated_rows(datasets, split)
    defined, undefined = list[dict[str, Any]](), list[dict[str, Any]]()
    for output in datasets[0].dataset.schema.outputs:
        for metric in PAIRED_METRICS:
            measured = measure_trials(runs, datasets, split, output, metric, users)
            entries = list[dict[str, Any]]()
            for a, b in [*primary, *others]:
                key = {"a": a, "b": b, "task": output, "metric": metric}
                difference = _difference(measured[a], measured[b])
                if isinstance(difference, UndefinedMetric):
                    undefined.append({**key, "reason": difference.reason})
                else:
                    entries.append({**key, **difference})
            _add_adjusted_p(entries, primary)
            defined += entries
    return {"pairs": defined, "absent_pairs": undefined}


def _add_adjusted_p(
    entries: Sequence[dict[str, Any]], primary: Collection[tuple[str, str]]
) -> None:
    """Add ``p_holm`` and ``primary`` to the pairs of one task and metric."""
    others = [entry for entry in entries if (entry["a"], entry["b"]) not in primary]
    for entry, adjusted in zip(others, holm([entry["p"] for entry in others]), strict=True):
        entry["p_holm"] = adjusted
    for entry in entries:
        entry.setdefault("p_holm", entry["p"])
        entry["primary"] = (entry["a"], entry["b"]) in primary


def _difference(
    a: MeasuredTrials | UndefinedMetric, b: MeasuredTrials | UndefinedMetric
) -> Mapping[str, Any] | UndefinedMetric:
    """Compute a - b over the seeds that both have."""
    if isinstance(a, UndefinedMetric):
        return a
    if isinstance(b, UndefinedMetric):
        return b
    common_seeds = [
        sorted(seeds_a.keys() & seeds_b.keys()) for seeds_a, seeds_b in zip(a, b, strict=True)
    ]
    if not all(common_seeds):
        return UndefinedMetric("no common seed on some dataset")
    paired = [
        [
            [by_seed[seed] for seed in seeds]
            for by_seed, seeds in zip(measured, common_seeds, strict=True)
        ]
        for measured in (a, b)
    ]
    difference = paired_difference(*paired)
    if isinstance(difference, UndefinedMetric):
        return difference
    return {
        "delta": difference.delta,
        "ci95": [difference.ci95.low, difference.ci95.high],
        "runs": sum(map(len, common_seeds)),
        "p": difference.p,
        "user_variance": difference.user_variance,
        "seed_variance": difference.seed_variance,
    }
