"""A RequestBatch as the named, padded arrays that the exported graphs take.

Knows the names that `hemix.exporting.export_model` gives its inputs; no ONNX.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hemix.data.batch import Columns, RequestBatch
from hemix.data.spec import InputSpec, LevelSpec
from hemix.exporting.export_model import PADDING

__all__ = ["Feed", "by_candidate", "request_feed", "user_feed"]

Feed = dict[str, npt.NDArray[Any]]


def user_feed(batch: RequestBatch, spec: InputSpec) -> Feed:
    """Inputs of the user encoder: every user of the batch, histories padded to the longest."""
    lengths = batch.event_offsets.diff().tolist()

    def padded(rows: Tensor) -> Tensor:
        return pad_sequence(list(torch.split(rows, lengths)), batch_first=True)

    tensors = _columns("user", spec.user, batch.users)
    if spec.event_item_columns:
        tensors["event_item_ids"] = batch.items.ids[:, list(spec.event_item_columns)]
        tensors["event_item"] = padded(batch.event_item)
    if spec.event.tables:
        tensors["event_ids"] = padded(batch.event_ids)
    tensors["event_time_ms"] = padded(batch.event_time_ms)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def request_feed(batch: RequestBatch, spec: InputSpec, timed: bool = True) -> Feed:
    """Inputs of the request graph beside the state: every request of the batch, candidates padded
    to the most of a request.

    ``timed``: whether the graph takes times (:func:`hemix.exporting.export_model.takes_times`).
    """
    request_N, slot_N = _slots(batch)
    shape = (batch.requests_count, int(slot_N.max()) + 1)

    def placed(rows: Tensor, fill: int = 0) -> Tensor:
        out = rows.new_full((*shape, *rows.shape[1:]), fill)
        out[request_N, slot_N] = rows
        return out

    tensors = {
        "user_index": batch.user_index,
        "visible": batch.history_ranges - batch.event_offsets[batch.user_index].unsqueeze(1),
        **_columns("context", spec.context, batch.context),
        **{
            name: placed(rows[batch.item_index])
            for name, rows in _columns("item", spec.item, batch.items).items()
        },
        **{name: placed(rows) for name, rows in _columns("cross", spec.cross, batch.cross).items()},
    }
    if timed:
        tensors["request_time_ms"] = batch.request_time_ms
    if spec.bias_rows:
        tensors["bias"] = placed(batch.bias)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def by_candidate(batch: RequestBatch, output: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An output [requests, candidates] of the graph, back as [N], the batch's candidates."""
    request_N, slot_N = _slots(batch)
    return np.asarray(output[request_N.numpy(), slot_N.numpy()])


def _slots(batch: RequestBatch) -> tuple[Tensor, Tensor]:
    """Request and place within it of every candidate."""
    count_Q = torch.bincount(batch.request_index, minlength=batch.requests_count)
    first_Q = count_Q.cumsum(0) - count_Q
    return batch.request_index, torch.arange(batch.candidates_count) - first_Q[batch.request_index]


def _columns(name: str, level: LevelSpec, columns: Columns) -> dict[str, Tensor]:
    tensors = {f"{name}_ids": columns.ids} if level.tables else {}
    for feature, jagged in zip(level.jagged_names, columns.jagged, strict=True):
        lists = [
            jagged.values.new_full((1,), PADDING),
            *torch.split(jagged.values, jagged.offsets.diff().tolist()),
        ]
        tensors[f"{name}_bag_{feature}"] = pad_sequence(
            lists, batch_first=True, padding_value=PADDING
        )[1:]
    if level.numbers:
        tensors[f"{name}_numbers"] = columns.numbers
    return tensors
