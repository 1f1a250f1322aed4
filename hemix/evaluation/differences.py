"""The difference of two models, paired over users, training seeds and rolling origins.

The variance has two terms, users and seeds (docs/project/study-method.md derives both); the
interval is a Student's t with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from hemix.evaluation import metrics
from hemix.evaluation.influence import (
    FEWER_THAN_TWO_USERS,
    auc_influence,
    gauc_influence,
    logloss_influence,
    too_few_users,
)
from hemix.evaluation.metrics import Array, UndefinedMetric
from hemix.evaluation.resampling import Interval

__all__ = [
    "PAIRED_METRICS",
    "MetricEstimate",
    "PairedDifference",
    "estimate_metric",
    "holm",
    "paired_difference",
]

PAIRED_METRICS = ("auc", "gauc", "logloss")


@dataclass(frozen=True, kw_only=True)
class MetricEstimate:
    """A metric of one run, and the influence of each user on it."""

    value: float
    user_influence: Array
    """float64 [users]: the change of the metric to first order if the user were there once more;
    sums to 0.
    """


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much better ``a`` is than ``b``: ``delta = a - b``."""

    delta: float
    ci95: Interval
    p: float
    """Two-sided p-value of no difference."""
    user_variance: float
    """Variance from the sampling of users that all seeds have in common."""
    seed_variance: float
    """Variance from training, and from the users on which each seed alone errs."""
    freedom: float
    """Degrees of freedom of the interval."""


def estimate_metric(
    metric: str,
    labels: Array,
    probabilities: Array,
    users: Array,
    count: int,
    weights: Array | None = None,
) -> MetricEstimate | UndefinedMetric:
    """Compute a metric and the influence of every user on it.

    Args:
        metric: One of PAIRED_METRICS.
        labels: [n] of 0 and 1.
        probabilities: [n] from 0 to 1.
        users: [n] positions among the ``count`` users.
        count: How many users there are.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        The estimate, or why it is undefined; also where fewer than two users contribute to the
        metric, because then no influence tells how certain it is.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    if metric == "gauc":
        return _estimate_gauc(labels, probabilities, users, count, weights)
    value: float | UndefinedMetric
    influence: Array | UndefinedMetric
    if metric == "auc":
        value = metrics.auc(labels, probabilities, weights)
        influence = auc_influence(labels, probabilities, weights)
    else:
        value = metrics.logloss(labels, probabilities, weights)
        influence = logloss_influence(labels, probabilities, weights)
    if isinstance(value, UndefinedMetric):
        return value
    if isinstance(influence, UndefinedMetric):
        return influence
    undefined = too_few_users(users, weights, labels if metric == "auc" else None)
    if undefined is not None:
        return undefined
    return MetricEstimate(
        value=value, user_influence=np.bincount(users, influence, minlength=count)
    )


def _estimate_gauc(
    labels: Array, probabilities: Array, users: Array, count: int, weights: Array | None
) -> MetricEstimate | UndefinedMetric:
    value, _ = metrics.gauc(labels, probabilities, users, weights)
    influence = gauc_influence(labels, probabilities, users, weights)
    if isinstance(value, UndefinedMetric):
        return value
    if isinstance(influence, UndefinedMetric):
        return influence
    aucs, _, _ = metrics.user_aucs(labels, probabilities, users, weights)
    if np.count_nonzero(~np.isnan(aucs)) < 2:
        return FEWER_THAN_TWO_USERS
    user_influence = np.zeros(count)
    user_influence[np.unique(users)] = influence
    return MetricEstimate(value=value, user_influence=user_influence)


def paired_difference(
    a: Sequence[Sequence[MetricEstimate]], b: Sequence[Sequence[MetricEstimate]]
) -> PairedDifference | UndefinedMetric:
    """Compare two models on the same impressions: the mean difference over origins and seeds.

    The seeds of an origin differ by training, and because every seed errs on users of its own;
    their variance over their number is the seed variance. The influences of a user are added over
    origins and averaged over seeds; they give the user variance, less the term that the seed
    variance already holds. With one seed the interval covers users alone, not another training run.

    Args:
        a: [origins][seeds] estimates of the first model.
        b: The same of the second model: same impressions, users and number of seeds.

    Returns:
        ``a`` minus ``b``, or why the difference is undefined.
    """
    origins, users = len(a), len(a[0][0].user_influence)
    if users < 2:
        return FEWER_THAN_TWO_USERS
    delta, influence_U = 0.0, np.zeros(users)
    seed_variance, seed_variance_error, own_user_variance = 0.0, 0.0, 0.0
    for runs_a, runs_b in zip(a, b, strict=True):
        pairs = list(zip(runs_a, runs_b, strict=True))
        deltas_S = np.array([x.value - y.value for x, y in pairs])
        influence_SU = np.stack([x.user_influence - y.user_influence for x, y in pairs])
        mean_U = influence_SU.mean(0)
        delta += float(deltas_S.mean()) / origins
        influence_U += mean_U / origins
        if (seeds := len(pairs)) > 1:
            variance = float(deltas_S.var(ddof=1)) / seeds / origins**2
            seed_variance += variance
            seed_variance_error += variance**2 / (seeds - 1)
            own_user_variance += (
                float(((influence_SU - mean_U) ** 2).sum()) / (seeds - 1) / seeds / origins**2
            )
    user_variance = max(
        float(influence_U @ influence_U) * users / (users - 1) - own_user_variance, 0.0
    )
    variance = user_variance + seed_variance
    if variance == 0:
        interval, p, freedom = Interval(delta, delta), float(delta == 0), float(users - 1)
    else:
        freedom = variance**2 / (user_variance**2 / (users - 1) + seed_variance_error)
        error = math.sqrt(variance)
        half_width = float(special.stdtrit(freedom, 0.975)) * error
        interval = Interval(delta - half_width, delta + half_width)
        p = 2 * float(special.stdtr(freedom, -abs(delta) / error))
    return PairedDifference(
        delta=delta,
        ci95=interval,
        p=p,
        user_variance=user_variance,
        seed_variance=seed_variance,
        freedom=freedom,
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (S. Holm, 1979).

    Rejecting those below 0.05 keeps the family-wise error rate at 5 %.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted
