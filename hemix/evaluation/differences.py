"""How much better one model is than another: paired over users, training seeds and origins, with an
interval and a p-value.

Given are the runs of two models on the same impressions: one or more rolling origins (test periods
of the same logs), and in each the same training seeds. The difference is the mean over origins and
seeds. Its variance has two parts:

    seeds   Within an origin the differences of the seeds vary: by training, and because every seed
            errs on users of its own. Their variance over their number is what both do to the mean.
            It has few degrees of freedom.
    users   Every metric here is, to first order, a sum over users of their influence. The
            influences of one user over all origins, averaged over the seeds, are added up: what
            the sampling of users does to the difference. The part of it that differs from seed to
            seed stands in the first variance already; the influences say how large it is, and it
            is taken off.

The interval is a Student's t with Satterthwaite's degrees of freedom: nearly normal where users
make the variance, wide where a few seeds do. docs/evidence.md derives it. This module knows nothing
of models, files or torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemix.evaluation import metrics
from hemix.evaluation.intervals import (
    FEW_USERS,
    Interval,
    auc_influence,
    few_users,
    gauc_influence,
    logloss_influence,
)
from hemix.evaluation.metrics import Absent, Array

__all__ = [
    "PAIRED_METRICS",
    "Measured",
    "PairedDifference",
    "holm",
    "measure",
    "paired_difference",
    "student_p",
    "student_quantile",
]

PAIRED_METRICS = ("auc", "gauc", "logloss")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A metric of one run, and what each user contributed."""

    value: float
    of_user: Array
    """float64 [users]: the change of the metric to first order if the user were there once more;
    sums to 0
    """


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """``delta`` = a - b."""

    delta: float
    ci95: Interval
    p: float
    """Two-sided, of no difference"""
    user_variance: float
    """By the users that all seeds err on alike"""
    seed_variance: float
    """By training, and by the users that each seed errs on alone"""
    freedom: float
    """Degrees of freedom of the interval"""


def measure(
    metric: str,
    labels: Array,
    probabilities: Array,
    users: Array,
    count: int,
    weights: Array | None = None,
) -> Measured | Absent:
    """A metric of PAIRED_METRICS with its influences; ``users`` [n] are positions among ``count``
    users. Absent, too, where fewer than two users have a say in it: then no influence says how sure
    it is."""
    of_user = np.zeros(count)
    value: float | Absent
    influence: Array | Absent
    if metric == "gauc":
        value, _ = metrics.gauc(labels, probabilities, users, weights)
        influence = gauc_influence(labels, probabilities, users, weights)
        if isinstance(value, Absent) or isinstance(influence, Absent):
            return Absent("no user has both a positive and a negative")
        if (
            np.count_nonzero(~np.isnan(metrics.user_aucs(labels, probabilities, users, weights)[0]))
            < 2
        ):
            return FEW_USERS
        of_user[np.unique(users)] = influence
        return Measured(value=value, of_user=of_user)
    if metric == "auc":
        value, influence = (
            metrics.auc(labels, probabilities, weights),
            auc_influence(labels, probabilities, weights),
        )
    else:
        value, influence = (
            metrics.logloss(labels, probabilities, weights),
            logloss_influence(labels, probabilities, weights),
        )
    if isinstance(value, Absent):
        return value
    if isinstance(influence, Absent):
        return influence
    few = few_users(users, weights, labels if metric == "auc" else None)
    if few is not None:
        return few
    return Measured(value=value, of_user=np.bincount(users, influence, minlength=count))


def paired_difference(
    a: Sequence[Sequence[Measured]], b: Sequence[Sequence[Measured]]
) -> PairedDifference | Absent:
    """``a`` minus ``b``: [origins][seeds] runs each, of the same impressions, users and number of
    seeds.

    With one seed the interval is over users alone: what another training run would give is not in
    it.
    """
    origins, users = len(a), len(a[0][0].of_user)
    if users < 2:
        return FEW_USERS
    total, of_user = 0.0, np.zeros(users)
    seed_variance, seed_spread, own_users = 0.0, 0.0, 0.0
    for runs_a, runs_b in zip(a, b, strict=True):
        deltas = np.array([x.value - y.value for x, y in zip(runs_a, runs_b, strict=True)])
        influence_SU = np.stack(
            [x.of_user - y.of_user for x, y in zip(runs_a, runs_b, strict=True)]
        )
        total += float(deltas.mean()) / origins
        mean_U = influence_SU.mean(0)
        of_user += mean_U / origins
        if (seeds := len(deltas)) > 1:
            mine = float(deltas.var(ddof=1)) / seeds / origins**2
            seed_variance += mine
            seed_spread += mine**2 / (seeds - 1)
            own_users += (
                float(((influence_SU - mean_U) ** 2).sum()) / (seeds - 1) / seeds / origins**2
            )
    user_variance = max(float(of_user @ of_user) * users / (users - 1) - own_users, 0.0)
    variance = user_variance + seed_variance
    if variance == 0:
        interval = Interval(total, total)
        return PairedDifference(
            delta=total,
            ci95=interval,
            p=float(total == 0),
            user_variance=0.0,
            seed_variance=0.0,
            freedom=users - 1,
        )
    freedom = variance**2 / (user_variance**2 / (users - 1) + seed_spread)
    error = math.sqrt(variance)
    width = student_quantile(freedom) * error
    return PairedDifference(
        delta=total,
        ci95=Interval(total - width, total + width),
        p=student_p(total / error, freedom),
        user_variance=user_variance,
        seed_variance=seed_variance,
        freedom=freedom,
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: below 0.05 stays true of all that are, with 95
    % (S. Holm, 1979).
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted


def student_p(t: float, freedom: float) -> float:
    """The chance that Student's t with ``freedom`` degrees of freedom is farther from 0 than
    ``t``.
    """
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def student_quantile(freedom: float, p: float = 0.05) -> float:
    """The t whose two-sided chance is ``p``."""
    low, high = 0.0, 2.0
    while student_p(high, freedom) > p:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > p else (low, middle)
    return (low + high) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function (NIST DLMF 8.17.22, by Lentz's method)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = (
        math.exp(
            math.lgamma(a + b)
            - math.lgamma(a)
            - math.lgamma(b)
            + a * math.log(x)
            + b * math.log1p(-x)
        )
        / a
    )
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, 10_000):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front / value
