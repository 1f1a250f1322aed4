"""What was known of each impression's labels when its split was trained or judged.

-1 stands for unknown throughout. Knows arrays, no files.
"""

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
    """Logged labels (int8 [rows] each) in agreement with the labels they depend on, and how many
    were changed, by label.

    A positive whose ``given`` label is 0 becomes 0 (and is counted); where that label is unknown,
    so is this one.
    """
    found: dict[str, Array] = {}
    changed: dict[str, int] = {}
    for name, label in labels.items():
        values = logged[name]
        if label.given is not None:
            given = found[label.given]
            wrong = (values == 1) & (given == 0)
            changed[name] = int(wrong.sum())
            values = np.where(wrong, 0, np.where(given == -1, -1, values)).astype(np.int8)
        found[name] = values
    return found, changed


def known_immediately(
    label: Label, values: Array, time_ms: Array, available_ms: Array | None
) -> Array:
    """bool [rows]: positives that were known from the impression's own time on."""
    positive: Array = values == 1
    if label.available_at is None or available_ms is None:
        return positive
    known: Array = positive & (available_ms <= time_ms)  # TIMELESS_MS, no such time, is below all
    return known


def known_since(
    labels: Mapping[str, Label], time_ms: Array, available_ms: Mapping[str, Array]
) -> dict[str, tuple[Array, Array]]:
    """By label (int64 [rows], int64 [rows]): from when on a running system would have counted the
    row, and, where it is positive, from when on as a positive. Not before the label that it depends
    on.
    """
    found: dict[str, tuple[Array, Array]] = {}
    for name, label in labels.items():
        final = time_ms + label.maturity_ms
        positive = np.maximum(
            final, available_ms.get(name, final)
        )  # TIMELESS_MS, no such time, is below all
        if label.given is not None:
            given_final, given_positive = found[label.given]
            final = np.maximum(final, given_final)
            positive = np.maximum(np.maximum(positive, final), given_positive)
        found[name] = final, positive
    return found


def labels_as_of(
    labels: Mapping[str, Label],
    logged: Mapping[str, Array],
    time_ms: Array,
    available_ms: Mapping[str, Array],
    as_of_ms: Array,
) -> Array:
    """int8 [rows, T]: the labels as they were known at ``as_of_ms`` [rows].

    A positive that became known later is unknown, and so is every label that was not yet mature: to
    keep only the early positives of the newest rows would teach a rate that is too high.
    """
    found: dict[str, Array] = {}
    for name, label in labels.items():
        values = logged[name].copy()
        if name in available_ms:
            available = available_ms[name]
            values[(values == 1) & (available != TIMELESS_MS) & (available > as_of_ms)] = -1
        if label.maturity_ms:
            values[time_ms + label.maturity_ms > as_of_ms] = -1
        if label.given is not None:
            values[found[label.given] == -1] = -1
        found[name] = values
    return np.stack(list(found.values()), axis=1)
