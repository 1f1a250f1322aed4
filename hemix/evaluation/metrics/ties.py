"""Rows of equal score within a user or request, summed, so that the order of rows is free."""

from __future__ import annotations

import numpy as np

from hemix.evaluation.metrics.rows import Array

__all__ = ["TieGroups"]


class TieGroups:
    """Rows sorted by owner (user or request), then score, and summed over equal owner and score.

    A group is the rows of one owner with one score, so that rows of equal score share their ranks.
    """

    def __init__(self, owners: Array, scores: Array, labels: Array, weights: Array) -> None:
        """Sort the rows.

        Args:
            owners: [n] integers.
            scores: [n] finite numbers, in whose ascending order the groups of an owner come.
            labels: float64 [n] of 0 and 1.
            weights: float64 [n] of 0 or more.
        """
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
        self.owner = np.cumsum(first_of_owner)[starts] - 1
        """Position of every group's owner in ascending order of owners, int64 [groups]."""
        self._owners = int(first_of_owner.sum())
        self.mass = np.add.reduceat(weights, starts) if starts.size else np.empty(0)
        """Total weight of every group, [groups]."""
        self.positive = np.add.reduceat(weights * labels, starts) if starts.size else np.empty(0)
        """Total weight of every group's positives, [groups]."""
        self.rows_by_owner = np.diff(np.append(np.flatnonzero(first_of_owner), owners.size))
        """How many rows every owner has, int64 [owners]."""

    def sum_by_owner(self, values: Array) -> Array:
        """Sums of group values [groups] over their owner, [owners]."""
        totals: Array = np.bincount(self.owner, values, minlength=self._owners)
        return totals

    def sum_of_earlier(self, values: Array) -> Array:
        """For every group the sum of ``values`` over its owner's groups before it, [groups]."""
        exclusive = np.cumsum(values) - values
        totals = self.sum_by_owner(values)
        # a difference of two cumulative sums: rounding may leave it a little below 0
        lower: Array = np.maximum(exclusive - (np.cumsum(totals) - totals)[self.owner], 0.0)
        return lower
