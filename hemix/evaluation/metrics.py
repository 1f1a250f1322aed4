"""Metrics of 0/1 labels and scores, as docs and ``metrics.json`` use the words.

Every function takes arrays of rows (impressions) and optional row weights: a row of weight 3 counts
as three such rows, a row of weight 0 as none. What cannot be computed is :class:`Absent` with a
reason, never NaN and never a made-up 0.5.

This module knows nothing of tasks, files, models or torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.errors import DataError

__all__ = [
    "PROBABILITY_CLIP",
    "Absent",
    "Array",
    "CalibrationPoint",
    "RankedPairs",
    "auc",
    "base_rate_loss",
    "calibration_curve",
    "ece",
    "ece_floor",
    "gauc",
    "logloss",
    "ndcg_at_k",
    "ne",
    "pcoc",
    "user_aucs",
]

Array = npt.NDArray[Any]

ECE_BINS = 10
PROBABILITY_CLIP = 1e-15
"""Log loss clips probabilities to [1e-15, 1 - 1e-15]: one saturated mistake costs 34.5 and not
infinity.
"""


@dataclass(frozen=True)
class Absent:
    """A metric that these rows do not define, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class CalibrationPoint:
    """One equal-mass bin of predictions."""

    prediction: float
    """Mean prediction."""
    rate: float
    """Observed rate of positives."""
    standard_error: float
    """Of the rate, if the predictions were right."""
    rows: float
    """Rows in the bin; a fraction where a run of equal predictions crosses the border of two
    bins.
    """


# -- ranking ---------------------------------------------------------------------------------------


class RankedPairs:
    """The pairs of a positive and a negative, ranked once, for AUC under any number of row weights.

    Sorting costs O(n log n), each :meth:`auc` O(n).
    """

    def __init__(self, labels: Array, scores: Array) -> None:
        """``labels`` [n] of 0 and 1, ``scores`` [n] finite. Raises DataError."""
        y, s = _labels(labels), _numbers("scores", scores, len(labels))
        positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
        self.positive = positive[np.argsort(s[positive], kind="stable")]
        """Rows of the positives by ascending score."""
        self.negative = negative[np.argsort(s[negative], kind="stable")]
        """Rows of the negatives by ascending score."""
        ordered = s[self.negative]
        self._below = np.searchsorted(ordered, s[self.positive], side="left")
        self._not_above = np.searchsorted(ordered, s[self.positive], side="right")

    def auc(self, weights: Array | None = None) -> float | Absent:
        """Chance that a positive scores above a negative, ties counting half; ``weights`` [n]."""
        if weights is None:
            return self.auc_of(np.ones(self.positive.size), np.ones(self.negative.size))
        return self.auc_of(weights[self.positive], weights[self.negative])

    def auc_of(self, positive_weights: Array, negative_weights: Array) -> float | Absent:
        """The same, with weights in the order of :attr:`positive` and :attr:`negative`."""
        cumulative = np.zeros(self.negative.size + 1)
        np.cumsum(negative_weights, out=cumulative[1:])
        total_positive, total_negative = float(positive_weights.sum()), float(cumulative[-1])
        if not total_positive > 0 or not total_negative > 0:
            return _one_class(total_positive, total_negative)
        wins = (cumulative[self._below] + cumulative[self._not_above]) / 2
        return float(wins @ positive_weights) / (total_positive * total_negative)


def auc(labels: Array, scores: Array, weights: Array | None = None) -> float | Absent:
    """Chance that a positive scores above a negative; ties count half."""
    return RankedPairs(labels, scores).auc(
        None if weights is None else _weights(weights, len(labels))
    )


