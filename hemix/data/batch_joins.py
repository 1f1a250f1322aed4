"""Several :class:`~hemix.data.batch.RequestBatch` as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hemix.data.columns import Columns
from hemix.data.jagged import offsets_of

if TYPE_CHECKING:
    from hemix.data.batch import RequestBatch

__all__ = ["concatenate_batches"]

_POINTS_TO = {
    "event_item": "items",
    "user_index": "users",
    "history_ranges": "events",
    "request_index": "requests",
    "item_index": "items",
}
"""The rows that a field's values are positions of"""


def concatenate_batches(batches: Sequence[RequestBatch]) -> RequestBatch:
    """See :meth:`hemix.data.batch.RequestBatch.concatenate`."""
    first = batches[0]
    assert all(batch.cpu_copy is None for batch in batches), "lies on a device"
    counts = {
        "users": [batch.users_count for batch in batches],
        "events": [int(batch.event_item.shape[0]) for batch in batches],
        "requests": [batch.requests_count for batch in batches],
        "items": [batch.items.rows for batch in batches],
    }
    rows_before = {name: offsets_of(torch.tensor(rows)).tolist() for name, rows in counts.items()}
    joined: dict[str, Any] = {"loss_weight": None}
    for field in dataclasses.fields(first):
        values = [getattr(batch, field.name) for batch in batches]
        assert len({value is None for value in values}) == 1, f"{field.name}: of some batches only"
        if isinstance(values[0], Columns):
            joined[field.name] = Columns.concatenate(values)
        elif field.name in _POINTS_TO:
            before = rows_before[_POINTS_TO[field.name]][:-1]
            joined[field.name] = torch.cat([v + n for v, n in zip(values, before, strict=True)])
        elif field.name == "event_offsets":
            joined[field.name] = offsets_of(torch.cat([offsets.diff() for offsets in values]))
        elif field.name != "loss_weight" and isinstance(values[0], Tensor):
            joined[field.name] = torch.cat(values)
    return dataclasses.replace(first, **joined)
