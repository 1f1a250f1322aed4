"""AUC over all rows and within users (GAUC), under row weights, with ties counted half."""

from __future__ import annotations

from typing import Literal

import numpy as np

from hemix.evaluation.metrics.rows import (
    Array,
    UndefinedMetric,
    missing_class,
    score_rows,
    validated_ids,
    validated_labels,
    validated_scores,
    validated_weights,
)
from hemix.evaluation.metrics.ties import TieGroups

__all__ = ["RankedPairs", "auc", "gauc", "user_aucs"]


class RankedPairs:
    """Pairs of a positive and a negative, ranked once, for AUC under any number of row weights.

    Sorting costs O(n log n), each :meth:`auc` O(n): the bootstrap sorts once.
    """

    def __init__(self, labels: Array, scores: Array) -> None:
        """Sort the rows.

        Args:
            labels: [n] of 0 and 1.
            scores: [n] finite numbers.

        Raises:
            DataError: An array has another shape or a value out of range.
        """
        y = validated_labels(labels)
        s = validated_scores(scores, y.size)
        positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        self.positive = positive[np.argsort(s[positive], kind="stable")]
        """Rows of the positives by ascending score, int64."""
        self.negative = negative[np.argsort(s[negative], kind="stable")]
        """Rows of the negatives by ascending score, int64."""
        ordered = s[self.negative]
        self._below = np.searchsorted(ordered, s[self.positive], side="left")
        self._not_above = np.searchsorted(ordered, s[self.positive], side="right")

    def auc(self, weights: Array | None = None) -> float | UndefinedMetric:
        """AUC under row weights [n] (None: 1 everywhere)."""
        if weights is None:
            return self.auc_of(np.ones(self.positive.size), np.ones(self.negative.size))
        return self.auc_of(weights[self.positive], weights[self.negative])

    def auc_of(self, positive_weights: Array, negative_weights: Array) -> float | UndefinedMetric:
        """AUC under weights in the order of :attr:`positive` and :attr:`negative`.

        Args:
            positive_weights: float [positives].
            negative_weights: float [negatives].

        Returns:
            The AUC, or why it is undefined.
        """
        cumulative = np.zeros(self.negative.size + 1)
        np.cumsum(negative_weights, out=cumulative[1:])
        total_positive, total_negative = float(positive_weights.sum()), float(cumulative[-1])
        if not total_positive > 0 or not total_negative > 0:
            return missing_class(total_positive, total_negative)
        wins = (cumulative[self._below] + cumulative[self._not_above]) / 2
        return float(wins @ positive_weights) / (total_positive * total_negative)


def auc(labels: Array, scores: Array, weights: Array | None = None) -> float | UndefinedMetric:
    """Probability that a positive scores above a negative; ties count half.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        The AUC, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    return RankedPairs(labels, scores).auc(
        None if weights is None else validated_weights(weights, len(labels))
    )


def gauc(
    labels: Array,
    scores: Array,
    users: Array,
    weights: Array | None = None,
    *,
    by: Literal["impressions", "positives"] = "impressions",
) -> tuple[float | UndefinedMetric, float]:
    """Mean AUC within users, weighted by their impressions or positives.

    Users who lack a class have no AUC and do not count.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        users: [n] integers.
        weights: [n] row weights, or None for 1 everywhere.
        by: The weight of a user: the total weight of their impressions, or of their positives.

    Returns:
        GAUC, or why it is undefined; and the fraction of impressions (or positives) that it covers.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    aucs, impressions, positives = user_aucs(labels, scores, users, weights)
    mass = impressions if by == "impressions" else positives
    both = ~np.isnan(aucs)
    if not both.any():
        return UndefinedMetric("no user has both a positive and a negative"), 0.0
    covered = float(mass[both].sum())
    value = float(mass[both] @ aucs[both]) / covered
    return value, min(covered / float(mass.sum()), 1.0)


def user_aucs(
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> tuple[Array, Array, Array]:
    """AUC within the rows of every user.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        users: [n] integers.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        By user in ascending order of ``users``: the AUC, NaN where the user lacks a class; the
        total weight of the user's rows; and that of the positives; all float64 [distinct users].

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y, s, w = score_rows(labels, scores, weights)
    ties = TieGroups(validated_ids(users, y.size, name="users"), s, y, w)
    negative = ties.mass - ties.positive
    positives_U, negatives_U = ties.sum_by_owner(ties.positive), ties.sum_by_owner(negative)
    wins_U = ties.sum_by_owner(ties.positive * (ties.sum_of_earlier(negative) + negative / 2))
    pairs_U = positives_U * negatives_U
    aucs_U = np.divide(wins_U, pairs_U, out=np.full(pairs_U.shape, np.nan), where=pairs_U > 0)
    return aucs_U, positives_U + negatives_U, positives_U