def gauc(
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> tuple[float | Absent, float]:
    """Mean AUC within users, weighted by their impressions, over users with both classes; and the
    share of impressions that those users cover. ``users`` [n] integers.
    """
    of_user, mass = user_aucs(labels, scores, users, weights)
    both = ~np.isnan(of_user)
    if not both.any():
        return Absent("no user has both a positive and a negative"), 0.0
    covered = float(mass[both].sum())
    value = float(mass[both] @ of_user[both]) / covered
    return value, min(covered / float(mass.sum()), 1.0)


def user_aucs(
    labels: Array, scores: Array, users: Array, weights: Array | None = None
) -> tuple[Array, Array]:
    """Of every user, in ascending order of ``users`` [n]: the AUC within their rows (NaN where they
    lack a class), and the weight of their rows.
    """
    y, s, w = _rows(labels, scores, weights)
    groups = _TiedGroups(_ids("users", users, len(y)), s, y, w)
    positive, negative = groups.sum(groups.positive), groups.sum(groups.mass - groups.positive)
    wins = groups.sum(
        groups.positive
        * (groups.before(groups.mass - groups.positive) + (groups.mass - groups.positive) / 2)
    )
    pairs = positive * negative
    return np.divide(
        wins, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0
    ), positive + negative


def ndcg_at_k(
    labels: Array, scores: Array, requests: Array, weights: Array | None = None, *, k: int = 10
) -> float | Absent:
    """Mean nDCG of the first ``k`` over requests with a positive and more than one candidate.

    ``requests`` [n] integers.

    Gain is the label, discount 1 / log2(rank + 1). Equal scores share the discounts of the ranks
    they hold together, so the order of rows does not matter; a row of weight w holds w ranks, as
    its w copies would.
    """
    y, s, w = _rows(labels, scores, weights)
    keep = w > 0
    y, s, w, request = y[keep], s[keep], w[keep], _ids("requests", requests, len(keep))[keep]
    groups = _TiedGroups(request, -s, y, w)
    ranks = np.arange(k + 1, dtype=np.float64)
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(ranks[1:] + 1))])
    above = groups.before(groups.mass)
    held = np.interp(above + groups.mass, ranks, discounts) - np.interp(above, ranks, discounts)
    gained = groups.sum(groups.positive / groups.mass * held)
    ideal = np.interp(groups.sum(groups.positive), ranks, discounts)
    counted = (ideal > 0) & (groups.rows > 1)
    if not counted.any():
        return Absent("no request has both a positive and more than one candidate")
    return float((gained[counted] / ideal[counted]).mean())


class _TiedGroups:
    """Rows sorted by owner (user or request), then score, and summed over runs of equal owner and
    score.
    """

    def __init__(self, owner: Array, scores: Array, labels: Array, weights: Array) -> None:
        order = np.lexsort((scores, owner))
        owner, scores, labels, weights = owner[order], scores[order], labels[order], weights[order]
        first_of_owner = np.ones(owner.size, dtype=bool)
        first_of_owner[1:] = owner[1:] != owner[:-1]
        first = first_of_owner.copy()
        first[1:] |= scores[1:] != scores[:-1]
        starts = np.flatnonzero(first)
        self._owner = np.cumsum(first_of_owner)[starts] - 1
        self._owners = int(first_of_owner.sum())
        self.mass = np.add.reduceat(weights, starts) if starts.size else np.empty(0)
        self.positive = np.add.reduceat(weights * labels, starts) if starts.size else np.empty(0)
        self.rows = np.diff(np.append(np.flatnonzero(first_of_owner), owner.size))
        """Rows of every owner."""

    def sum(self, values: Array) -> Array:
        """Sums of group values over their owner, [owners]."""
        totals: Array = np.bincount(self._owner, values, minlength=self._owners)
        return totals

    def before(self, values: Array) -> Array:
        """For every group, the sum over the earlier groups of its owner."""
        exclusive = np.cumsum(values) - values
        totals = self.sum(values)
        earlier: Array = np.maximum(exclusive - (np.cumsum(totals) - totals)[self._owner], 0.0)
        return earlier


# -- probabilities ---------------------------------------------------------------------------------


def logloss(labels: Array, probabilities: Array, weights: Array | None = None) -> float | Absent:
    """Mean of -log p(label) in nats."""
    y, p, w = _rows(labels, probabilities, weights, probabilities=True)
    if not w.sum() > 0:
        return Absent("no rows")
    chance = np.clip(np.where(y == 1, p, 1 - p), PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)
    return float(-(np.log(chance) @ w) / w.sum())


