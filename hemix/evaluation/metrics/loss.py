"""Log loss, and the same relative to that of the base rate (NE)."""

from __future__ import annotations

import numpy as np

from hemix.evaluation.metrics.rows import (
    Array,
    UndefinedMetric,
    missing_class,
    probability_rows,
)

__all__ = ["PROBABILITY_CLIP", "base_rate_loss", "logloss", "ne"]

PROBABILITY_CLIP = 1e-15
"""Log loss clips probabilities to [1e-15, 1 - 1e-15]: one saturated mistake costs 34.5 and not
infinity.
"""


def logloss(
    labels: Array, probabilities: Array, weights: Array | None = None
) -> float | UndefinedMetric:
    """Mean of -log p(label) in nats.

    Args:
        labels: [n] of 0 and 1.
        probabilities: [n] from 0 to 1.
        weights: [n] row weights, or None for 1 everywhere.

    Returns:
        The log loss, or why it is undefined.

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y, p, w = probability_rows(labels, probabilities, weights)
    if not w.sum() > 0:
        return UndefinedMetric("no rows")
    chance = np.clip(np.where(y == 1, p, 1 - p), PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)
    return float(-(np.log(chance) @ w) / w.sum())


def base_rate_loss(rate: float) -> float:
    """Log loss of a constant prediction that equals the rate of positives: the entropy of ``rate``
    in nats, 0 for a single class.
    """
    rate = min(max(rate, 0.0), 1.0)
    if rate in (0.0, 1.0):
        return 0.0
    return float(-(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def ne(
    labels: Array, probabilities: Array, weights: Array | None = None
) -> float | UndefinedMetric:
    """Normalised entropy: log loss over the entropy of the rows' base rate.

    1 is as good as always predicting the base rate.

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
    positive, total = float(w @ y), float(w.sum())
    loss = logloss(y, p, w)
    if isinstance(loss, UndefinedMetric):
        return loss
    if not 0 < positive < total:
        return missing_class(positive, total - positive)
    return loss / base_rate_loss(positive / total)
