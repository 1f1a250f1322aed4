"""Bootstrap clustered by user, because the impressions of a user depend on each other.

Replicate ``i`` is a function of the seed, ``i`` and the set of users alone. So all models, tasks
and training seeds get the same resamples, and replicates may be compared one by one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hemix.errors import DataError
from hemix.evaluation.metrics import Array, RankedPairs, UndefinedMetric

__all__ = ["Interval", "UserResamples", "auc_replicates", "percentile_interval", "replicates"]

_MIN_DEFINED_FRACTION = 0.9
"""An interval needs this fraction of its replicates; with more of one class it would mislead."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


class UserResamples:
    """Users drawn with replacement, ``count`` times.

    Iterating yields row multiplicities [n], int64.
    """

    def __init__(self, users: Array, *, count: int = 1000, seed: int = 0) -> None:
        """Take the users to draw from.

        Args:
            users: [n] integers: the user of every row.
            count: How many resamples.
            seed: Of the draws.

        Raises:
            DataError: ``count`` is below 1.
        """
        if count < 1:
            raise DataError(f"replicates: expected 1 or more, got {count}", field="count")
        distinct, codes = np.unique(np.asarray(users), return_inverse=True)
        self.users = int(distinct.size)
        self.count = count
        self.seed = seed
        self.codes = codes.astype(np.int32)
        """Position of every row's user among the sorted users, [n]."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Array]:
        for replicate in range(self.count):
            yield self.user_counts(replicate)[self.codes]

    def of_rows(self, rows: Array) -> UserResamples:
        """The same draws of the same users for some of the rows (positions, or a mask)."""
        selected = copy.copy(self)
        selected.codes = self.codes[rows]
        return selected

    def user_counts(self, replicate: int) -> Array:
        """How often each user is drawn, int64 [users] in ascending order of their numbers."""
        rng = np.random.default_rng([self.seed, replicate])
        counts: Array = np.bincount(rng.integers(0, self.users, self.users), minlength=self.users)
        return counts


def replicates(
    statistic: Callable[[Array], float | UndefinedMetric],
    resamples: UserResamples,
    weights: Array | None = None,
) -> Array:
    """Compute a statistic under every resample.

    Args:
        statistic: Takes row weights, float64 [n].
        resamples: Of the n rows.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        float64 [count]; NaN where a resample does not define the statistic.
    """
    values = np.full(len(resamples), np.nan)
    for i, multiplicity in enumerate(resamples):
        value = statistic(
            multiplicity.astype(np.float64) if weights is None else multiplicity * weights
        )
        if not isinstance(value, UndefinedMetric):
            values[i] = value
    return values


def auc_replicates(
    labels: Array, scores: Array, resamples: UserResamples, weights: Array | None = None
) -> Array:
    """Compute the AUC under every resample; rows are sorted once.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        resamples: Of the n rows.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        float64 [count]; NaN where a resample lacks a class.

    Raises:
        DataError: ``labels`` and ``resamples`` differ in length, or an array has a bad value.
    """
    if len(labels) != resamples.codes.size:
        raise DataError(
            f"labels: expected {resamples.codes.size} rows like the resamples, got {len(labels)}",
            field="labels",
        )
    pairs = RankedPairs(labels, scores)
    positive, negative = resamples.codes[pairs.positive], resamples.codes[pairs.negative]
    values = np.full(len(resamples), np.nan)
    for i in range(len(resamples)):
        counts = resamples.user_counts(i).astype(np.float64)
        w_positive, w_negative = counts[positive], counts[negative]
        if weights is not None:
            w_positive = w_positive * weights[pairs.positive]
            w_negative = w_negative * weights[pairs.negative]
        value = pairs.auc_of(w_positive, w_negative)
        if not isinstance(value, UndefinedMetric):
            values[i] = value
    return values


def percentile_interval(values: Array) -> Interval | UndefinedMetric:
    """The 2.5 % and 97.5 % percentiles of replicates, or of paired differences of replicates."""
    defined = values[~np.isnan(values)]
    if defined.size < 2 or defined.size < _MIN_DEFINED_FRACTION * values.size:
        return UndefinedMetric(f"only {defined.size} of {values.size} resamples of users define it")
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(float(low), float(high))