def base_rate_loss(rate: float) -> float:
    """Log loss of always saying ``rate`` where it is the share of positives: the entropy in nats, 0
    for one class."""
    rate = min(max(rate, 0.0), 1.0)
    return (
        0.0 if rate in (0.0, 1.0) else float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))
    )


def ne(labels: Array, probabilities: Array, weights: Array | None = None) -> float | Absent:
    """Log loss over the entropy of these rows' base rate: 1 is as good as always saying the base
    rate.
    """
    y, p, w = _rows(labels, probabilities, weights, probabilities=True)
    positive, total = float(w @ y), float(w.sum())
    loss = logloss(y, p, w)
    if isinstance(loss, Absent):
        return loss
    if not 0 < positive < total:
        return _one_class(positive, total - positive)
    return loss / base_rate_loss(positive / total)


def pcoc(labels: Array, probabilities: Array, weights: Array | None = None) -> float | Absent:
    """Sum of predictions over sum of labels: above 1 the model promises too much."""
    y, p, w = _rows(labels, probabilities, weights, probabilities=True)
    positive = float(w @ y)
    return (
        float(w @ p) / positive
        if positive > 0
        else Absent("no positives" if w.sum() > 0 else "no rows")
    )


def ece(
    labels: Array, probabilities: Array, weights: Array | None = None, *, bins: int = ECE_BINS
) -> float | Absent:
    """Mean absolute difference of mean prediction and observed rate over ``bins`` bins of equal
    mass.

    Runs of equal predictions are shared out between the bins they cross, so the order of rows does
    not matter.
    """
    y, p, w = _rows(labels, probabilities, weights, probabilities=True)
    if not w.sum() > 0:
        return Absent("no rows")
    cuts = _EqualMass(p, w, bins)
    return float(np.abs(cuts.sums(w * (p - y))).sum() / w.sum())


def ece_floor(
    labels: Array,
    probabilities: Array,
    weights: Array | None = None,
    *,
    bins: int = ECE_BINS,
    repetitions: int = 200,
    seed: int = 0,
) -> float | Absent:
    """The ECE that a perfectly calibrated model with these predictions would show by chance alone:
    a mean over simulations.

    With equal weights, labels are drawn from the predictions. With unequal ones the weight usually
    depends on the label (negative sampling), and drawn labels would carry wrong weights: then the
    sign of every row's deviation is drawn instead.
    """
    y, p, w = _rows(labels, probabilities, weights, probabilities=True)
    if not w.sum() > 0:
        return Absent("no rows")
    cuts = _EqualMass(p, w, bins)
    if w.min() == w.max():
        chance, if_drawn, if_not = p, w * (p - 1), w * p
    else:
        chance, if_drawn, if_not = np.full(p.size, 0.5), w * (p - y), w * (y - p)
    order = cuts.order
    chance, if_not, change = (
        chance[order].astype(np.float32),
        if_not[order],
        (if_drawn - if_not)[order],
    )
    rng = np.random.default_rng(seed)
    base = cuts.sums(if_not, presorted=True)
    total = 0.0
    for _ in range(repetitions):
        drawn = rng.random(p.size, dtype=np.float32) < chance
        total += float(np.abs(base + cuts.sums(change * drawn, presorted=True)).sum())
    return total / repetitions / float(w.sum())


def calibration_curve(
    labels: Array, probabilities: Array, weights: Array | None = None, *, bins: int = ECE_BINS
) -> list[CalibrationPoint]:
    """The equal-mass bins of :func:`ece`, from low to high predictions; empty without rows."""
    y, p, w = _rows(labels, probabilities, weights, probabilities=True)
    if not w.sum() > 0:
        return []
    cuts = _EqualMass(p, w, bins)
    mass = float(w.sum()) / bins
    predictions, rates, rows = (
        cuts.sums(w * p) / mass,
        cuts.sums(w * y) / mass,
        cuts.sums((w > 0).astype(np.float64)),
    )
    deviations = p * (1 - p) if w.min() == w.max() else (p - y) ** 2
    errors = np.sqrt(cuts.sums(w * w * deviations)) / mass
    return [
        CalibrationPoint(prediction=float(a), rate=float(b), standard_error=float(c), rows=float(d))
        for a, b, c, d in zip(predictions, rates, errors, rows, strict=True)
    ]


