"""Encoded users and requests as RequestBatches: one of a user alone, to make a state of; one of
requests whose users' states are kept, whole or some of its candidates.

Knows shapes, not where the parts come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hemix.data.batch import Columns, Jagged, RequestBatch
from hemix.data.dataset import to_columns
from hemix.data.layout import Block
from hemix.data.spec import InputSpec, LevelSpec
from hemix.nn.inputs import Inputs
from hemix.serving.request_encoder import RequestSide, UserSide

__all__ = ["request_batch", "some_candidates", "user_batch"]

Array = npt.NDArray[Any]


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))


def _no_rows(level: LevelSpec) -> Block:
    nothing = (np.zeros(0, np.int32), np.zeros(1, np.int64))
    return Block(
        ids=np.zeros((0, len(level.tables)), np.int32),
        numbers=np.zeros((0, level.numbers), np.float32),
        jagged=(nothing,) * len(level.jagged_tables),
    )


def user_batch(side: UserSide, spec: InputSpec) -> RequestBatch:
    """One user with their events, and no request."""
    none = torch.zeros(0, dtype=torch.int64)
    return RequestBatch(
        users=to_columns(side.user.block),
        event_offsets=torch.tensor([0, side.events]),
        event_item=_tensor(side.item_index),
        event_time_ms=_tensor(side.time_ms),
        event_ids=_tensor(side.ids),
        user_index=none,
        request_time_ms=none,
        context=to_columns(_no_rows(spec.context)),
        history_ranges=torch.zeros((0, 3), dtype=torch.int64),
        request_index=none,
        item_index=none,
        cross=to_columns(_no_rows(spec.cross)),
        bias=none,
        items=to_columns(side.items),
    )


def request_batch(
    users: Sequence[UserSide], requests: Sequence[RequestSide], spec: InputSpec, bias: int
) -> RequestBatch:
    """Requests, each with its user at the same place; positions of events are those of the users'
    joined states. ``bias``: the row of the bias table of every candidate.
    """
    counts = np.array([len(r.request.items) for r in requests])
    before = np.concatenate([[0], np.cumsum([u.events for u in users])[:-1]]).astype(np.int64)
    rows, of_request = int(counts.sum()), np.arange(len(requests))
    return RequestBatch(
        users=to_columns(_joined([u.user.block for u in users])),
        event_offsets=torch.zeros(len(users) + 1, dtype=torch.int64),
        event_item=torch.zeros(0, dtype=torch.int64),
        event_time_ms=torch.zeros(0, dtype=torch.int64),
        event_ids=torch.zeros((0, len(spec.event.tables)), dtype=torch.int64),
        user_index=_tensor(of_request),
        request_time_ms=torch.tensor([r.request.time_ms for r in requests]),
        context=to_columns(_joined([r.context for r in requests])),
        history_ranges=_tensor(
            np.concatenate([r.history_ranges for r in requests]) + before[:, None]
        ),
        request_index=_tensor(np.repeat(of_request, counts)),
        item_index=torch.arange(rows),
        cross=to_columns(_joined([r.cross for r in requests])),
        bias=torch.full((rows,), bias, dtype=torch.int64),
        items=to_columns(_joined([r.items for r in requests])),
    )


def some_candidates(inputs: Inputs, first: int, last: int) -> Inputs:
    """The candidates ``first`` to ``last`` (exclusive) of an embedded :func:`request_batch`, in
    which each has the item row of its own place. In the host's memory; ids, numbers and vectors are
    views.
    """
    batch = inputs.batch
    assert batch.cpu_copy is None, "lies on a device"
    part = replace(
        batch,
        request_index=batch.request_index[first:last],
        item_index=batch.item_index[: last - first],
        cross=_some_rows(batch.cross, first, last),
        bias=batch.bias[first:last],
        items=_some_rows(batch.items, first, last),
    )
    item_IW, cross_NW = (
        None if rows is None else rows[first:last] for rows in (inputs.item_IW, inputs.cross_NW)
    )
    return replace(inputs, batch=part, item_IW=item_IW, cross_NW=cross_NW)


def _some_rows(columns: Columns, first: int, last: int) -> Columns:
    jagged = []
    for column in columns.jagged:
        offsets = column.offsets[first : last + 1]
        jagged.append(
            Jagged(
                values=column.values[int(offsets[0]) : int(offsets[-1])],
                offsets=offsets - offsets[0],
            )
        )
    return Columns(
        ids=columns.ids[first:last], numbers=columns.numbers[first:last], jagged=tuple(jagged)
    )


def _joined(blocks: list[Block]) -> Block:
    return blocks[0] if len(blocks) == 1 else Block.concatenate(blocks)
