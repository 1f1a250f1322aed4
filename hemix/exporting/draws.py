"""Random batches that fit an InputSpec: what an exported graph is traced with and checked on.

Knows no model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hemix.data.batch import Columns, Jagged, RequestBatch
from hemix.data.spec import TIMELESS_MS, InputSpec, LevelSpec

__all__ = ["draw_batch"]

_NOW_MS = 1_767_225_600_000
_OLDEST_MS = 600 * 86_400_000
_TIMELESS_SHARE = 0.1
_VALUES_MOST = 3


def draw_batch(
    spec: InputSpec,
    seed: int,
    *,
    users: int,
    requests: int,
    candidates: int,
    events: int,
    realtime: int,
) -> RequestBatch:
    """Up to so many candidates a request, events a user and real-time events a request; user 0 and
    request 0 have all of them, the last of several users has no event. Ages are log-uniform from a
    millisecond to 600 days, some events are timeless.
    """
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, events + 1, (users,), generator=g)
    lengths[-1], lengths[0] = 0, events
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    total = int(offsets[-1])
    owner = torch.repeat_interleave(torch.arange(users), lengths)
    ages_ms = (
        (torch.rand(total, generator=g, dtype=torch.float64) * math.log(_OLDEST_MS)).exp().long()
    )
    times = (_NOW_MS - ages_ms).masked_fill(
        torch.rand(total, generator=g) < _TIMELESS_SHARE, TIMELESS_MS
    )
    by_time = torch.argsort(times)
    times = times[by_time[torch.argsort(owner[by_time], stable=True)]]

    user_index = torch.cat(
        [torch.zeros(1, dtype=torch.int64), torch.randint(0, users, (requests - 1,), generator=g)]
    )
    first, last = offsets[user_index], offsets[user_index + 1]
    begin = first + torch.randint(0, 2, (requests,), generator=g).minimum(last - first)
    middle = torch.maximum(begin, last - torch.randint(0, realtime + 1, (requests,), generator=g))
    middle[0] = torch.maximum(begin[0], last[0] - realtime)
    counts = torch.randint(1, candidates + 1, (requests,), generator=g)
    counts[0] = candidates
    request_index = torch.repeat_interleave(torch.arange(requests), counts)
    N, items = request_index.shape[0], total + candidates
    return RequestBatch(
        users=_columns(spec, spec.user, users, g),
        event_offsets=offsets,
        event_item=torch.randint(0, items, (total,), generator=g),
        event_time_ms=times,
        event_ids=_ids(spec, spec.event.tables, total, g),
        user_index=user_index,
        request_time_ms=_NOW_MS + torch.randint(1, 86_400_000, (requests,), generator=g),
        context=_columns(spec, spec.context, requests, g),
        history_ranges=torch.stack([begin, middle, last], 1),
        request_index=request_index,
        item_index=torch.randint(0, items, (N,), generator=g),
        cross=_columns(spec, spec.cross, N, g),
        bias=torch.randint(0, max(spec.bias_rows, 1), (N,), generator=g),
        items=_columns(spec, spec.item, items, g),
    )


def _ids(spec: InputSpec, tables: tuple[str, ...], rows: int, g: torch.Generator) -> Tensor:
    columns = [torch.randint(0, spec.tables[table], (rows,), generator=g) for table in tables]
    return torch.stack(columns, 1) if columns else torch.zeros((rows, 0), dtype=torch.int64)


def _columns(spec: InputSpec, level: LevelSpec, rows: int, g: torch.Generator) -> Columns:
    """The first row's lists are the longest, the last row's are empty."""
    jagged = []
    for table in level.jagged_tables:
        lengths = torch.randint(0, _VALUES_MOST + 1, (rows,), generator=g)
        lengths[-1], lengths[0] = 0, _VALUES_MOST
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        values = torch.randint(0, spec.tables[table], (int(offsets[-1]),), generator=g)
        jagged.append(Jagged(values=values, offsets=offsets))
    numbers = torch.randn(rows, level.numbers, generator=g)
    return Columns(ids=_ids(spec, level.tables, rows, g), numbers=numbers, jagged=tuple(jagged))