class _EqualMass:
    """Bins of equal weight along sorted predictions.

    A border inside a run of equal predictions splits the run's sums.
    """

    def __init__(self, predictions: Array, weights: Array, bins: int) -> None:
        self.order = np.argsort(predictions, kind="stable")
        ordered = predictions[self.order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        edges = np.append(starts, ordered.size)
        """Row positions where runs of equal predictions begin and end."""
        mass = np.concatenate([[0.0], np.cumsum(weights[self.order])])[edges]
        borders = np.linspace(0, mass[-1], bins + 1)
        run = np.clip(np.searchsorted(mass, borders, side="right") - 1, 0, starts.size - 1)
        width = mass[run + 1] - mass[run]
        self._share = np.divide(
            borders - mass[run], width, out=np.zeros(bins + 1), where=width > 0
        ).clip(0, 1)
        positions = np.unique(np.concatenate([[0], edges[run], edges[run + 1]]))
        self._cuts = positions[positions < ordered.size]
        self._low, self._high = (
            np.searchsorted(positions, edges[run]),
            np.searchsorted(positions, edges[run + 1]),
        )

    def sums(self, values: Array, *, presorted: bool = False) -> Array:
        """Sums of row values over every bin, [bins]."""
        pieces = np.add.reduceat(values if presorted else values[self.order], self._cuts)
        cumulative = np.concatenate([[0.0], np.cumsum(pieces)])
        return np.diff(
            cumulative[self._low] * (1 - self._share) + cumulative[self._high] * self._share
        )


# -- checks ----------------------------------------------------------------------------------------


def _one_class(positive: float, negative: float) -> Absent:
    if positive > 0:
        return Absent("no negatives")
    return Absent("no positives" if negative > 0 else "no rows")


def _labels(labels: Array) -> Array:
    y = np.asarray(labels)
    if y.ndim != 1:
        raise DataError(f"labels: expected one dimension, got shape {y.shape}")
    wrong = (y != 0) & (y != 1)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise DataError(f"labels: expected 0 or 1, got {y[at]} in row {at}")
    return y.astype(np.float64)


def _numbers(name: str, values: Array, rows: int) -> Array:
    numbers = np.asarray(values)
    if numbers.shape != (rows,):
        raise DataError(f"{name}: expected shape ({rows},) like the labels, got {numbers.shape}")
    finite = np.isfinite(numbers)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise DataError(f"{name}: expected finite numbers, got {numbers[at]} in row {at}")
    return numbers


def _weights(weights: Array | None, rows: int) -> Array:
    if weights is None:
        return np.ones(rows)
    w = _numbers("weights", weights, rows).astype(np.float64)
    if rows and w.min() < 0:
        at = int(w.argmin())
        raise DataError(f"weights: expected 0 or more, got {w[at]} in row {at}")
    return w


def _ids(name: str, values: Array, rows: int) -> Array:
    ids = np.asarray(values)
    if ids.shape != (rows,):
        raise DataError(f"{name}: expected shape ({rows},) like the labels, got {ids.shape}")
    return ids


def _rows(
    labels: Array, scores: Array, weights: Array | None, *, probabilities: bool = False
) -> tuple[Array, Array, Array]:
    y = _labels(labels)
    s = _numbers("probabilities" if probabilities else "scores", scores, y.size)
    if probabilities:
        s = s.astype(np.float64)
        if s.size and (s.min() < 0 or s.max() > 1):
            at = int(np.flatnonzero((s < 0) | (s > 1))[0])
            raise DataError(f"probabilities: expected 0 to 1, got {s[at]} in row {at}")
    return y, s, _weights(weights, y.size)
