"""The same impressions with nothing shared: a user row, a history, a request and item rows of its
own for every impression.

This is the plain side of every benchmark of sharing, and `train.deduplicate: false`. A history is
cut to what its impression sees, and every event has an item row of its own, so that a model
computes each event's vector as often as impressions carry it. Scores and gradients are those of the
shared batch.
Knows tensors, not files.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import Columns, Jagged, RequestBatch

__all__ = ["rows_of", "unshared"]


def unshared(batch: RequestBatch, first: int = 0, last: int | None = None) -> RequestBatch:
    """Impressions [first, last) of ``batch``, each with its own copy of all that it reads.

    Item row i is impression i's candidate; behind these comes one item row per event.
    """
    chosen = slice(first, last)
    request_N = batch.request_index[chosen]
    N = request_N.shape[0]
    begin, middle, end = batch.history_ranges[request_N].unbind(1)
    lengths = end - begin
    offsets = F.pad(lengths.cumsum(0), (1, 0))
    total = int(offsets[-1])
    events = torch.arange(total, device=offsets.device)
    events += torch.repeat_interleave(begin - offsets[:-1], lengths, output_size=total)
    each = torch.arange(N, device=offsets.device)
    return dataclasses.replace(
        batch,
        users=rows_of(batch.users, batch.user_index[request_N]),
        event_offsets=offsets,
        event_item=N + torch.arange(total, device=offsets.device),
        event_time_ms=batch.event_time_ms[events],
        event_ids=batch.event_ids[events],
        user_index=each,
        request_time_ms=batch.request_time_ms[request_N],
        context=rows_of(batch.context, request_N),
        history_ranges=torch.stack([offsets[:-1], offsets[:-1] + middle - begin, offsets[1:]], 1),
        request_index=each,
        item_index=each,
        cross=rows_of(
            batch.cross, torch.arange(batch.candidates_count, device=offsets.device)[chosen]
        ),
        bias=batch.bias[chosen],
        items=rows_of(batch.items, torch.cat([batch.item_index[chosen], batch.event_item[events]])),
        labels=None if batch.labels is None else batch.labels[chosen],
        weights=None if batch.weights is None else batch.weights[chosen],
        impression_index=None if batch.impression_index is None else batch.impression_index[chosen],
    )


def rows_of(columns: Columns, rows: Tensor) -> Columns:
    """The given rows of a level, in that order."""
    return Columns(
        ids=columns.ids.index_select(0, rows),
        numbers=columns.numbers.index_select(0, rows),
        jagged=tuple(_lists(jagged, rows) for jagged in columns.jagged),
    )


def _lists(jagged: Jagged, rows: Tensor) -> Jagged:
    first, lengths = jagged.offsets[rows], jagged.offsets.diff()[rows]
    offsets = F.pad(lengths.cumsum(0), (1, 0))
    total = int(offsets[-1])
    places = torch.arange(total, device=rows.device)
    places += torch.repeat_interleave(first - offsets[:-1], lengths, output_size=total)
    return Jagged(values=jagged.values[places], offsets=offsets)
