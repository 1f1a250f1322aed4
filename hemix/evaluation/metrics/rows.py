"""The rows that every metric takes: validated labels, scores and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.errors import DataError

__all__ = [
    "Array",
    "UndefinedMetric",
    "missing_class",
    "probability_rows",
    "score_rows",
    "validated_ids",
    "validated_labels",
    "validated_scores",
    "validated_weights",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class UndefinedMetric:
    """A metric that the rows do not define, and why."""

    reason: str


def missing_class(positive_weight: float, negative_weight: float) -> UndefinedMetric:
    """Name the class that the rows lack, where they lack one.

    Args:
        positive_weight: Total weight of the positives.
        negative_weight: Total weight of the negatives.

    Returns:
        The reason why a metric of two classes is undefined.
    """
    if positive_weight > 0:
        return UndefinedMetric("no negatives")
    return UndefinedMetric("no positives" if negative_weight > 0 else "no rows")


def score_rows(
    labels: Array, scores: Array, weights: Array | None = None
) -> tuple[Array, Array, Array]:
    """Validate the rows of a ranking metric.

    Args:
        labels: [n] of 0 and 1.
        scores: [n] finite numbers.
        weights: [n] of 0 or more, or None for 1 everywhere.

    Returns:
        Labels as float64 [n], scores in their own dtype [n], weights as float64 [n].

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y = validated_labels(labels)
    return y, validated_scores(scores, y.size), validated_weights(weights, y.size)


def probability_rows(
    labels: Array, probabilities: Array, weights: Array | None = None
) -> tuple[Array, Array, Array]:
    """Validate the rows of a metric of probabilities.

    Args:
        labels: [n] of 0 and 1.
        probabilities: [n] from 0 to 1.
        weights: [n] of 0 or more, or None for 1 everywhere.

    Returns:
        Labels, probabilities and weights as float64 [n].

    Raises:
        DataError: An array has another shape or a value out of range.
    """
    y = validated_labels(labels)
    p = validated_scores(probabilities, y.size, name="probabilities").astype(np.float64)
    if p.size and (p.min() < 0 or p.max() > 1):
        row = int(np.flatnonzero((p < 0) | (p > 1))[0])
        raise _wrong_value("probabilities", "0 to 1", p, row)
    return y, p, validated_weights(weights, y.size)


def validated_labels(labels: Array) -> Array:
    """Labels as float64 [n]. Raises DataError for more dimensions or a value other than 0 and 1."""
    y = np.asarray(labels)
    if y.ndim != 1:
        raise _wrong_shape("labels", "one dimension", y)
    wrong = (y != 0) & (y != 1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise _wrong_value("labels", "0 or 1", y, row)
    return y.astype(np.float64)


def validated_scores(scores: Array, rows: int, *, name: str = "scores") -> Array:
    """Check that scores are finite and as many as the labels.

    Args:
        scores: [rows], of any numeric dtype.
        rows: How many labels there are.
        name: What error messages call the array.

    Returns:
        The scores in their own dtype, [rows].

    Raises:
        DataError: Another shape, or a value that is not finite.
    """
    values = np.asarray(scores)
    if values.shape != (rows,):
        raise _wrong_shape(name, f"shape ({rows},) like the labels", values)
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise _wrong_value(name, "finite numbers", values, row)
    return values


def validated_weights(weights: Array | None, rows: int) -> Array:
    """Check that weights are not negative and are as many as the labels.

    Args:
        weights: [rows], or None for 1 everywhere.
        rows: How many labels there are.

    Returns:
        The weights as float64 [rows].

    Raises:
        DataError: Another shape, or a value that is negative or not finite.
    """
    if weights is None:
        return np.ones(rows)
    w = validated_scores(weights, rows, name="weights").astype(np.float64)
    if rows and w.min() < 0:
        row = int(w.argmin())
        raise _wrong_value("weights", "0 or more", w, row)
    return w


def validated_ids(ids: Array, rows: int, *, name: str) -> Array:
    """Check that ids are as many as the labels.

    Args:
        ids: [rows] integers, such as users or requests.
        rows: How many labels there are.
        name: What error messages call the array.

    Returns:
        The ids, [rows].

    Raises:
        DataError: Another shape.
    """
    values = np.asarray(ids)
    if values.shape != (rows,):
        raise _wrong_shape(name, f"shape ({rows},) like the labels", values)
    return values


def _wrong_shape(name: str, expected: str, values: Array) -> DataError:
    return DataError(
        f"{name}: expected {expected}, got shape {values.shape}", code="wrong_shape", field=name
    )


def _wrong_value(name: str, expected: str, values: Array, row: int) -> DataError:
    return DataError(f"{name}: expected {expected}, got {values[row]} in row {row}", field=name)
