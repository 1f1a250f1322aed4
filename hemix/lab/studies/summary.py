"""Finished cells to the figures of a study: every contender's metrics, and the differences between
contenders.

Knows cells and saved predictions; trains and scores nothing.
"""

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
from hemix.lab.studies.cells import Cell, Judged
from hemix.lab.studies.inputs import Input, judged_rows

__all__ = ["METRICS", "Runs", "measured_runs", "pairs", "summarise"]

METRICS = (
    "auc",
    "gauc",
    "gauc_coverage",
    "logloss",
    "ne",
    "pcoc",
    "ece",
    "ece_floor",
    "oracle_auc",
    "oracle_distance",
    "popularity_auc",
)

Runs = dict[str, list[list[Cell]]]
"""By label: [origins][seeds] finished cells"""


def summarise(runs: Runs, split: Judged) -> dict[str, Any]:
    """The ``models`` of compare.json: of every label what it has and costs, and each metric's mean
    with the values of its cells.
    """
    return {
        label: _model([cell for origin in origins for cell in origin], split)
        for label, origins in runs.items()
    }


def _model(cells: Sequence[Cell], split: Judged) -> dict[str, Any]:
    results = [cell.result for cell in cells]
    judged = [cell.judged(split) for cell in cells]
    tasks: dict[str, dict[str, Any]] = {}
    for task in judged[0]:
        found = {}
        for metric in METRICS:
            values = [one[task][metric] for one in judged if metric in one[task]]
            if len(values) == len(judged):
                found[metric] = {"mean": fmean(values), "values": values}
        tasks[task] = found
    first = results[0]
    return {
        "model": cells[0].contender.model,
        "dense_parameters": first["dense_parameters"],
        "embedding_parameters": first["embedding_parameters"],
        "flops_per_impression": first["flops_per_impression"],
        "train_seconds": fmean(result["train_seconds"] for result in results),
        "peak_bytes": max(result["peak_bytes"] for result in results),
        "settings": cells[0].contender.changes,
        "all_settings": cells[0].contender.settings.model_dump(mode="json"),
        **(
            {"history_events_max": most}
            if (most := cells[0].contender.history_events_max) is not None
            else {}
        ),
        "cells": [
            {
                "cell": cell.folder.name,
                "data": cell.data.name,
                "seed": cell.seed,
                **{
                    key: result[key]
                    for key in ("train_seconds", "peak_bytes", "threads", "code", "hemix", "torch")
                },
            }
            for cell, result in zip(cells, results, strict=True)
        ],
        "tasks": tasks,
    }


def measured_runs(
    runs: Runs, inputs: Sequence[Input], split: Judged, output: str, metric: str, rows: Any = None
) -> dict[str, Any]:
    """One metric of one output of every run with its users' influences: by label, of every origin
    MetricEstimate by seed, or UndefinedMetric.

    ``rows``: what :func:`judged_rows` gave for these inputs, where it is at hand.
    """
    origins, users = rows or judged_rows(inputs, split)
    column = inputs[0].dataset.schema.outputs.index(output)
    found: dict[str, Any] = {}
    for label, cells in runs.items():
        measured: list[dict[int, MetricEstimate]] = []
        missing: UndefinedMetric | None = None
        for here, seeds in zip(origins, cells, strict=True):
            task = here[output]
            of_seeds: dict[int, MetricEstimate] = {}
            for cell in seeds:
                scores = load_array(cell.folder / f"{split}.npy")
                if scores.ndim != 2 or scores.shape[1] != len(here):
                    raise RunError(
                        f"{cell.folder / f'{split}.npy'}: expected {len(here)} columns, found "
                        f"shape {scores.shape}"
                    )
                one = estimate_metric(
                    metric,
                    task.labels,
                    np.asarray(scores[task.rows, column], dtype=np.float64),
                    task.users,
                    users,
                    task.weights,
                )
                if isinstance(one, UndefinedMetric):
                    missing = one
                else:
                    of_seeds[cell.seed] = one
            measured.append(of_seeds)
        found[label] = missing or measured
    return found


def pairs(
    runs: Runs,
    inputs: Sequence[Input],
    split: Judged,
    *,
    primary: Collection[tuple[str, str]] = (),
    among: Sequence[tuple[str, str]] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """The ``pairs`` of compare.json, delta = a - b: ``among`` (all pairs in the order of ``runs``
    when None) and ``primary``; and ``absent_pairs``, those that a task and metric do not define,
    with the reason.

    ``p_holm`` is adjusted over the pairs of one task and metric that are not primary; a primary
    pair's is its ``p``.
    """
    wanted = list(itertools.combinations(runs, 2)) if among is None else list(among)
    mentioned = {frozenset(pair) for pair in primary}
    wanted = [pair for pair in wanted if frozenset(pair) not in mentioned]
    wanted = [*primary, *wanted]
    rows = judged_rows(inputs, split)
    found, absent = list[dict[str, Any]](), list[dict[str, Any]]()
    for output in inputs[0].dataset.schema.outputs:
        for metric in PAIRED_METRICS:
            measured = measured_runs(runs, inputs, split, output, metric, rows)
            entries = list[dict[str, Any]]()
            for pair in wanted:
                named = {"a": pair[0], "b": pair[1], "task": output, "metric": metric}
                entry = _entry(pair, measured)
                if isinstance(entry, UndefinedMetric):
                    absent.append({**named, "reason": entry.reason})
                else:
                    entries.append({**named, **entry})
            asked = [entry for entry in entries if (entry["a"], entry["b"]) not in primary]
            for entry, adjusted in zip(asked, holm([entry["p"] for entry in asked]), strict=True):
                entry["p_holm"] = adjusted
            for entry in entries:
                entry.setdefault("p_holm", entry["p"])
                entry["primary"] = (entry["a"], entry["b"]) in primary
            found += entries
    return {"pairs": found, "absent_pairs": absent}


def _entry(pair: tuple[str, str], measured: Mapping[str, Any]) -> dict[str, Any] | UndefinedMetric:
    a, b = measured[pair[0]], measured[pair[1]]
    if isinstance(a, UndefinedMetric) or isinstance(b, UndefinedMetric):
        return a if isinstance(a, UndefinedMetric) else b
    common = [sorted(one.keys() & other.keys()) for one, other in zip(a, b, strict=True)]
    if not all(common):
        return UndefinedMetric("of some dataset the two have no seed in common")
    paired = [
        [[of[seed] for seed in seeds] for of, seeds in zip(side, common, strict=True)]
        for side in (a, b)
    ]
    difference = paired_difference(*paired)
    if isinstance(difference, UndefinedMetric):
        return difference
    return {
        "delta": difference.delta,
        "ci95": [difference.ci95.low, difference.ci95.high],
        "runs": sum(map(len, common)),
        "p": difference.p,
        "user_variance": difference.user_variance,
        "seed_variance": difference.seed_variance,
    }
