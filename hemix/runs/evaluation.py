"""Evaluate a run on a split: score it, compute the metrics, write metrics.json and the report."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.dataset import Dataset
from hemix.data.layout import load_array
from hemix.data.masking import Masking
from hemix.data.sampler import RequestSampler
from hemix.data.split import Split
from hemix.errors import StorageError
from hemix.evaluation.evaluate import evaluate_predictions, slice_metrics
from hemix.evaluation.importance import permutation_importance
from hemix.evaluation.metrics import UndefinedMetric, auc
from hemix.evaluation.notes import evaluation_notes
from hemix.evaluation.predictions import Predictions
from hemix.evaluation.report import write_report
from hemix.features.history_counts import HISTORY_COUNTS
from hemix.features.match_counts import MATCH_AGE, MATCH_COUNTS, MATCH_LAST, MATCH_TOTALS
from hemix.runs.baselines import (
    TouchedBefore,
    item_values,
    popularity,
    position_rates,
)
from hemix.runs.folder import METRICS_FILE, METRICS_FORMAT, Run, check_same_schema
from hemix.runs.sampling import full_log_weights
from hemix.runs.scoring import (
    SCORING_IMPRESSIONS,
    UNCHANGED,
    InputChange,
    permute_feature,
    score_split,
)

__all__ = ["evaluate_run", "split_predictions"]

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]

_REPORTED_INFO = ("hemix", "torch", "fingerprint")
"""Keys of run.json that the report shows."""

_MASKED_IMPRESSIONS = 16_384
"""Impressions that are scored again with each kind of mask, about."""
_MASKINGS = {
    "user_features": Masking(user_features=1.0),
    "history": Masking(history=1.0),
    "user_features_and_history": Masking(user=1.0),
    "item": Masking(item=1.0),
}


def evaluate_run(
    run: Run,
    data: Dataset,
    split: str = "test",
    *,
    importance_impressions: int = 8_000,
    seed: int = 0,
    on_progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Evaluate a run on a split, merge the entry into metrics.json and rewrite the report.

    Args:
        run: The run.
        data: A dataset with the run's schema and encoders.
        split: Name of the split.
        importance_impressions: How many impressions permutation importance uses; 0 skips it.
        seed: Of the bootstrap, the ECE floor and the permutations.
        on_progress: Called with the activity and the fraction of it that is done.

    Returns:
        The split's entry of metrics.json.

    Raises:
        RunError: The dataset has another schema or other encoders.
        StorageError: The run folder cannot be written; raised before the split is scored.
    """
    check_same_schema(run, data)
    if not os.access(run.folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"{run.folder}: permission denied: evaluation writes {METRICS_FILE} and report.html "
            "there",
            code="permission_denied",
            field=str(run.folder),
            hint="evaluate a copy of the run",
        )
    impressions = data.split(split)
    predictions = split_predictions(run, data, impressions, on_progress=on_progress)
    entry = evaluate_predictions(predictions, seed=seed)
    entry["notes"] = evaluation_notes(
        predictions.task_rows(), entry["tasks"], predictions.user, split
    )
    entry["slices"]["masked"] = _masked(run, impressions, predictions, seed, on_progress)
    importance = _importance(run, impressions, importance_impressions, seed, on_progress)
    entry["importance"] = [] if isinstance(importance, UndefinedMetric) else importance
    if isinstance(importance, UndefinedMetric):
        entry["absent"] = {"importance": importance.reason}
    metrics = run.metrics
    metrics["split"][split] = entry
    METRICS_FORMAT.write(run.folder / METRICS_FILE, metrics)
    write_report(
        run.folder / "report.html",
        metrics=metrics,
        log=_log_records(run.folder),
        settings=run.settings.model_dump(mode="json"),
        manifest=data.manifest,
        info={key: run.info[key] for key in _REPORTED_INFO if key in run.info},
    )
    return entry


def split_predictions(
    run: Run, data: Dataset, split: Split, *, on_progress: Progress = lambda *_: None
) -> Predictions:
    """Score every impression of a split at its logged position.

    Args:
        run: The run.
        data: The dataset.
        split: One of its splits.
        on_progress: Called with the activity and the fraction of it that is done.

    Returns:
        Probabilities with labels, weights, truth, baselines and the columns of the slices.
    """
    # baselines learn the labels of train, so there they would be a leak
    has_baselines = split.name != "train"
    rates = position_rates(data) if has_baselines else None
    rule = TouchedBefore.fit(data, rates) if has_baselines else None
    touched_before = np.empty((split.impressions, len(run.schema.tasks)))
    scores = {name: np.empty(split.impressions) for name in run.schema.outputs}
    lengths = np.zeros((split.impressions, 2), dtype=np.int64)
    for batch in score_split(
        run, split, on_progress=lambda n: on_progress("score", n / split.impressions)
    ):
        rows = batch.impression_index
        for name, values in batch.outputs.items():
            scores[name][rows] = values
        lengths[rows, 0] = batch.global_length + batch.realtime_length
        lengths[rows, 1] = batch.realtime_length
        if rule is not None:
            touched_before[rows] = rule.predict(batch.batch)
    rows = np.arange(split.impressions)
    labels = split.labels.read().astype(np.float64)
    request = split.requests_of(rows)
    user = split.users_of(request)
    item = load_array(data.folder / "items" / "number.npy")[split.item_row.read()]
    item_impressions = load_array(data.folder / "items" / "train_impressions.npy")
    user_impressions = _user_impressions(data)
    position = split.bias.read()
    baselines = {"popularity": popularity(data, item)} if has_baselines else {}
    baselines |= {"position": rates[position]} if rates is not None else {}
    baselines |= {"touched_before": touched_before} if rule is not None else {}
    probabilities, conditional = _by_task(run, scores)
    return Predictions(
        tasks=run.schema.tasks,
        given=tuple(task.given for task in run.spec.tasks),
        probabilities=probabilities,
        conditional=conditional,
        labels=labels,
        weights=full_log_weights(run.spec, labels, split.weight.read().astype(np.float64)),
        user=user,
        request=request,
        truth=_truth(data, split),
        baselines=baselines,
        position=position if data.spec.bias_rows else None,
        history_length=lengths[:, 0],
        realtime_length=lengths[:, 1],
        user_seen_in_train=user_impressions[user] > 0,
        item_seen_in_train=item_values(item_impressions, item) > 0,
    )


