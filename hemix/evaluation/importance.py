"""Permutation importance: how much worse a model gets when one feature's values are dealt out at
random.

The caller scores; this module deals out the random generators, compares and sorts. It knows nothing
of models or features.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hemix.errors import DataError
from hemix.evaluation import metrics
from hemix.evaluation.metrics import Absent, Array

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
    """Of every feature the mean fall in AUC and rise in log loss over ``repetitions`` permutations,
    the most important first.

    ``labels`` and ``baseline`` (the model's own probabilities) are [n]; rows with an unknown label
    are left out by the caller. An entry is JSON-able: ``{"feature", "auc_drop",
    "auc_drop_deviation", "logloss_rise", "logloss_rise_deviation", "repetitions"}``; deviations are
    those between permutations, absent for one. A feature's permutations depend on the seed and its
    name alone, not on which other features are asked for. Raises DataError where AUC is not
    defined.
    """
    if repetitions < 1:
        raise DataError(f"repetitions: expected 1 or more, got {repetitions}")
    auc, loss = _both(labels, baseline, weights)
    entries = []
    for feature in features:
        drops, rises = np.empty(repetitions), np.empty(repetitions)
        for repetition in range(repetitions):
            rng = np.random.default_rng([seed, repetition, zlib.crc32(feature.encode())])
            permuted_auc, permuted_loss = _both(labels, scorer(feature, rng), weights)
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


def _both(labels: Array, probabilities: Array, weights: Array | None) -> tuple[float, float]:
    auc, loss = (
        metrics.auc(labels, probabilities, weights),
        metrics.logloss(labels, probabilities, weights),
    )
    if isinstance(auc, Absent) or isinstance(loss, Absent):
        reason = auc.reason if isinstance(auc, Absent) else "no rows"
        raise DataError(f"permutation importance needs both classes in the labels: {reason}")
    return auc, loss
