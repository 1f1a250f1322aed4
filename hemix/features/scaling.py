"""Buckets and scales of numbers: how feature types learn them and apply them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.raw_columns import MAX_NUMBER
from hemix.data.spec import FIRST, MISSING

__all__ = ["Scale", "bucket_ids", "fit_scale", "quantile_edges"]

Array = npt.NDArray[Any]

_MAX_DEVIATIONS = 1e4
"""Values are clipped so many deviations from the mean, in training and serving alike, so that no
finite value overflows. With fewer than 1e8 rows of equal weight no train value lies farther out
(Chebyshev: at most n / 1e8 of n rows do)."""


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a number."""

    mean: float = 0.0
    std: float = 1.0

    def apply(self, values: Array) -> Array:
        """Standardise: float32, 0 where missing, at most 10,000 deviations either way."""
        with np.errstate(over="ignore"):  # infinity is clipped too
            deviations = (values - self.mean) / self.std
        clipped = deviations.clip(-_MAX_DEVIATIONS, _MAX_DEVIATIONS)
        return np.where(np.isnan(deviations), 0.0, clipped).astype(np.float32)


def fit_scale(samples: Sequence[tuple[Array, Array]]) -> Scale:
    """Learn mean and deviation; several samples count alike, whatever their sizes.

    A number as large as MAX_NUMBER means "no value", as DBL_MAX does. It is left out: otherwise it
    would hide the differences between all others.

    Args:
        samples: (values float64 [n], weights float64 [n]) each.
    """
    in_range = [np.abs(values) < MAX_NUMBER for values, _ in samples]
    usable = [(v[own], w[own]) for (v, w), own in zip(samples, in_range, strict=True)]
    usable = [(values, weights / weights.sum()) for values, weights in usable if len(values)]
    if not usable:
        return Scale()
    values = np.concatenate([values for values, _ in usable])
    weights = np.concatenate([weights for _, weights in usable]) / len(usable)
    order = np.lexsort((weights, values))  # so that sums do not depend on the order of reading
    values, weights = values[order], weights[order]
    mean = float((weights * values).sum())
    std = float(np.sqrt((weights * (values - mean) ** 2).sum()))
    return Scale(mean, std if std > 1e-12 * max(1.0, abs(mean)) else 1.0)


def quantile_edges(values: Array, weights: Array, buckets: int) -> Array:
    """Learn the edges of quantile buckets.

    Edge k is the smallest value with more than k / buckets of the weight at or below it. Edges that
    would leave the lowest bucket empty are left out.

    Args:
        values: float64 [n], in any order.
        weights: float64 [n].
        buckets: How many buckets at most.

    Returns:
        float64 [at most buckets - 1], strictly ascending.
    """
    if len(values) == 0:
        return np.zeros(0)
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(weights[order])
    at = np.searchsorted(below, below[-1] * np.arange(1, buckets) / buckets, side="right")
    edges = np.unique(values[at[at < len(values)]])
    above: Array = edges[edges > values[0]]
    return above


def bucket_ids(edges: Array, values: Array) -> Array:
    """Return int32 [rows]: 2 + the number of edges <= value, 1 where the value is missing.

    Args:
        edges: float64, ascending.
        values: float64 [rows], NaN where missing.
    """
    ids = (FIRST + np.searchsorted(edges, values, side="right")).astype(np.int32)
    ids[np.isnan(values)] = MISSING
    return ids
