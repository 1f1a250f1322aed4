"""Influence functions of metrics, and the cluster-robust standard errors that follow from them.

The influence of a row is the change of the metric, to first order, if the row counted once more
with its weight. It is the influence function of the literature divided by the number of rows. The
influences of all rows sum to 0; a user's influence is the sum of those of the user's rows.
"""

from __future__ import annotations

import math

import numpy as np

from hemix.evaluation.metrics import (
    PROBABILITY_CLIP,
    Array,
    RankedPairs,
    UndefinedMetric,
    logloss,
    user_aucs,
)

__all__ = [
    "FEWER_THAN_TWO_USERS",
    "auc_influence",
    "clustered_standard_error",
    "gauc_influence",
    "logloss_influence",
    "too_few_users",
]

FEWER_THAN_TWO_USERS = UndefinedMetric("fewer than two users")
"""Resampling one user gives the same rows each time: an interval of no width."""


def auc_influence(
    labels: Array, scores: Array, weights: Array | None = None
) -> Array | UndefinedMetric:
    """Influence of every row on the AUC (DeLong's placements).

    A positive counts by how many negatives it beats, a negative by how many positives beat it.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        float64 [n], or why the AUC is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y = np.asarray(labels)
    value = RankedPairs(y, scores).auc(weights)
    if isinstance(value, UndefinedMetric):
        return value
    s = np.asarray(scores)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    influence = np.zeros(len(y))
    for label in (1, 0):
        own, other = np.flatnonzero(y == label), np.flatnonzero(y == 1 - label)
        other = other[np.argsort(s[other], kind="stable")]
        cumulative = np.concatenate([[0.0], np.cumsum(w[other])])
        below = cumulative[np.searchsorted(s[other], s[own], side="left")]
        not_above = cumulative[np.searchsorted(s[other], s[own], side="right")]
        beaten = (below + not_above) / 2 / cumulative[-1]
        placement = beaten if label == 1 else 1 - beaten
        influence[own] = w[own] * (placement - value) / w[own].sum()
    return influence


def logloss_influence(
    labels: Array, probabilities: Array, weights: Array | None = None
) -> Array | UndefinedMetric:
    """Influence of every row on the mean log loss.

    Args:
        labels: [n] of 0 and 1.
        probabilities: [n] from 0 to 1.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        float64 [n], or why the log loss is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    value = logloss(labels, probabilities, weights)
    if isinstance(value, UndefinedMetric):
        return value
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    loss = -np.log(np.clip(np.where(y == 1, p, 1 - p), PROBABILITY_CLIP, 1 - PROBABILITY_CLIP))
    influence: Array = w * (loss - value) / w.sum()
    return influence


def gauc_influence(
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> Array | UndefinedMetric:
    """Influence of every user on GAUC; 0 for a user who lacks a class.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        users: [n] integers.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        float64 [distinct users] in ascending order of ``users``, or why GAUC is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    aucs_U, mass_U, _ = user_aucs(labels, scores, users, weights)
    both_U = ~np.isnan(aucs_U)
    if not both_U.any():
        return UndefinedMetric("no user has both a positive and a negative")
    covered = mass_U[both_U].sum()
    value = mass_U[both_U] @ aucs_U[both_U] / covered
    influence_U: Array = np.where(
        both_U, mass_U * (np.where(both_U, aucs_U, value) - value) / covered, 0.0
    )
    return influence_U


def clustered_standard_error(
    influence: Array, users: Array, counted: Array | None = None
) -> float | UndefinedMetric:
    """Standard error of a metric, robust to the dependence within a user.

    Args:
        influence: float64 [n] of every row.
        users: [n] integers.
        counted: bool [n]: rows of a weight above 0; None for all.

    Returns:
        The standard error, or why it is undefined.
    """
    if counted is not None and not counted.all():
        influence, users = influence[counted], np.asarray(users)[counted]
    distinct, codes = np.unique(np.asarray(users), return_inverse=True)
    if distinct.size < 2:
        return FEWER_THAN_TWO_USERS
    influence_U = np.bincount(codes, influence)
    return math.sqrt(float(influence_U @ influence_U) * distinct.size / (distinct.size - 1))


def too_few_users(
    users: Array, weights: Array | None = None, labels: Array | None = None
) -> UndefinedMetric | None:
    """Find out whether the rows have too few users for a standard error.

    A metric that cannot vary from user to user would look like a certain one.

    Args:
        users: [n] integers.
        weights: [n] row weights, or None for 1 everywhere; rows of weight 0 do not count.
        labels: [n] of 0 and 1, for a metric such as AUC that needs two users of each class.

    Returns:
        The reason, or None where there are enough users.
    """
    users = np.asarray(users)
    counted = np.ones(users.size, dtype=bool) if weights is None else np.asarray(weights) > 0
    if np.unique(users[counted]).size < 2:
        return FEWER_THAN_TWO_USERS
    if labels is None:
        return None
    for label, name in ((1, "positives"), (0, "negatives")):
        if np.unique(users[counted & (np.asarray(labels) == label)]).size == 1:
            return UndefinedMetric(f"all {name} are of one user")
    return None
