"""Metrics of the top ranks within users or requests: nDCG, recall, MRR and hit rate.

Conventions: equal scores share their ranks as if their order were drawn by chance, so every metric
is an expectation. A row of weight w fills w ranks, as w copies do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from hemix.evaluation.metrics.rows import Array, UndefinedMetric, score_rows, validated_ids
from hemix.evaluation.metrics.ties import TieGroups

__all__ = ["RankedLists"]


class RankedLists:
    """The rows of every owner (a user or a request) by descending score, sorted once.

    Every metric is a mean over the owners with a positive and more than one candidate.
    """

    def __init__(
        self,
        labels: Array,
        scores: Array,
        owners: Array,
        weights: Array | None = None,
        *,
        owner: Literal["user", "request"] = "request",
    ) -> None:
        """Sort the rows.

        Args:
            labels: [n] of 0 and 1.
            scores: [n] finite numbers.
            owners: [n] integers: the user or request of every row.
            weights: [n] row weights, or None for 1 everywhere.
            owner: What ``owners`` are, for messages.

        Raises:
            DataError: An array has another shape or a value out of range.
        """
        y, s, w = score_rows(labels, scores, weights)
        owners = validated_ids(owners, y.size, name=f"{owner}s")
        counted = w > 0
        self._ties = TieGroups(owners[counted], -s[counted], y[counted], w[counted])
        self._above = self._ties.sum_of_earlier(self._ties.mass)
        """Ranks above every group, [groups]"""
        self._positives_O = self._ties.sum_by_owner(self._ties.positive)
        self._defined_O = (self._positives_O > 0) & (self._ties.rows_by_owner > 1)
        self._undefined = UndefinedMetric(
            f"no {owner} has both a positive and more than one candidate"
        )

    def ndcg_at(
        self, k: int, *, no_positives: Literal["skip", "zero"] = "skip"
    ) -> float | UndefinedMetric:
        """Mean nDCG@k: gain is the label, discount 1 / log2(rank + 1).

        Args:
            k: How many ranks count.
            no_positives: ``skip`` leaves out owners without a positive, and those with one
                candidate; with ``zero`` all owners count, those without a positive as 0.

        Returns:
            The mean, or why it is undefined.
        """
        ranks = np.arange(k + 1, dtype=np.float64)
        discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(ranks[1:] + 1))])
        ties = self._ties
        group_discount = np.interp(self._above + ties.mass, ranks, discounts) - np.interp(
            self._above, ranks, discounts
        )
        dcg_O = ties.sum_by_owner(ties.positive / ties.mass * group_discount)
        ideal_O = np.interp(self._positives_O, ranks, discounts)
        ndcg_O = np.divide(dcg_O, ideal_O, out=np.zeros(dcg_O.size), where=ideal_O > 0)
        if no_positives == "skip":
            return self._mean(ndcg_O)
        return float(ndcg_O.mean()) if self._positives_O.any() else self._undefined

    def recall_at(self, k: int) -> float | UndefinedMetric:
        """Mean fraction of an owner's positives that is among the first k ranks.

        Args:
            k: How many ranks count.

        Returns:
            The mean, or why it is undefined.
        """
        ties = self._ties
        within = np.clip(k - self._above, 0, ties.mass)
        within_k_O = ties.sum_by_owner(ties.positive / ties.mass * within)
        positives_O = self._positives_O
        return self._mean(
            np.divide(
                within_k_O, positives_O, out=np.zeros(positives_O.size), where=positives_O > 0
            )
        )

    def mrr(self) -> float | UndefinedMetric:
        """Mean reciprocal rank of an owner's first positive, or why it is undefined."""
        return self._mean_of_first_positive(lambda rank: 1 / rank)

    def hit_rate_at(self, k: int) -> float | UndefinedMetric:
        """Fraction of owners with a positive among the first k ranks.

        Args:
            k: How many ranks count.

        Returns:
            The fraction, or why it is undefined.
        """
        return self._mean_of_first_positive(lambda rank: (rank <= k).astype(np.float64))

    def _mean_of_first_positive(self, gain: Callable[[Array], Array]) -> float | UndefinedMetric:
        """Mean over owners of the expected gain of the first positive's rank.

        Among m tied rows with p positives, row j + 1 is the first positive with chance p / (m - j)
        if none came before.
        """
        groups = np.flatnonzero(self._ties.positive > 0)
        owner, first = np.unique(self._ties.owner[groups], return_index=True)
        groups = groups[first]
        above, mass = self._above[groups], self._ties.mass[groups]
        positive = self._ties.positive[groups]
        gains, none_before = np.zeros(groups.size), np.ones(groups.size)
        rows_before = 0
        active = np.arange(groups.size)
        while active.size:
            left = mass[active] - rows_before
            chance = np.where(left > positive[active], positive[active] / np.maximum(left, 1e-9), 1)
            gains[active] += none_before[active] * chance * gain(above[active] + rows_before + 1)
            none_before[active] *= 1 - chance
            rows_before += 1
            active = active[none_before[active] > 0]
        gains_O = np.zeros(self._positives_O.size)
        gains_O[owner] = gains
        return self._mean(gains_O)

    def _mean(self, values_O: Array) -> float | UndefinedMetric:
        """Mean of the owners' values [owners] over those that define a ranking."""
        if not self._defined_O.any():
            return self._undefined
        return float(values_O[self._defined_O].mean())