def _user_impressions(data: Dataset) -> Array:
    """Train impressions of every user."""
    partitions = [data.partition(number) for number in data.partitions]
    return np.concatenate([each.user_array("train_impressions") for each in partitions])


def _truth(data: Dataset, split: Split) -> Array | None:
    """Probabilities that the labels were drawn from, [n, tasks]; None for logs without them."""
    truths = [data.partition(number).truth(split.name) for number in data.partitions]
    known = [truth for truth in truths if truth is not None]
    return np.concatenate(known) if known else None


def _masked(
    run: Run, split: Split, predictions: Predictions, seed: int, on_progress: Progress
) -> dict[str, Any]:
    """Score some impressions of a split again, each time with users or items that are unknown.

    Args:
        run: The run.
        split: The split.
        predictions: Of all its impressions.
        seed: Of the choice of impressions.
        on_progress: Called with the activity and the fraction of it that is done.

    Returns:
        The slice of every kind of mask, all on the same impressions.
    """
    sampler = RequestSampler(split, batch_size=SCORING_IMPRESSIONS, seed=seed)
    steps = min(sampler.steps, _MASKED_IMPRESSIONS // SCORING_IMPRESSIONS)
    slices = {}
    for done, (name, masking) in enumerate(_MASKINGS.items()):
        on_progress("masked", done / len(_MASKINGS))
        scored = list(
            score_split(
                run, split, sampler=sampler, steps=steps, change=InputChange(masking=masking)
            )
        )
        rows = np.concatenate([batch.impression_index for batch in scored])
        outputs = {
            output: np.concatenate([batch.outputs[output] for batch in scored])
            for output in run.schema.outputs
        }
        probabilities, conditional = _by_task(run, outputs)
        selected = predictions.select(rows)
        masked = replace(selected, probabilities=probabilities, conditional=conditional)
        slices[name] = slice_metrics(masked, seed=seed)
    return slices


def _by_task(run: Run, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return the outputs [n] as probabilities and conditional probabilities, [n, T] both."""
    labels = run.schema.labels.items()
    conditional = [
        outputs[name if label.given is None else f"{name}_given_{label.given}"]
        for name, label in labels
    ]
    probabilities = [outputs[name] for name, _ in labels]
    return np.stack(probabilities, axis=1), np.stack(conditional, axis=1)


def _importance(
    run: Run, split: Split, impressions: int, seed: int, on_progress: Progress
) -> list[dict[str, Any]] | UndefinedMetric:
    """Permutation importance of the first task on some shuffled impressions of the split."""
    if impressions == 0:
        return []
    sampler = RequestSampler(split, batch_size=min(SCORING_IMPRESSIONS, impressions), seed=seed)
    steps = max(1, min(sampler.steps, impressions // SCORING_IMPRESSIONS))

    def score(change: InputChange = UNCHANGED) -> tuple[Array, Array]:
        scored = list(score_split(run, split, sampler=sampler, steps=steps, change=change))
        return (
            np.concatenate([batch.impression_index for batch in scored]),
            np.concatenate([batch.outputs[run.schema.tasks[0]] for batch in scored]),
        )

    rows, baseline = score()
    labels = split.labels[rows]
    weights = full_log_weights(
        run.spec, labels.astype(np.float64), split.weight[rows].astype(np.float64)
    )
    labels = labels[:, 0]
    known = labels >= 0
    baseline_auc = auc(labels[known], baseline[known], weights[known])
    if isinstance(baseline_auc, UndefinedMetric):
        return baseline_auc
    changes = _feature_changes(run)
    done = itertools.count()

    def scorer(feature: str, rng: np.random.Generator) -> Array:
        on_progress("importance", next(done) / len(changes))
        return score(changes[feature](int(rng.integers(2**31))))[1][known]

    return permutation_importance(
        scorer,
        list(changes),
        labels[known],
        baseline[known],
        weights[known],
        repetitions=1,
        seed=seed,
    )


def _feature_changes(run: Run) -> dict[str, Callable[[int], InputChange]]:
    """By input of the model, the change that removes its information, given a seed."""
    schema = run.schema
    names = [(level, name) for level, name, _ in schema.features]
    names += [(schema.statistic_level(name), name) for name in schema.statistics]
    counts = [("context", HISTORY_COUNTS), ("context", MATCH_TOTALS)]
    counts += [("cross", name) for name in (MATCH_COUNTS, MATCH_LAST, MATCH_AGE)]
    names += [(level, name) for level, name in counts if getattr(run.spec, level).numbers_of(name)]

    def permuted(level: str, name: str, seed: int) -> InputChange:
        return InputChange(batches=permute_feature(run, level, name, seed))

    return {
        "history: global": lambda _: InputChange(hidden="global"),
        "history: real time": lambda _: InputChange(hidden="realtime"),
        **{f"{level}.{name}": partial(permuted, level, name) for level, name in names},
    }


def _log_records(folder: Path) -> list[dict[str, Any]]:
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
