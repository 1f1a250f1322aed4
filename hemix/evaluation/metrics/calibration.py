"""How far predicted probabilities agree with observed rates: PCOC, ECE, its floor, the curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemix.evaluation.metrics.rows import (
    Array,
    UndefinedMetric,
    missing_class,
    probability_rows,
)

__all__ = ["CalibrationPoint", "calibration_curve", "ece", "ece_floor", "pcoc"]

ECE_BINS = 10


@dataclass(frozen=True, kw_only=True)
class CalibrationPoint:
    """One equal-mass bin of predictions."""

    prediction: float
    """Mean prediction."""
    rate: float
    """Observed rate of positives."""
    standard_error: float
    """Standard error of the rate if the predictions were right."""
    rows: float
    """Rows in the bin; a fraction where a run of equal predictions crosses a bin border."""


def pcoc(
    labels: Array, probabilities: Array, weights: Array | None = None
) -> float | UndefinedMetric:
    """Predicted over observed positives; above 1 the model predicts too many.

    Args:
        labels: [n] of 0 and 1.
        probabilities: [n] from 0 to 1.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        The ratio, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y, p, w = probability_rows(labels, probabilities, weights)
    positive = float(w @ y)
    return float(w @ p) / positive if positive > 0 else missing_class(0.0, float(w.sum()))


def ece(
    labels: Array, probabilities: Array, weights: Array | None = None, *, bins: int = ECE_BINS
) -> float | UndefinedMetric:
    """Expected calibration error over bins of equal mass.

    A run of equal predictions that crosses a bin border is divided between the bins, so the order
    of rows does not matter.

    Args:
        labels: [n] of 0 and 1.
        probabilities: [n] from 0 to 1.
        weights: [n] row weights, or None for 1 everywhere.
        bins: How many bins.

    Returns:
        The mean absolute difference of mean prediction and observed rate, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y, p, w = probability_rows(labels, probabilities, weights)
    if not w.sum() > 0:
        return UndefinedMetric("no rows")
    return float(np.abs(_EqualMassBins(p, w, bins).sums(w * (p - y))).sum() / w.sum())


def ece_floor(
    labels: Array,
    probabilities: Array,
    weights: Array | None = None,
    *,
    bins: int = ECE_BINS,
    repetitions: int = 200,
    seed: int = 0,
) -> float | UndefinedMetric:
    """The ECE that a perfectly calibrated model with these predictions shows by chance.

    It is the expected ECE without any miscalibration, by simulation. With equal weights, labels are
    drawn from the predictions (a parametric bootstrap). Unequal weights usually depend on the label
    (negative sampling), so a drawn label would carry the weight of the other class. Then labels
    stay, and each row's deviation ``w * (p - y)`` gets a random sign (a sign-flip permutation).

    Args:
        labels: [n] of 0 and 1.
        probabilities: [n] from 0 to 1.
        weights: [n] row weights, or None for 1 everywhere.
        bins: How many bins.
        repetitions: How many simulations the mean is taken over.
        seed: Of the simulations.

    Returns:
        The mean ECE of the simulations, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y, p, w = probability_rows(labels, probabilities, weights)
    if not w.sum() > 0:
        return UndefinedMetric("no rows")
    equal_mass = _EqualMassBins(p, w, bins)
    if w.min() == w.max():
        chance, if_drawn, if_not_drawn = p, w * (p - 1), w * p
    else:
        chance, if_drawn, if_not_drawn = np.full(p.size, 0.5), w * (p - y), w * (y - p)
    order = equal_mass.order
    chance, change = chance[order].astype(np.float32), (if_drawn - if_not_drawn)[order]
    rng = np.random.default_rng(seed)
    base = equal_mass.sums(if_not_drawn[order], presorted=True)
    total = 0.0
    for _ in range(repetitions):
        drawn = rng.random(p.size, dtype=np.float32) < chance
        total += float(np.abs(base + equal_mass.sums(change * drawn, presorted=True)).sum())
    return total / repetitions / float(w.sum())


def calibration_curve(
    labels: Array, probabilities: Array, weights: Array | None = None, *, bins: int = ECE_BINS
) -> list[CalibrationPoint]:
    """The bins of :func:`ece` as points of a reliability curve.

    Args:
        labels: [n] of 0 and 1.
        probabilities: [n] from 0 to 1.
        weights: [n] row weights, or None for 1 everywhere.
        bins: How many bins.

    Returns:
        The points from low to high predictions; empty without rows.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y, p, w = probability_rows(labels, probabilities, weights)
    if not w.sum() > 0:
        return []
    equal_mass = _EqualMassBins(p, w, bins)
    mass = float(w.sum()) / bins
    variances = p * (1 - p) if w.min() == w.max() else (p - y) ** 2
    columns = (
        equal_mass.sums(w * p) / mass,
        equal_mass.sums(w * y) / mass,
        np.sqrt(equal_mass.sums(w * w * variances)) / mass,
        equal_mass.sums((w > 0).astype(np.float64)),
    )
    return [
        CalibrationPoint(prediction=prediction, rate=rate, standard_error=error, rows=rows)
        for prediction, rate, error, rows in zip(*(c.tolist() for c in columns), strict=True)
    ]


class _EqualMassBins:
    """Bins of equal weight along sorted predictions.

    A border inside a run of equal predictions divides the run's sums between two bins.
    """

    def __init__(self, predictions: Array, weights: Array, bins: int) -> None:
        self.order = np.argsort(predictions, kind="stable")
        """Rows by ascending prediction, int64 [n]."""
        ordered = predictions[self.order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        run_edges = np.append(starts, ordered.size)
        mass = np.concatenate([[0.0], np.cumsum(weights[self.order])])[run_edges]
        borders = np.linspace(0, mass[-1], bins + 1)
        run = np.clip(np.searchsorted(mass, borders, side="right") - 1, 0, starts.size - 1)
        width = mass[run + 1] - mass[run]
        self._fraction_of_run = np.divide(
            borders - mass[run], width, out=np.zeros(bins + 1), where=width > 0
        ).clip(0, 1)
        positions = np.unique(np.concatenate([[0], run_edges[run], run_edges[run + 1]]))
        self._segment_starts = positions[positions < ordered.size]
        self._run_start = np.searchsorted(positions, run_edges[run])
        self._run_end = np.searchsorted(positions, run_edges[run + 1])

    def sums(self, values: Array, *, presorted: bool = False) -> Array:
        """Return the sums of row values over every bin, [bins].

        Args:
            values: [n].
            presorted: Whether ``values`` are in the order of the bins already.
        """
        segment_sums = np.add.reduceat(
            values if presorted else values[self.order], self._segment_starts
        )
        cumulative = np.concatenate([[0.0], np.cumsum(segment_sums)])
        return np.diff(
            cumulative[self._run_start] * (1 - self._fraction_of_run)
            + cumulative[self._run_end] * self._fraction_of_run
        )
