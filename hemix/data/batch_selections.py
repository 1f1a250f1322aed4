"""Parts of a :class:`~hemix.data.batch.RequestBatch`: some users, some candidates, or every
impression alone. These are its methods, whose arguments are described there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hemix.data.jagged import offsets_of, range_positions, select_ranges

if TYPE_CHECKING:
    from hemix.data.batch import RequestBatch

__all__ = ["expand_per_impression", "select_candidates", "select_users"]


def select_users(batch: RequestBatch, users: Tensor) -> tuple[RequestBatch, Tensor]:
    """Return some users with all their events, requests and candidates.

    See :meth:`hemix.data.batch.RequestBatch.select_users`.

    Args:
        batch: The batch.
        users: int64 [n], distinct user rows, in the order of the new batch.

    Returns:
        The batch, and int64: which candidates of ``batch`` it holds.
    """
    user_index = _new_index(users, batch.users_count).index_select(0, batch.user_index)
    requests = torch.nonzero(user_index >= 0).squeeze(1)
    user_index = user_index.index_select(0, requests)
    request_index = _new_index(requests, batch.requests_count).index_select(0, batch.request_index)
    candidates = torch.nonzero(request_index >= 0).squeeze(1)
    events, event_offsets = select_ranges(batch.event_offsets, users)
    shift = batch.event_offsets[:-1].index_select(0, users) - event_offsets[:-1]
    ranges = batch.history_ranges.index_select(0, requests)
    event_item = batch.event_item.index_select(0, events)
    items, item_index = torch.unique(
        torch.cat([batch.item_index.index_select(0, candidates), event_item]), return_inverse=True
    )
    N = candidates.shape[0]
    selected = dataclasses.replace(
        batch,
        users=batch.users.select(users),
        event_offsets=event_offsets,
        event_item=item_index[N:],
        event_time_ms=batch.event_time_ms.index_select(0, events),
        event_ids=batch.event_ids.index_select(0, events),
        user_index=user_index,
        request_time_ms=batch.request_time_ms.index_select(0, requests),
        context=batch.context.select(requests),
        history_ranges=ranges - shift.index_select(0, user_index).unsqueeze(1),
        request_index=request_index.index_select(0, candidates),
        item_index=item_index[:N],
        cross=batch.cross.select(candidates),
        items=batch.items.select(items),
        **_of_candidates(batch, candidates),
    )
    return selected, candidates


def select_candidates(batch: RequestBatch, first: int, last: int) -> tuple[RequestBatch, slice]:
    """Return some candidates with all users, events and requests, as views.

    See :meth:`hemix.data.batch.RequestBatch.select_candidates`.

    Args:
        batch: The batch.
        first: The first candidate.
        last: The position behind the last candidate.

    Returns:
        The batch, and which item rows of ``batch`` it holds.
    """
    candidates, event_item = slice(first, last), batch.event_item
    item_index = batch.item_index[candidates]
    used = torch.cat([item_index, event_item]) if event_item.shape[0] else item_index
    begin, end = (int(row) for row in torch.aminmax(used)) if used.shape[0] else (0, -1)
    selected = dataclasses.replace(
        batch,
        event_item=event_item - begin,
        request_index=batch.request_index[candidates],
        item_index=item_index - begin,
        cross=batch.cross.slice(first, last),
        items=batch.items.slice(begin, end + 1),
        **_of_candidates(batch, candidates),
    )
    return selected, slice(begin, end + 1)


def expand_per_impression(batch: RequestBatch, first: int, last: int) -> RequestBatch:
    """Return some impressions with a user row, a history and a request each.

    See :meth:`hemix.data.batch.RequestBatch.expand_per_impression`.

    Args:
        batch: The batch.
        first: The first impression.
        last: The position behind the last impression.
    """
    impressions = slice(first, last)
    request_N = batch.request_index[impressions]
    N, device = request_N.shape[0], request_N.device
    begin, middle, end = batch.history_ranges[request_N].unbind(1)
    lengths = end - begin
    offsets = offsets_of(lengths)
    total = int(offsets[-1])
    events = range_positions(begin, lengths, total)
    own_N = torch.arange(N, device=device)
    return dataclasses.replace(
        batch,
        users=batch.users.select(batch.user_index[request_N]),
        event_offsets=offsets,
        event_item=N + torch.arange(total, device=device),
        event_time_ms=batch.event_time_ms.index_select(0, events),
        event_ids=batch.event_ids.index_select(0, events),
        user_index=own_N,
        request_time_ms=batch.request_time_ms[request_N],
        context=batch.context.select(request_N),
        history_ranges=torch.stack([offsets[:-1], offsets[:-1] + middle - begin, offsets[1:]], 1),
        request_index=own_N,
        item_index=own_N,
        cross=batch.cross.slice(first, last),
        items=batch.items.select(
            torch.cat([batch.item_index[impressions], batch.event_item[events]])
        ),
        **_of_candidates(batch, impressions),
    )


def _new_index(rows: Tensor, count: int) -> Tensor:
    """int64 [count]: the position of every row among ``rows``, -1 where it is none of them."""
    index = torch.full((count,), -1, dtype=torch.int64)
    index[rows] = torch.arange(rows.shape[0])
    return index


def _of_candidates(batch: RequestBatch, candidates: Tensor | slice) -> dict[str, Any]:
    """The fields with one row per candidate that are copied as they are."""
    names = ("bias", "labels", "weights", "impression_index")
    values = {name: getattr(batch, name) for name in names}
    return {name: None if value is None else value[candidates] for name, value in values.items()}
