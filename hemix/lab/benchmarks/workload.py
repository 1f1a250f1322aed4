"""Synthetic batches for benchmarks: users with long histories, and impressions or candidates.

An event has six embedded fields. Items are heavy-tailed, so events repeat them. Every request has
its own time and sees the ``history_length`` events before it, the newest ones in real time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.spec import InputSpec, LevelSpec, Task

__all__ = ["REALTIME_EVENTS", "SPEC", "Workload", "make_batch"]

REALTIME_EVENTS = 50
"""Real-time events of a history; a tenth of a history that is shorter than ten times this"""

_ITEMS, _USERS = 100_000, 20_000
_NOW_MS, _HOUR_MS = 1_770_000_000_000, 3_600_000

SPEC = InputSpec(
    tables={
        "user_id": _USERS,
        "city": 300,
        "gender": 5,
        "item_id": _ITEMS,
        "category": 500,
        "brand": 5_000,
        "price": 50,
        "action": 8,
        "hour": 26,
        "device": 30,
        "distance": 50,
    },
    user=LevelSpec(
        names=("user_id", "city", "gender"),
        tables=("user_id", "city", "gender"),
        number_names=("activity",),
    ),
    context=LevelSpec(names=("hour", "device", "place"), tables=("hour", "device", "city")),
    item=LevelSpec(
        names=("item_id", "category", "brand", "price"),
        tables=("item_id", "category", "brand", "price"),
        number_names=("rate",),
    ),
    cross=LevelSpec(names=("distance",), tables=("distance",), number_names=("match",)),
    event=LevelSpec(names=("action", "hour"), tables=("action", "hour")),
    event_item_columns=(0, 1, 2, 3),
    tasks=(Task(name="click"), Task(name="order", given=0)),
    logit_shift=(0.0, 0.0),
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The shape of a batch."""

    users: int
    history_length: int
    """Events that each request sees"""
    impressions_per_user: int = 1
    """Requests of a user"""
    candidates: int = 1
    """Candidates of a request"""

    @property
    def impressions(self) -> int:
        """Impressions of the batch."""
        return self.users * self.impressions_per_user * self.candidates


def make_batch(load: Workload, seed: int = 0) -> RequestBatch:
    """Make a batch with random features and labels.

    Args:
        load: The shape of the batch.
        seed: Seed of the random draws.
    """
    g = torch.Generator().manual_seed(seed)
    R, C, L = load.users, load.impressions_per_user, load.history_length
    Q, E = R * C, R * (L + C - 1)
    event_item = (_ITEMS * torch.rand(E, generator=g) ** 3).long()
    item_N = (_ITEMS * torch.rand(load.impressions, generator=g) ** 3).long()
    distinct, item_index = torch.unique(torch.cat([event_item, item_N]), return_inverse=True)
    age_ms = torch.rand(R, L + C - 1, generator=g).square() * 2000 * _HOUR_MS
    offsets = torch.arange(R + 1) * (L + C - 1)
    first_event = (offsets[:-1, None] + torch.arange(C)).flatten()
    realtime = min(REALTIME_EVENTS, L // 10)
    labels = (torch.rand(load.impressions, 2, generator=g) < 0.3).float()
    return RequestBatch(
        users=_columns(SPEC.user, R, g),
        event_offsets=offsets,
        event_item=item_index[:E],
        event_time_ms=(_NOW_MS - age_ms.long()).sort(1).values.flatten(),
        event_ids=_ids(SPEC.event, E, g),
        user_index=torch.arange(R).repeat_interleave(C),
        request_time_ms=(_NOW_MS + torch.arange(C) * _HOUR_MS).repeat(R),
        context=_columns(SPEC.context, Q, g),
        history_ranges=torch.stack([first_event, first_event + L - realtime, first_event + L], 1),
        request_index=torch.arange(Q).repeat_interleave(load.candidates),
        item_index=item_index[E:],
        cross=_columns(SPEC.cross, load.impressions, g),
        bias=torch.zeros(load.impressions, dtype=torch.int64),
        items=_columns(SPEC.item, distinct.shape[0], g, first_column=distinct),
        labels=torch.stack([labels[:, 0], labels[:, 0] * labels[:, 1]], 1),
        weights=torch.ones(load.impressions, 2),
    )


def _ids(level: LevelSpec, rows: int, g: torch.Generator) -> Tensor:
    return torch.stack(
        [torch.randint(2, SPEC.tables[table], (rows,), generator=g) for table in level.tables], 1
    )


def _columns(
    level: LevelSpec, rows: int, g: torch.Generator, first_column: Tensor | None = None
) -> Columns:
    ids = _ids(level, rows, g)
    if first_column is not None:
        ids[:, 0] = first_column
    return Columns(ids=ids, numbers=torch.randn(rows, level.numbers, generator=g))
