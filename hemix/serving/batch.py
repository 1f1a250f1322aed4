"""Encoded users and requests as RequestBatches: one user alone, to make a state of, or requests
whose users' states are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.jagged import int64_tensor
from hemix.data.jagged_array import JaggedArray, offsets_of
from hemix.data.layout import Block
from hemix.data.spec import InputSpec, LevelSpec
from hemix.serving.encoded import RequestSide, UserSide

__all__ = ["request_batch", "user_batch"]


def _no_rows(level: LevelSpec) -> Columns:
    no_lists = JaggedArray(values=np.zeros(0, np.int32), offsets=np.zeros(1, np.int64))
    block = Block(
        ids=np.zeros((0, len(level.tables)), np.int32),
        numbers=np.zeros((0, level.numbers), np.float32),
        jagged=(no_lists,) * len(level.jagged_tables),
    )
    return Columns.from_block(block)


def user_batch(side: UserSide, spec: InputSpec) -> RequestBatch:
    """Return a batch of one user with their events and without a request.

    Args:
        side: The user, encoded.
        spec: The columns of every level.
    """
    none = torch.zeros(0, dtype=torch.int64)
    return RequestBatch(
        users=Columns.from_block(side.user.block),
        event_offsets=torch.tensor([0, side.events]),
        event_item=int64_tensor(side.item_index),
        event_time_ms=int64_tensor(side.time_ms),
        event_ids=int64_tensor(side.ids),
        user_index=none,
        request_time_ms=none,
        context=_no_rows(spec.context),
        history_ranges=torch.zeros((0, 3), dtype=torch.int64),
        request_index=none,
        item_index=none,
        cross=_no_rows(spec.cross),
        bias=none,
        items=Columns.from_block(side.items),
    )


def request_batch(
    users: Sequence[UserSide], requests: Sequence[RequestSide], spec: InputSpec, bias: int
) -> RequestBatch:
    """Return a batch of requests without their users' events, which states hold.

    Every candidate has an item row of its own, in the order of candidates. Positions of events are
    those of the users' joined states.

    Args:
        users: The user of every request, encoded.
        requests: The requests, encoded; at least one.
        spec: The columns of every level.
        bias: The row of the bias table of every candidate.
    """
    counts = np.array([len(side.request.items) for side in requests])
    events_before = offsets_of([user.events for user in users])[:-1]
    ranges = np.concatenate([side.history_ranges for side in requests]) + events_before[:, None]
    candidates, request_index = int(counts.sum()), np.arange(len(requests))
    return RequestBatch(
        users=Columns.from_block(Block.concatenate([user.user.block for user in users])),
        event_offsets=torch.zeros(len(users) + 1, dtype=torch.int64),
        event_item=torch.zeros(0, dtype=torch.int64),
        event_time_ms=torch.zeros(0, dtype=torch.int64),
        event_ids=torch.zeros((0, len(spec.event.tables)), dtype=torch.int64),
        user_index=int64_tensor(request_index),
        request_time_ms=torch.tensor([side.request.time_ms for side in requests]),
        context=Columns.from_block(Block.concatenate([side.context for side in requests])),
        history_ranges=int64_tensor(ranges),
        request_index=int64_tensor(np.repeat(request_index, counts)),
        item_index=torch.arange(candidates),
        cross=Columns.from_block(Block.concatenate([side.cross for side in requests])),
        bias=torch.full((candidates,), bias, dtype=torch.int64),
        items=Columns.from_block(Block.concatenate([side.items for side in requests])),
    )
