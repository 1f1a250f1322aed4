"""A RequestBatch as the named, padded arrays that the exported graphs take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.jagged import Jagged, offsets_of
from hemix.data.spec import InputSpec, LevelSpec
from hemix.exporting.tensor_specs import PADDING

__all__ = ["Feed", "by_candidate", "request_feed", "user_feed"]

Feed = dict[str, npt.NDArray[Any]]
"""int64 or float32, by the name of the graph's input"""


def user_feed(batch: RequestBatch, spec: InputSpec) -> Feed:
    """Return the inputs of the user encoder, histories padded to the longest.

    Args:
        batch: The users.
        spec: The columns of every level.
    """

    def padded(events: Tensor) -> Tensor:
        return Jagged(values=events, offsets=batch.event_offsets).padded(0)

    tensors = _columns("user", spec.user, batch.users)
    if spec.event_item_columns:
        tensors["event_item_ids"] = batch.items.ids[:, list(spec.event_item_columns)]
        tensors["event_item"] = padded(batch.event_item)
    if spec.event.tables:
        tensors["event_ids"] = padded(batch.event_ids)
    tensors["event_time_ms"] = padded(batch.event_time_ms)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def request_feed(batch: RequestBatch, spec: InputSpec, timed: bool = True) -> Feed:
    """Return the inputs of the request graph without the state, candidates padded to the most of a
    request.

    Args:
        batch: The requests.
        spec: The columns of every level.
        timed: Whether the graph takes times (:func:`hemix.exporting.export_model.takes_times`).
    """
    offsets = offsets_of(batch.candidates_per_request)

    def padded(candidates: Tensor) -> Tensor:
        return Jagged(values=candidates, offsets=offsets).padded(0)

    items = _columns("item", spec.item, batch.items)
    cross = _columns("cross", spec.cross, batch.cross)
    tensors = {
        "user_index": batch.user_index,
        "visible": batch.history_ranges - batch.event_offsets[batch.user_index].unsqueeze(1),
        **_columns("context", spec.context, batch.context),
        **{name: padded(rows[batch.item_index]) for name, rows in items.items()},
        **{name: padded(rows) for name, rows in cross.items()},
    }
    if timed:
        tensors["request_time_ms"] = batch.request_time_ms
    if spec.bias_rows:
        tensors["bias"] = padded(batch.bias)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def by_candidate(batch: RequestBatch, output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return an output of the graph in the order of the batch's candidates.

    Args:
        batch: The requests.
        output: float32 [requests, candidates].

    Returns:
        float32 [N].
    """
    padded = torch.from_numpy(output)
    return Jagged.from_padded(padded, batch.candidates_per_request).values.numpy()


def _columns(name: str, level: LevelSpec, columns: Columns) -> dict[str, Tensor]:
    tensors = {f"{name}_ids": columns.ids} if level.tables else {}
    for feature, jagged in zip(level.jagged_names, columns.jagged, strict=True):
        tensors[f"{name}_bag_{feature}"] = jagged.padded(PADDING, width=1)
    if level.numbers:
        tensors[f"{name}_numbers"] = columns.numbers
    return tensors
