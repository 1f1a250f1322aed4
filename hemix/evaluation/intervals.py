"""How sure a metric is: bootstrap clustered by user, and cluster-robust standard errors of AUC.

A user's impressions come and go together, because they are not independent. Replicate ``i`` is a
function of the seed, ``i`` and the set of users alone, so all models, tasks and training seeds meet
the same resamples and may be compared replicate by replicate.

This module knows nothing of tasks, files, models or torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hemix.errors import DataError
from hemix.evaluation.metrics import (
    PROBABILITY_CLIP,
    Absent,
    Array,
    RankedPairs,
    logloss,
    user_aucs,
)

__all__ = [
    "FEW_USERS",
    "Difference",
    "Interval",
    "UserResamples",
    "auc_difference",
    "auc_influence",
    "auc_interval",
    "auc_replicates",
    "auc_standard_error",
    "clustered_error",
    "few_users",
    "gauc_influence",
    "logloss_influence",
    "percentile_interval",
    "replicates",
]

FEW_USERS = Absent("fewer than two users")
"""Resampling one user gives the same rows each time: an interval of no width"""

_LEAST_DEFINED = 0.9
"""An interval needs this share of its replicates: where more lack a class, percentiles of the rest
would mislead.
"""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better ``a`` is than ``b`` on the same rows: ``delta = a - b``."""

    delta: float
    ci95: Interval | Absent
    """From the bootstrap."""
    standard_error: float | Absent
    """From the influence of every user, without resampling."""


