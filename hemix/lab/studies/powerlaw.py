"""Laws of scale: L = a + b x^-c, and L = intercept - slope log10 x, fitted to a few sizes, with
intervals from resampling.

The power law is linear in a and b once c is known: c runs over a grid, a and b follow by least
squares, held at 0 or above. Where few sizes on a nearly straight line cannot tell the asymptote a,
the log-linear law says what they can. Numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemix.evaluation.differences import MetricEstimate
from hemix.evaluation.metrics import Array

__all__ = ["Law", "fit_laws", "log_linear", "power_law", "replicate_values"]

_EXPONENTS = np.geomspace(0.01, 4, 1200)
_LEAST_POINTS = 4
_AT_EDGE_MAX = 0.05
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Law:
    """Fits of one value against one axis; intervals are 95 %, from the replicates."""

    a: float | None
    b: float | None
    c: float | None
    """None where there are too few sizes"""
    a_ci95: tuple[float, float] | None
    c_ci95: tuple[float, float] | None
    asymptote_told: bool
    """Whether the resamples agree on an a above 0 and a c inside the grid"""
    intercept: float
    slope: float
    """What a tenfold x takes off the value"""
    slope_ci95: tuple[float, float]


def power_law(x: Array, values: Array) -> tuple[Array, Array, Array]:
    """(a, b, c), [m] each, of ``values`` [m, K] at ``x`` [K] > 0: least squares with a, b >= 0."""
    values = np.atleast_2d(values)
    best = np.full(len(values), np.inf)
    a, b, c = (np.zeros(len(values)) for _ in range(3))
    scale = float(np.exp(np.log(x).mean()))
    for exponent in _EXPONENTS:
        basis = (x / scale) ** -exponent
        centred = basis - basis.mean()
        slope = np.maximum(values @ centred / (centred @ centred), 0.0)
        base = values.mean(1) - slope * basis.mean()
        below = base < 0
        slope = np.where(below, np.maximum(values @ basis / (basis @ basis), 0.0), slope)
        base = np.where(below, 0.0, base)
        error = ((values - base[:, None] - slope[:, None] * basis) ** 2).sum(1)
        better = error < best
        best = np.where(better, error, best)
        a, b, c = (
            np.where(better, base, a),
            np.where(better, slope * scale**exponent, b),
            np.where(better, exponent, c),
        )
    return a, b, c


def log_linear(x: Array, values: Array) -> tuple[Array, Array]:
    """(intercept, slope), [m] each, of ``values`` [m, K] = intercept - slope * log10(x [K])."""
    values = np.atleast_2d(values)
    centred = np.log10(x) - np.log10(x).mean()
    slope = -(values @ centred) / (centred @ centred)
    return values.mean(1) + slope * np.log10(x).mean(), slope


def replicate_values(
    runs: Sequence[Sequence[MetricEstimate]], *, count: int = 1000, seed: int = 0
) -> Array:
    """[count, K]: the mean over seeds of ``runs`` [K sizes][seeds] when users (the same for all
    sizes) and each size's seeds are drawn again with replacement; a metric's change is that of its
    users' influences.
    """
    users = len(runs[0][0].user_influence)
    rng = np.random.default_rng(seed)
    influence_UW = np.stack([run.user_influence for seeds in runs for run in seeds], axis=1)
    moved = np.empty((count, influence_UW.shape[1]))
    step = max(1, _CHUNK_BYTES // (8 * users))
    for first in range(0, count, step):
        drawn = rng.multinomial(users, np.full(users, 1 / users), size=min(step, count - first))
        moved[first : first + len(drawn)] = (drawn - 1) @ influence_UW
    values = np.empty((count, len(runs)))
    column = 0
    for size, seeds in enumerate(runs):
        mine = moved[:, column : column + len(seeds)] + np.array([run.value for run in seeds])
        values[:, size] = np.take_along_axis(
            mine, rng.integers(0, len(seeds), (count, len(seeds))), axis=1
        ).mean(1)
        column += len(seeds)
    return values


def fit_laws(x: Sequence[float], values: Sequence[float], replicates: Array) -> Law:
    """Both laws of ``values`` [K] at ``x`` [K], with intervals from ``replicates`` [m, K]."""
    x_K, y = np.asarray(x, dtype=np.float64), np.asarray(values, dtype=np.float64)
    intercept, slope = log_linear(x_K, y)
    _, slopes = log_linear(x_K, replicates)
    a = b = c = None
    a_ci = c_ci = None
    told = False
    if len(x_K) >= _LEAST_POINTS:
        a, b, c = (float(value[0]) for value in power_law(x_K, y))
        many_a, _, many_c = power_law(x_K, replicates)
        a_ci, c_ci = _interval(many_a), _interval(many_c)
        at_edge = float(((many_c <= _EXPONENTS[0]) | (many_c >= _EXPONENTS[-1])).mean())
        told = a_ci[0] > 0 and at_edge <= _AT_EDGE_MAX
    return Law(
        a=a,
        b=b,
        c=c,
        a_ci95=a_ci,
        c_ci95=c_ci,
        asymptote_told=told,
        intercept=float(intercept[0]),
        slope=float(slope[0]),
        slope_ci95=_interval(slopes),
    )


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
