"""Labels as they were known when a split was trained or evaluated; -1 is an unknown label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.spec import TIMELESS_MS
from hemix.schema import Label

__all__ = ["apply_given_labels", "known_immediately", "known_since", "labels_as_of"]

Array = npt.NDArray[Any]


def apply_given_labels(
    labels: Mapping[str, Label], logged: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, int]]:
    """Make logged labels agree with the labels that they depend on.

    A positive becomes 0 if its ``given`` label is 0, and unknown if its ``given`` label is unknown.

    Args:
        labels: The labels of the schema.
        logged: int8 [rows] by label.

    Returns:
        int8 [rows] by label; and by label the number of positives that became 0.
    """
    values_of: dict[str, Array] = {}
    changed: dict[str, int] = {}
    for name, label in labels.items():
        values = logged[name]
        if label.given is not None:
            given = values_of[label.given]
            wrong = (values == 1) & (given == 0)
            changed[name] = int(wrong.sum())
            values = np.where(wrong, 0, np.where(given == -1, -1, values)).astype(np.int8)
        values_of[name] = values
    return values_of, changed


def known_immediately(
    label: Label, values: Array, time_ms: Array, available_ms: Array | None
) -> Array:
    """Find the positives that were known at the time of their impression.

    Args:
        label: The label of the schema.
        values: int8 [rows], its values.
        time_ms: int64 [rows], UTC, the times of the impressions.
        available_ms: int64 [rows], UTC, when positives became known; None without such a column.

    Returns:
        bool [rows].
    """
    positive: Array = values == 1
    if label.available_at is None or available_ms is None:
        return positive
    known: Array = positive & (available_ms <= time_ms)  # no time (TIMELESS_MS) is below all times
    return known


def known_since(
    labels: Mapping[str, Label], time_ms: Array, available_ms: Mapping[str, Array]
) -> dict[str, tuple[Array, Array]]:
    """Compute when a live system would have counted each row.

    Args:
        labels: The labels of the schema.
        time_ms: int64 [rows], UTC, the times of the impressions.
        available_ms: By label int64 [rows], UTC, when positives became known.

    Returns:
        By label two times, int64 [rows] each: since when the row counts, and since when it counts
        as a positive. Neither is before that of the ``given`` label.
    """
    since: dict[str, tuple[Array, Array]] = {}
    for name, label in labels.items():
        final = time_ms + label.maturity_ms
        # no time (TIMELESS_MS) is below all times
        positive = np.maximum(final, available_ms.get(name, final))
        if label.given is not None:
            given_final, given_positive = since[label.given]
            final = np.maximum(final, given_final)
            positive = np.maximum(np.maximum(positive, final), given_positive)
        since[name] = final, positive
    return since


def labels_as_of(
    labels: Mapping[str, Label],
    logged: Mapping[str, Array],
    time_ms: Array,
    available_ms: Mapping[str, Array],
    as_of_ms: Array,
) -> Array:
    """Return the labels as they were known at a time.

    A positive that became known later is unknown. A label that was not yet mature is unknown as
    well: early positives without their late negatives would teach a rate that is too high.

    Args:
        labels: The labels of the schema.
        logged: By label int8 [rows].
        time_ms: int64 [rows], UTC, the times of the impressions.
        available_ms: By label int64 [rows], UTC, when positives became known.
        as_of_ms: int64 [rows], UTC.

    Returns:
        int8 [rows, T].
    """
    known: dict[str, Array] = {}
    for name, label in labels.items():
        values = logged[name].copy()
        if name in available_ms:
            available = available_ms[name]
            values[(values == 1) & (available != TIMELESS_MS) & (available > as_of_ms)] = -1
        if label.maturity_ms:
            values[time_ms + label.maturity_ms > as_of_ms] = -1
        if label.given is not None:
            values[known[label.given] == -1] = -1
        known[name] = values
    return np.stack(list(known.values()), axis=1)