class UserResamples:
    """Users drawn with replacement, ``count`` times.

    Iterating yields row multiplicities [n], int64.
    """

    def __init__(self, users: Array, *, count: int = 1000, seed: int = 0) -> None:
        """``users`` [n] integers: the user of every row."""
        if count < 1:
            raise DataError(f"replicates: expected 1 or more, got {count}")
        known, codes = np.unique(np.asarray(users), return_inverse=True)
        self.users = int(known.size)
        self.count = count
        self.seed = seed
        self.codes = codes.astype(np.int32)
        """Position of every row's user among the sorted users, [n]."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Array]:
        for replicate in range(self.count):
            yield self.of_users(replicate)[self.codes]

    def of_rows(self, rows: Array) -> UserResamples:
        """The same draws of the same users, seen by some of the rows (positions, or a mask)."""
        part = copy.copy(self)
        part.codes = self.codes[rows]
        return part

    def of_users(self, replicate: int) -> Array:
        """How often each user was drawn, [users] in ascending order of their numbers."""
        rng = np.random.default_rng([self.seed, replicate])
        drawn: Array = np.bincount(rng.integers(0, self.users, self.users), minlength=self.users)
        return drawn


def replicates(
    statistic: Callable[[Array], float | Absent],
    resamples: UserResamples,
    weights: Array | None = None,
) -> Array:
    """``statistic(row weights)`` under every resample, [count]; NaN where a resample does not
    define it.
    """
    values = np.full(len(resamples), np.nan)
    for i, multiplicity in enumerate(resamples):
        value = statistic(
            multiplicity.astype(np.float64) if weights is None else multiplicity * weights
        )
        if not isinstance(value, Absent):
            values[i] = value
    return values


def auc_replicates(
    labels: Array, scores: Array, resamples: UserResamples, weights: Array | None = None
) -> Array:
    """AUC under every resample, [count]; NaN where a resample lacks a class. Rows are sorted once.

    ``labels``, ``scores`` and ``weights`` [n] are the rows of ``resamples``.
    """
    if len(labels) != resamples.codes.size:
        raise DataError(
            f"labels: expected {resamples.codes.size} rows like the resamples, got {len(labels)}"
        )
    pairs = RankedPairs(labels, scores)
    positive, negative = resamples.codes[pairs.positive], resamples.codes[pairs.negative]
    values = np.full(len(resamples), np.nan)
    for i in range(len(resamples)):
        drawn = resamples.of_users(i).astype(np.float64)
        w_positive, w_negative = drawn[positive], drawn[negative]
        if weights is not None:
            w_positive, w_negative = (
                w_positive * weights[pairs.positive],
                w_negative * weights[pairs.negative],
            )
        value = pairs.auc_of(w_positive, w_negative)
        if not isinstance(value, Absent):
            values[i] = value
    return values


def percentile_interval(values: Array) -> Interval | Absent:
    """The 2.5 % and 97.5 % percentiles of replicates (or of paired differences of replicates)."""
    defined = values[~np.isnan(values)]
    if defined.size < 2 or defined.size < _LEAST_DEFINED * values.size:
        return Absent(f"only {defined.size} of {values.size} resamples of users define it")
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(float(low), float(high))


def auc_influence(labels: Array, scores: Array, weights: Array | None = None) -> Array | Absent:
    """What one more copy of every row would change of the AUC, to first order and times 1 (not n),
    [n]; it sums to 0.

    A positive counts by how many negatives it beats, a negative by how many positives beat it
    (DeLong's placements).
    """
    y = np.asarray(labels)
    value = RankedPairs(y, scores).auc(weights)
    if isinstance(value, Absent):
        return value
    s = np.asarray(scores)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    influence = np.zeros(len(y))
    for label in (1, 0):
        mine, others = np.flatnonzero(y == label), np.flatnonzero(y == 1 - label)
        others = others[np.argsort(s[others], kind="stable")]
        cumulative = np.concatenate([[0.0], np.cumsum(w[others])])
        below = cumulative[np.searchsorted(s[others], s[mine], side="left")]
        not_above = cumulative[np.searchsorted(s[others], s[mine], side="right")]
        beaten = (below + not_above) / 2 / cumulative[-1]
        placement = beaten if label == 1 else 1 - beaten
        influence[mine] = w[mine] * (placement - value) / w[mine].sum()
    return influence


def logloss_influence(
    labels: Array, probabilities: Array, weights: Array | None = None
) -> Array | Absent:
    """What one more copy of every row would change of the mean log loss, to first order, [n]; it
    sums to 0.
    """
    value = logloss(labels, probabilities, weights)
    if isinstance(value, Absent):
        return value
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    loss = -np.log(np.clip(np.where(y == 1, p, 1 - p), PROBABILITY_CLIP, 1 - PROBABILITY_CLIP))
    influence: Array = w * (loss - value) / w.sum()
    return influence


def gauc_influence(
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> Array | Absent:
    """What one more copy of every user would change of GAUC, to first order, [users] in ascending
    order of ``users`` [n]; it sums to 0.

    A user who lacks a class has no say in GAUC.
    """
    of_user, mass = user_aucs(labels, scores, users, weights)
    both = ~np.isnan(of_user)
    if not both.any():
        return Absent("no user has both a positive and a negative")
    covered = mass[both].sum()
    value = mass[both] @ of_user[both] / covered
    influence: Array = np.where(
        both, mass * (np.where(both, of_user, value) - value) / covered, 0.0
    )
    return influence


def clustered_error(influence: Array, users: Array, counted: Array | None = None) -> float | Absent:
    """Standard error of a metric from the influence of every row, [n], robust to the dependence
    within a user; ``counted`` [n]: rows of a weight above 0 (None: all)."""
    if counted is not None and not counted.all():
        influence, users = influence[counted], np.asarray(users)[counted]
    known, codes = np.unique(np.asarray(users), return_inverse=True)
    if known.size < 2:
        return FEW_USERS
    of_user = np.bincount(codes, influence)
    return math.sqrt(float(of_user @ of_user) * known.size / (known.size - 1))


def few_users(
    users: Array, weights: Array | None = None, labels: Array | None = None
) -> Absent | None:
    """Why rows say nothing of how sure a metric is: fewer than two users with a weight above 0;
    with ``labels``, of either class, as AUC needs. What cannot vary from user to user would look
    like certainty."""
    users = np.asarray(users)
    counted = np.ones(users.size, dtype=bool) if weights is None else np.asarray(weights) > 0
    if np.unique(users[counted]).size < 2:
        return FEW_USERS
    for label, name in ((1, "positives"), (0, "negatives")):
        if (
            labels is not None
            and np.unique(users[counted & (np.asarray(labels) == label)]).size == 1
        ):
            return Absent(f"all {name} are of one user")
    return None


def auc_interval(
    labels: Array, scores: Array, resamples: UserResamples, weights: Array | None = None
) -> Interval | Absent:
    """The bootstrap's 95 % interval of AUC; the arguments are those of :func:`auc_replicates`."""
    few = few_users(resamples.codes, weights, labels)
    return few or percentile_interval(auc_replicates(labels, scores, resamples, weights))


def auc_standard_error(
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> float | Absent:
    """Standard error of AUC, robust to the dependence within a user; no resampling, O(n log n)."""
    influence = auc_influence(labels, scores, weights)
    if isinstance(influence, Absent):
        return influence
    return few_users(users, weights, labels) or clustered_error(influence, users, _counted(weights))


def _counted(weights: Array | None) -> Array | None:
    return None if weights is None else np.asarray(weights) > 0


def auc_difference(
    labels: Array,
    a: Array,
    b: Array,
    users: Array,
    weights: Array | None = None,
    *,
    resamples: UserResamples | None = None,
) -> Difference | Absent:
    """AUC of scores ``a`` minus AUC of scores ``b`` on the same rows, paired.

    Without ``resamples`` the interval is the normal one of the standard error.
    """
    auc_a, auc_b = RankedPairs(labels, a).auc(weights), RankedPairs(labels, b).auc(weights)
    influence_a, influence_b = auc_influence(labels, a, weights), auc_influence(labels, b, weights)
    if isinstance(auc_a, Absent):
        return auc_a
    assert (
        not isinstance(auc_b, Absent)
        and not isinstance(influence_a, Absent)
        and not isinstance(influence_b, Absent)
    )
    few = few_users(users, weights, labels)
    error = few or clustered_error(influence_a - influence_b, users, _counted(weights))
    delta = auc_a - auc_b
    interval: Interval | Absent
    if few is not None:
        interval = few
    elif resamples is not None:
        interval = percentile_interval(
            auc_replicates(labels, a, resamples, weights)
            - auc_replicates(labels, b, resamples, weights)
        )
    elif isinstance(error, Absent):
        interval = error
    else:
        interval = Interval(delta - 1.959964 * error, delta + 1.959964 * error)
    return Difference(delta=delta, ci95=interval, standard_error=error)
