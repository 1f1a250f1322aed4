"""Permutation importance: how much worse a model gets when one feature's values are permuted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hemix.errors import DataError
from hemix.evaluation import metrics
from hemix.evaluation.metrics import Array, UndefinedMetric

__all__ = ["Scorer", "permutation_importance"]

Scorer = Callable[[str, np.random.Generator], Array]
"""``scorer(feature, rng)``: probabilities [n] of the same rows, with that feature's values permuted
among them by ``rng``.
"""


def permutation_importance(
    scorer: Scorer,
    features: Sequence[str],
    labels: Array,
    baseline: Array,
    weights: Array | None = None,
    *,
    repetitions: int = 3,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Mean fall in AUC and rise in log loss over the permutations of every feature.

    The permutations of a feature depend on the seed and its name alone, not on the other features.

    Args:
        scorer: Scores the rows with one feature permuted.
        features: Names of the features.
        labels: [n] of 0 and 1; the caller leaves out rows with an unknown label.
        baseline: [n] probabilities of the model without permutation.
        weights: [n] row weights, or None for 1 everywhere.
        repetitions: How many permutations of every feature.
        seed: Of the permutations.

    Returns:
        JSON-able entries ``{"feature", "auc_drop", "auc_drop_deviation", "logloss_rise",
        "logloss_rise_deviation", "repetitions"}``, the most important feature first. Deviations are
        standard deviations between permutations, left out with one permutation.

    Raises:
        DataError: ``repetitions`` is below 1, or the labels do not define an AUC.
    """
    if repetitions < 1:
        raise DataError(f"repetitions: expected 1 or more, got {repetitions}", field="repetitions")
    auc, loss = _auc_and_logloss(labels, baseline, weights)
    entries = []
    for feature in features:
        drops, rises = np.empty(repetitions), np.empty(repetitions)
        for repetition in range(repetitions):
            rng = np.random.default_rng([seed, repetition, zlib.crc32(feature.encode())])
            permuted_auc, permuted_loss = _auc_and_logloss(labels, scorer(feature, rng), weights)
            drops[repetition], rises[repetition] = auc - permuted_auc, permuted_loss - loss
        entry = {
            "feature": feature,
            "auc_drop": float(drops.mean()),
            "logloss_rise": float(rises.mean()),
            "repetitions": repetitions,
        }
        if repetitions > 1:
            entry["auc_drop_deviation"] = float(drops.std(ddof=1))
            entry["logloss_rise_deviation"] = float(rises.std(ddof=1))
        entries.append(entry)
    return sorted(entries, key=lambda entry: (-entry["auc_drop"], entry["feature"]))


def _auc_and_logloss(
    labels: Array, probabilities: Array, weights: Array | None
) -> tuple[float, float]:
    auc = metrics.auc(labels, probabilities, weights)
    loss = metrics.logloss(labels, probabilities, weights)
    for value in (auc, loss):
        if isinstance(value, UndefinedMetric):
            raise DataError(
                f"permutation importance needs both classes in the labels: {value.reason}",
                code="undefined_metric",
                field="labels",
            )
    assert isinstance(auc, float) and isinstance(loss, float)
    return auc, loss
