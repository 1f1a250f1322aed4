"""Slices of a split, such as users with a short history, that get the same metrics as the split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hemix.evaluation.metrics import Array
from hemix.evaluation.predictions import Predictions

__all__ = ["HISTORY_EDGES", "REALTIME_EDGES", "slice_masks"]

HISTORY_EDGES = (0, 1, 10, 100, 300, 1000)
"""Where the slices of history length begin (events); the last is open."""

REALTIME_EDGES = (0, 1, 5, 20)
"""Where the slices of real-time length begin (events in the window); the last is open."""


def slice_masks(predictions: Predictions) -> dict[str, dict[str, Array]]:
    """Masks (bool [n]) of the slices that hold a row: ``{dimension: {slice: mask}}``.

    The slices of a dimension are a partition of the rows.
    """
    dimensions = {
        "history_length": _by_length(np.asarray(predictions.history_length), HISTORY_EDGES),
        "realtime_length": _by_length(np.asarray(predictions.realtime_length), REALTIME_EDGES),
        "user": _known_or_new(np.asarray(predictions.user_seen_in_train, dtype=bool)),
        "item": _known_or_new(np.asarray(predictions.item_seen_in_train, dtype=bool)),
    }
    return {
        dimension: {name: mask for name, mask in slices if mask.any()}
        for dimension, slices in dimensions.items()
    }


def _by_length(lengths: Array, edges: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    for begin, end in zip(edges, (*edges[1:], None), strict=True):
        if end is None:
            yield f"{begin}+", lengths >= begin
        else:
            name = str(begin) if end == begin + 1 else f"{begin}-{end - 1}"
            yield name, (lengths >= begin) & (lengths < end)


def _known_or_new(seen: Array) -> Iterator[tuple[str, Array]]:
    yield "known", seen
    yield "new", ~seen
