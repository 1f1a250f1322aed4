"""Scaling laws: L = a + b x^-c, and L = intercept - slope log10 x, fitted to a few sizes.

For a fixed c the power law is linear in a and b. So c is searched on a grid, and least squares with
a, b >= 0 give a and b, of all resamples at once and without a first guess. SciPy's ``curve_fit``
takes one resample at a time and may end in another optimum. Intervals come from resampled users and
seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemix.evaluation.differences import MetricEstimate
from hemix.evaluation.metrics import Array

__all__ = ["ScalingLaw", "fit_scaling_law", "log_linear", "power_law", "resample_values"]

_EXPONENTS = np.geomspace(0.01, 4, 1200)
_POINTS_MIN = 4
_AT_GRID_EDGE_MAX = 0.05
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """Fits of a value against an axis, with 95 % intervals."""

    a: float | None
    b: float | None
    c: float | None
    """None with fewer than four sizes"""
    a_ci95: tuple[float, float] | None
    c_ci95: tuple[float, float] | None
    has_asymptote: bool
    """Whether the resamples agree on an a above 0 and a c inside the grid"""
    intercept: float
    slope: float
    """Decrease of the value per tenfold x"""
    slope_ci95: tuple[float, float]


def power_law(x: Array, values: Array) -> tuple[Array, Array, Array]:
    """Fit values = a + b x^-c by least squares with a, b >= 0.

    Args:
        x: float64 [K], above 0.
        values: float64 [m, K] or [K].

    Returns:
        a, b and c, float64 [m] each.
    """
    values = np.atleast_2d(values)
    lowest_error = np.full(len(values), np.inf)
    a, b, c = (np.zeros(len(values)) for _ in range(3))
    scale = float(np.exp(np.log(x).mean()))
    for exponent in _EXPONENTS:
        basis = (x / scale) ** -exponent
        centred = basis - basis.mean()
        slope = np.maximum(values @ centred / (centred @ centred), 0.0)
        base = values.mean(1) - slope * basis.mean()
        negative = base < 0
        slope = np.where(negative, np.maximum(values @ basis / (basis @ basis), 0.0), slope)
        base = np.where(negative, 0.0, base)
        error = ((values - base[:, None] - slope[:, None] * basis) ** 2).sum(1)
        better = error < lowest_error
        lowest_error = np.where(better, error, lowest_error)
        a, b, c = (
            np.where(better, base, a),
            np.where(better, slope * scale**exponent, b),
            np.where(better, exponent, c),
        )
    return a, b, c


def log_linear(x: Array, values: Array) -> tuple[Array, Array]:
    """Fit values = intercept - slope * log10(x) by least squares.

    Args:
        x: float64 [K], above 0.
        values: float64 [m, K] or [K].

    Returns:
        intercept and slope, float64 [m] each.
    """
    values = np.atleast_2d(values)
    centred = np.log10(x) - np.log10(x).mean()
    slope = -(values @ centred) / (centred @ centred)
    return values.mean(1) + slope * np.log10(x).mean(), slope


def resample_values(
    runs: Sequence[Sequence[MetricEstimate]], *, count: int = 1000, seed: int = 0
) -> Array:
    """Draw users and seeds again with replacement, and compute each size's mean over its seeds.

    All sizes get the same users. A metric changes by the sum of its users' influences.

    Args:
        runs: [K sizes][seeds] measured trials.
        count: Number of resamples.
        seed: Seed of the random draws.

    Returns:
        float64 [count, K].
    """
    users = len(runs[0][0].user_influence)
    rng = np.random.default_rng(seed)
    influence_UW = np.stack([run.user_influence for seeds in runs for run in seeds], axis=1)
    changes = np.empty((count, influence_UW.shape[1]))
    step = max(1, _CHUNK_BYTES // (8 * users))
    for first in range(0, count, step):
        drawn = rng.multinomial(users, np.full(users, 1 / users), size=min(step, count - first))
        changes[first : first + len(drawn)] = (drawn - 1) @ influence_UW
    values = np.empty((count, len(runs)))
    column = 0
    for size, seeds in enumerate(runs):
        by_seed = changes[:, column : column + len(seeds)] + np.array([run.value for run in seeds])
        drawn_seeds = rng.integers(0, len(seeds), (count, len(seeds)))
        values[:, size] = np.take_along_axis(by_seed, drawn_seeds, axis=1).mean(1)
        column += len(seeds)
    return values


def fit_scaling_law(x: Sequence[float], values: Sequence[float], resamples: Array) -> ScalingLaw:
    """Fit both laws.

    Args:
        x: [K] sizes, above 0.
        values: [K] values that fall with the size.
        resamples: float64 [m, K], for the intervals.
    """
    x_K, values_K = np.asarray(x, dtype=np.float64), np.asarray(values, dtype=np.float64)
    intercept, slope = log_linear(x_K, values_K)
    _, slopes = log_linear(x_K, resamples)
    a = b = c = None
    a_ci95 = c_ci95 = None
    has_asymptote = False
    if len(x_K) >= _POINTS_MIN:
        a, b, c = (float(value[0]) for value in power_law(x_K, values_K))
        resampled_a, _, resampled_c = power_law(x_K, resamples)
        a_ci95, c_ci95 = _interval(resampled_a), _interval(resampled_c)
        at_edge = (resampled_c <= _EXPONENTS[0]) | (resampled_c >= _EXPONENTS[-1])
        has_asymptote = a_ci95[0] > 0 and float(at_edge.mean()) <= _AT_GRID_EDGE_MAX
    return ScalingLaw(
        a=a,
        b=b,
        c=c,
        a_ci95=a_ci95,
        c_ci95=c_ci95,
        has_asymptote=has_asymptote,
        intercept=float(intercept[0]),
        slope=float(slope[0]),
        slope_ci95=_interval(slopes),
    )


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
