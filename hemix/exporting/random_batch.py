"""Random batches of an InputSpec, on which exported graphs are traced and checked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.jagged import Jagged, offsets_of
from hemix.data.spec import TIMELESS_MS, InputSpec, LevelSpec

__all__ = ["random_batch"]

_NOW_MS = 1_767_225_600_000
_OLDEST_MS = 600 * 86_400_000
_TIMELESS_FRACTION = 0.1
_MAX_LIST_LENGTH = 3


def random_batch(
    spec: InputSpec,
    seed: int,
    *,
    users: int,
    requests: int,
    candidates: int,
    events: int,
    realtime: int,
) -> RequestBatch:
    """Draw a batch of random sizes up to the given ones.

    User 0 and request 0 have the largest sizes; the last of several users has no event. Ages of
    events are log-uniform from a millisecond to 600 days; some events are timeless.

    Args:
        spec: Of the inputs.
        seed: Of the draws.
        users: How many users.
        requests: How many requests.
        candidates: At most, by request.
        events: At most, by user.
        realtime: Real-time events, at most, by request.

    Returns:
        The batch.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, events + 1, (users,), generator=generator)
    lengths[-1], lengths[0] = 0, events
    offsets = offsets_of(lengths)
    total = int(offsets[-1])
    times = _event_times(lengths, generator)
    others = torch.randint(0, users, (requests - 1,), generator=generator)
    user_index = torch.cat([torch.zeros(1, dtype=torch.int64), others])
    history_ranges = _history_ranges(offsets, user_index, realtime, generator)
    counts = torch.randint(1, candidates + 1, (requests,), generator=generator)
    counts[0] = candidates
    request_index = torch.repeat_interleave(torch.arange(requests), counts)
    N, items = request_index.shape[0], total + candidates
    return RequestBatch(
        users=_columns(spec, spec.user, users, generator),
        event_offsets=offsets,
        event_item=torch.randint(0, items, (total,), generator=generator),
        event_time_ms=times,
        event_ids=_ids(spec, spec.event.tables, total, generator),
        user_index=user_index,
        request_time_ms=_NOW_MS + torch.randint(1, 86_400_000, (requests,), generator=generator),
        context=_columns(spec, spec.context, requests, generator),
        history_ranges=history_ranges,
        request_index=request_index,
        item_index=torch.randint(0, items, (N,), generator=generator),
        cross=_columns(spec, spec.cross, N, generator),
        bias=torch.randint(0, max(spec.bias_rows, 1), (N,), generator=generator),
        items=_columns(spec, spec.item, items, generator),
    )


def _event_times(lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Times of all events in ms, int64 [sum of lengths], ascending within a user."""
    total = int(lengths.sum())
    log_ages = torch.rand(total, generator=generator, dtype=torch.float64) * math.log(_OLDEST_MS)
    timeless = torch.rand(total, generator=generator) < _TIMELESS_FRACTION
    times = (_NOW_MS - log_ages.exp().long()).masked_fill(timeless, TIMELESS_MS)
    by_time = torch.argsort(times)
    owner = torch.repeat_interleave(torch.arange(lengths.shape[0]), lengths)
    return times[by_time[torch.argsort(owner[by_time], stable=True)]]


def _history_ranges(
    offsets: Tensor, user_index: Tensor, realtime: int, generator: torch.Generator
) -> Tensor:
    """First event, first real-time event and end of every request's history, [requests, 3]."""
    requests = user_index.shape[0]
    first, last = offsets[user_index], offsets[user_index + 1]
    begin = first + torch.randint(0, 2, (requests,), generator=generator).minimum(last - first)
    lengths = torch.randint(0, realtime + 1, (requests,), generator=generator)
    middle = torch.maximum(begin, last - lengths)
    middle[0] = torch.maximum(begin[0], last[0] - realtime)
    return torch.stack([begin, middle, last], 1)


def _ids(spec: InputSpec, tables: tuple[str, ...], rows: int, generator: torch.Generator) -> Tensor:
    columns = [
        torch.randint(0, spec.tables[table], (rows,), generator=generator) for table in tables
    ]
    return torch.stack(columns, 1) if columns else torch.zeros((rows, 0), dtype=torch.int64)


def _columns(spec: InputSpec, level: LevelSpec, rows: int, generator: torch.Generator) -> Columns:
    """Random features of a level; the first row has the longest lists, the last empty ones."""
    jagged = []
    for table in level.jagged_tables:
        lengths = torch.randint(0, _MAX_LIST_LENGTH + 1, (rows,), generator=generator)
        lengths[-1], lengths[0] = 0, _MAX_LIST_LENGTH
        total = int(lengths.sum())
        values = torch.randint(0, spec.tables[table], (total,), generator=generator)
        jagged.append(Jagged.from_lengths(values, lengths))
    numbers = torch.randn(rows, level.numbers, generator=generator)
    return Columns(
        ids=_ids(spec, level.tables, rows, generator), numbers=numbers, jagged=tuple(jagged)
    )
