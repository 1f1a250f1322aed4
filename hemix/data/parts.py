"""A batch divided into parts: whole users each, with their requests, so that a user's work is done
by one of them.

What a part of no user leaves out, shapes of nothing, is a batch like any other. Knows tensors, not
processes.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.unshared import rows_of

__all__ = ["part_of"]


def part_of(batch: RequestBatch, part: int, parts: int) -> tuple[RequestBatch, Tensor]:
    """(users part, part + parts, part + 2 parts, ... of ``batch`` with all that is theirs; int64
    [n]: which of the batch's candidates those are). All parts together hold every candidate once.
    The batch lies in the host's memory.
    """
    users = torch.arange(batch.users_count)[part::parts]
    requests = torch.nonzero(batch.user_index % parts == part).squeeze(1)
    candidates = torch.nonzero((batch.user_index % parts == part)[batch.request_index]).squeeze(1)
    place_of_request = torch.zeros(batch.requests_count, dtype=torch.int64)
    place_of_request[requests] = torch.arange(requests.shape[0])

    begin, lengths = batch.event_offsets[:-1][users], batch.event_offsets.diff()[users]
    offsets = F.pad(lengths.cumsum(0), (1, 0))
    shift = begin - offsets[:-1]
    events = torch.arange(int(offsets[-1])) + torch.repeat_interleave(shift, lengths)
    user_index = batch.user_index[requests] // parts
    items, places = torch.unique(
        torch.cat([batch.item_index[candidates], batch.event_item[events]]), return_inverse=True
    )
    split = candidates.shape[0]
    found = dataclasses.replace(
        batch,
        users=rows_of(batch.users, users),
        event_offsets=offsets,
        event_item=places[split:],
        event_time_ms=batch.event_time_ms[events],
        event_ids=batch.event_ids[events],
        user_index=user_index,
        request_time_ms=batch.request_time_ms[requests],
        context=rows_of(batch.context, requests),
        history_ranges=batch.history_ranges[requests] - shift[user_index].unsqueeze(1),
        request_index=place_of_request[batch.request_index[candidates]],
        item_index=places[:split],
        cross=rows_of(batch.cross, candidates),
        bias=batch.bias[candidates],
        items=rows_of(batch.items, items),
        labels=None if batch.labels is None else batch.labels[candidates],
        weights=None if batch.weights is None else batch.weights[candidates],
        impression_index=None
        if batch.impression_index is None
        else batch.impression_index[candidates],
    )
    return found, candidates
