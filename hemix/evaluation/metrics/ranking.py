"""Ranking metrics: AUC, GAUC and nDCG under row weights, with ties counted half."""

from __future__ import annotations

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

__all__ = ["RankedPairs", "auc", "gauc", "ndcg_at_k", "user_aucs"]


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
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> tuple[float | UndefinedMetric, float]:
    """Mean AUC within users, weighted by their impressions, over users with both classes.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        users: [n] integers.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        GAUC, or why it is undefined; and the fraction of impressions of the users that it covers.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    aucs, mass = user_aucs(labels, scores, users, weights)
    both = ~np.isnan(aucs)
    if not both.any():
        return UndefinedMetric("no user has both a positive and a negative"), 0.0
    covered = float(mass[both].sum())
    value = float(mass[both] @ aucs[both]) / covered
    return value, min(covered / float(mass.sum()), 1.0)


def user_aucs(
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> tuple[Array, Array]:
    """AUC within the rows of every user.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        users: [n] integers.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        By user in ascending order of ``users``: the AUC, NaN where the user lacks a class, and the
        total weight of the user's rows; both float64 [distinct users].

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y, s, w = score_rows(labels, scores, weights)
    ties = _TieGroups(validated_ids(users, y.size, name="users"), s, y, w)
    negative = ties.mass - ties.positive
    positives_U, negatives_U = ties.sum_by_owner(ties.positive), ties.sum_by_owner(negative)
    wins_U = ties.sum_by_owner(ties.positive * (ties.sum_of_lower_scores(negative) + negative / 2))
    pairs_U = positives_U * negatives_U
    aucs_U = np.divide(wins_U, pairs_U, out=np.full(pairs_U.shape, np.nan), where=pairs_U > 0)
    return aucs_U, positives_U + negatives_U


def ndcg_at_k(
    labels: Array, scores: Array, requests: Array, weights: Array | None = None, *, k: int = 10
) -> float | UndefinedMetric:
    """Mean nDCG@k over requests with a positive and more than one candidate.

    Gain is the label, discount 1 / log2(rank + 1). Equal scores divide the discounts of their ranks
    equally, so the order of rows does not matter. A row of weight w fills w ranks, as w copies do.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        requests: [n] integers.
        weights: [n] row weights, or None for 1 everywhere.
        k: How many ranks count.

    Returns:
        The mean, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y, s, w = score_rows(labels, scores, weights)
    request = validated_ids(requests, y.size, name="requests")
    counted = w > 0
    y, s, w, request = y[counted], s[counted], w[counted], request[counted]
    ties = _TieGroups(request, -s, y, w)
    ranks = np.arange(k + 1, dtype=np.float64)
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(ranks[1:] + 1))])
    above = ties.sum_of_lower_scores(ties.mass)
    group_discount = np.interp(above + ties.mass, ranks, discounts) - np.interp(
        above, ranks, discounts
    )
    dcg_R = ties.sum_by_owner(ties.positive / ties.mass * group_discount)
    ideal_R = np.interp(ties.sum_by_owner(ties.positive), ranks, discounts)
    defined_R = (ideal_R > 0) & (ties.rows_by_owner > 1)
    if not defined_R.any():
        return UndefinedMetric("no request has both a positive and more than one candidate")
    return float((dcg_R[defined_R] / ideal_R[defined_R]).mean())


class _TieGroups:
    """Rows sorted by owner (user or request), then score, and summed over equal owner and score.

    A group is the rows of one owner with one score, so that rows of equal score share their ranks.
    """

    def __init__(self, owners: Array, scores: Array, labels: Array, weights: Array) -> None:
        order = np.lexsort((scores, owners))
        owners, scores, labels, weights = (
            owners[order],
            scores[order],
            labels[order],
            weights[order],
        )
        first_of_owner = np.ones(owners.size, dtype=bool)
        first_of_owner[1:] = owners[1:] != owners[:-1]
        first_of_group = first_of_owner.copy()
        first_of_group[1:] |= scores[1:] != scores[:-1]
        starts = np.flatnonzero(first_of_group)
        self._owner = np.cumsum(first_of_owner)[starts] - 1
        self._owners = int(first_of_owner.sum())
        self.mass = np.add.reduceat(weights, starts) if starts.size else np.empty(0)
        """Total weight of every group, [groups]."""
        self.positive = np.add.reduceat(weights * labels, starts) if starts.size else np.empty(0)
        """Total weight of every group's positives, [groups]."""
        self.rows_by_owner = np.diff(np.append(np.flatnonzero(first_of_owner), owners.size))
        """How many rows every owner has, int64 [owners]."""

    def sum_by_owner(self, values: Array) -> Array:
        """Sums of group values [groups] over their owner, [owners]."""
        totals: Array = np.bincount(self._owner, values, minlength=self._owners)
        return totals

    def sum_of_lower_scores(self, values: Array) -> Array:
        """For every group the sum of ``values`` over its owner's groups of lower score."""
        exclusive = np.cumsum(values) - values
        totals = self.sum_by_owner(values)
        # a difference of two cumulative sums: rounding may leave it a little below 0
        lower: Array = np.maximum(exclusive - (np.cumsum(totals) - totals)[self._owner], 0.0)
        return lower
