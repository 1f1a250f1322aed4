"""Confidence intervals and standard errors of AUC, and of the difference of two models' AUC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from hemix.evaluation.influence import auc_influence, clustered_standard_error, too_few_users
from hemix.evaluation.metrics import Array, RankedPairs, UndefinedMetric
from hemix.evaluation.resampling import (
    Interval,
    UserResamples,
    auc_replicates,
    percentile_interval,
)

__all__ = ["NORMAL_97_5", "Difference", "auc_difference", "auc_interval", "auc_standard_error"]

NORMAL_97_5 = float(special.ndtri(0.975))
"""The 97.5 % quantile of the standard normal: half the width of a 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better ``a`` is than ``b`` on the same rows: ``delta = a - b``."""

    delta: float
    ci95: Interval | UndefinedMetric
    """From the bootstrap, or the normal interval of the standard error."""
    standard_error: float | UndefinedMetric
    """From the influence of every user, without resampling."""


def auc_interval(
    labels: Array, scores: Array, resamples: UserResamples, weights: Array | None = None
) -> Interval | UndefinedMetric:
    """The bootstrap's 95 % interval of AUC.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        resamples: Of the n rows.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        The interval, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    undefined = too_few_users(resamples.codes, weights, labels)
    return undefined or percentile_interval(auc_replicates(labels, scores, resamples, weights))


def auc_standard_error(
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> float | UndefinedMetric:
    """Standard error of AUC, robust to the dependence within a user; O(n log n), no resampling.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        users: [n] integers.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        The standard error, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    influence = auc_influence(labels, scores, weights)
    if isinstance(influence, UndefinedMetric):
        return influence
    undefined = too_few_users(users, weights, labels)
    return undefined or clustered_standard_error(influence, users, _counted(weights))


def auc_difference(
    labels: Array,
    a: Array,
    b: Array,
    users: Array,
    weights: Array | None = None,
    *,
    resamples: UserResamples | None = None,
) -> Difference | UndefinedMetric:
    """AUC of scores ``a`` minus AUC of scores ``b`` on the same rows, paired.

    Args:
        labels: [n] of 0 and 1.
        a: [n] finite scores.
        b: [n] finite scores.
        users: [n] integers.
        weights: [n] row weights, or None for 1 everywhere.
        resamples: Of the n rows, for a bootstrap interval. Without them the interval is the normal
            one of the standard error.

    Returns:
        The difference, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    auc_a, auc_b = RankedPairs(labels, a).auc(weights), RankedPairs(labels, b).auc(weights)
    if isinstance(auc_a, UndefinedMetric):
        return auc_a
    influence_a, influence_b = auc_influence(labels, a, weights), auc_influence(labels, b, weights)
    assert not isinstance(auc_b, UndefinedMetric)  # the labels alone decide
    assert not isinstance(influence_a, UndefinedMetric)
    assert not isinstance(influence_b, UndefinedMetric)
    delta = auc_a - auc_b
    undefined = too_few_users(users, weights, labels)
    if undefined is not None:
        return Difference(delta=delta, ci95=undefined, standard_error=undefined)
    error = clustered_standard_error(influence_a - influence_b, users, _counted(weights))
    interval: Interval | UndefinedMetric
    if resamples is not None:
        interval = percentile_interval(
            auc_replicates(labels, a, resamples, weights)
            - auc_replicates(labels, b, resamples, weights)
        )
    elif isinstance(error, UndefinedMetric):
        interval = error
    else:
        interval = Interval(delta - NORMAL_97_5 * error, delta + NORMAL_97_5 * error)
    return Difference(delta=delta, ci95=interval, standard_error=error)


def _counted(weights: Array | None) -> Array | None:
    return None if weights is None else np.asarray(weights) > 0
