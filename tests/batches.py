"""Small random batches with everything in them: ragged and empty histories, timeless events,
several requests a user.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.jagged import Jagged, offsets_of
from hemix.data.spec import TIMELESS_MS, InputSpec, LevelSpec, Task
from hemix.models import ModelConfig, build_model, find_model
from hemix.training.table_optimizers import build_table_optimizer

NOW_MS = 1_770_000_000_000
HOUR_MS = 3_600_000


def select_candidates(batch: RequestBatch, keep: Tensor) -> RequestBatch:
    """The batch with some of its candidates and all of its requests; ``keep``: bool [N]."""
    return dataclasses.replace(
        batch,
        request_index=batch.request_index[keep],
        item_index=batch.item_index[keep],
        bias=batch.bias[keep],
        cross=dataclasses.replace(
            batch.cross, ids=batch.cross.ids[keep], numbers=batch.cross.numbers[keep]
        ),
    )


def make_spec(*, bias_rows: int = 11, tasks: tuple[Task, ...] | None = None) -> InputSpec:
    """Six user, four context, seven item and two cross features, a list and numbers among them; two
    event fields.
    """
    tables = {
        "user_id": 50,
        "item_id": 60,
        "category": 9,
        "brand": 12,
        "city": 8,
        "tags": 15,
        "hour": 26,
        "price": 12,
        "action": 6,
    }
    return InputSpec(
        tables={**tables, "age": 10, "distance": 10, "weekday": 9},
        user=LevelSpec(
            names=("user_id", "age", "home"),
            tables=("user_id", "age", "city"),
            jagged_names=("likes",),
            jagged_tables=("tags",),
            number_names=("x", "y"),
        ),
        context=LevelSpec(
            names=("hour", "weekday", "city"),
            tables=("hour", "weekday", "city"),
            number_names=("z",),
        ),
        item=LevelSpec(
            names=("item_id", "price", "category", "brand"),
            tables=("item_id", "price", "category", "brand"),
            jagged_names=("tags",),
            jagged_tables=("tags",),
            number_names=("x", "y"),
        ),
        cross=LevelSpec(names=("distance",), tables=("distance",), number_names=("match",)),
        event=LevelSpec(names=("action", "hour"), tables=("action", "hour")),
        event_item_columns=(0, 2, 3),
        bias_rows=bias_rows,
        tasks=tasks or (Task(name="click"), Task(name="order", given=0)),
        logit_shift=(0.0,) * len(tasks or (0, 0)),
    )


def smallest_spec() -> InputSpec:
    """A user id, an item id, one label, an action: no numbers, no multi-valued features, no
    context, no bias.
    """
    return InputSpec(
        tables={"user": 9, "item": 12, "action": 4},
        user=LevelSpec(names=("user",), tables=("user",)),
        context=LevelSpec(),
        item=LevelSpec(names=("item",), tables=("item",)),
        cross=LevelSpec(),
        event=LevelSpec(names=("action",), tables=("action",)),
        event_item_columns=(0,),
        tasks=(Task(name="like"),),
        logit_shift=(0.0,),
    )


def make_config(name: str = "hemix", **options: Any) -> Any:
    """The Config of a model with those of ``options`` that it has; the others belong to other
    models.
    """
    config = find_model(name).config
    return config(
        name=name, **{key: value for key, value in options.items() if key in config.model_fields}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a random batch is."""

    users: int = 7
    requests_per_user: int = 3
    candidates: int = 4
    history: int = 30
    realtime: int = 6
    items: int = 40
    ragged: bool = True
    """Up to so many requests, candidates and events, user 0 without any event; else exactly so
    many
    """

    def draw(self, most: int, rows: int, least: int, g: torch.Generator) -> Tensor:
        """int64 [rows]: a number from ``least`` to ``most`` each, or ``most`` where not ragged."""
        if not self.ragged:
            return torch.full((rows,), most)
        return torch.randint(least, most + 1, (rows,), generator=g)


def make_batch(
    spec: InputSpec, *, seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: Any
) -> RequestBatch:
    """Make a random batch.

    Args:
        spec: Features, tables and tasks.
        seed: Of all random values.
        dtype: Of numbers, labels and weights.
        sizes: Those of :class:`Sizes`.
    """
    size, g = Sizes(**sizes), torch.Generator().manual_seed(seed)
    event_offsets, event_time_ms = _events(size, g)
    user_index, history_ranges = _requests(size, event_offsets, g)
    E, Q = len(event_time_ms), len(user_index)
    request_index = torch.repeat_interleave(torch.arange(Q), size.draw(size.candidates, Q, 1, g))
    N, T = len(request_index), len(spec.tasks)
    return RequestBatch(
        labels=_labels(spec, N, g).to(dtype),
        users=_columns(spec, spec.user, size.users, g, dtype),
        event_offsets=event_offsets,
        event_item=torch.randint(0, size.items, (E,), generator=g),
        event_time_ms=event_time_ms,
        event_ids=_ids(spec, spec.event.tables, E, g),
        user_index=user_index,
        request_time_ms=NOW_MS + torch.randint(0, 72 * HOUR_MS, (Q,), generator=g),
        context=_columns(spec, spec.context, Q, g, dtype),
        history_ranges=history_ranges,
        request_index=request_index,
        item_index=torch.randint(0, size.items, (N,), generator=g),
        cross=_columns(spec, spec.cross, N, g, dtype),
        bias=torch.randint(0, max(spec.bias_rows, 1), (N,), generator=g),
        items=_columns(spec, spec.item, size.items, g, dtype),
        weights=(torch.rand(N, T, generator=g) < 0.9).to(dtype)
        * (1 + torch.rand(N, 1, generator=g)).to(dtype),
    )


def _events(size: Sizes, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Offsets [users + 1] and times [E] of events, by user and time; some have no time."""
    lengths = size.draw(size.history, size.users, 0, g)
    if size.ragged and size.users > 1:
        lengths[0], lengths[1] = 0, size.history
    offsets = offsets_of(lengths)
    E = int(offsets[-1])
    owner = torch.repeat_interleave(torch.arange(size.users), lengths)
    age_hours = torch.rand(E, generator=g).square() * 500
    time_ms = NOW_MS - (age_hours * HOUR_MS).long()
    timeless = torch.rand(E, generator=g) < (0.15 if size.ragged else 0.0)
    time_ms = time_ms.masked_fill(timeless, TIMELESS_MS)
    order = torch.argsort(time_ms, stable=True)
    return offsets, time_ms[order[torch.argsort(owner[order], stable=True)]]


def _requests(size: Sizes, offsets: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The user [Q] of every request, and which events [Q, 3] it sees: begin, middle, end."""
    counts = size.draw(size.requests_per_user, size.users, 1, g)
    user_index = torch.repeat_interleave(torch.arange(size.users), counts)
    user_index = user_index[torch.randperm(user_index.shape[0], generator=g)]
    Q = user_index.shape[0]
    first, last = offsets[user_index], offsets[user_index + 1]
    end = last - (size.draw(5, Q, 0, g) if size.ragged else 0)
    end = torch.maximum(end, first)
    middle = torch.maximum(end - size.draw(size.realtime, Q, 0, g), first)
    begin = first
    if size.ragged:
        begin = torch.maximum(first, middle - size.draw(size.history - size.realtime, Q, 0, g))
    return user_index, torch.stack([begin, middle, end], 1)


def _labels(spec: InputSpec, rows: int, g: torch.Generator) -> Tensor:
    """bool [N, T]; a label with ``given`` is 1 only where that one is."""
    labels = torch.rand(rows, len(spec.tasks), generator=g) < 0.4
    for number, task in enumerate(spec.tasks):
        if task.given is not None:
            labels[:, number] &= labels[:, task.given]
    return labels


def _ids(spec: InputSpec, tables: tuple[str, ...], rows: int, g: torch.Generator) -> Tensor:
    columns = [torch.randint(0, spec.tables[table], (rows,), generator=g) for table in tables]
    return torch.stack(columns, 1) if columns else torch.zeros((rows, 0), dtype=torch.int64)


def _columns(
    spec: InputSpec, level: LevelSpec, rows: int, g: torch.Generator, dtype: torch.dtype
) -> Columns:
    jagged = []
    for table in level.jagged_tables:
        lengths = torch.randint(0, 4, (rows,), generator=g)
        values = torch.randint(0, spec.tables[table], (int(lengths.sum()),), generator=g)
        jagged.append(Jagged.from_lengths(values, lengths))
    numbers = torch.randn(rows, level.numbers, generator=g).to(dtype)
    return Columns(ids=_ids(spec, level.tables, rows, g), numbers=numbers, jagged=tuple(jagged))


def take_requests(batch: RequestBatch, requests: Tensor) -> RequestBatch:
    """The batch of some of its requests (ascending rows) with all its users and items."""
    keep = torch.isin(batch.request_index, requests)
    position = torch.zeros(batch.requests_count, dtype=torch.int64)
    position[requests] = torch.arange(requests.shape[0])
    return dataclasses.replace(
        batch,
        user_index=batch.user_index[requests],
        request_time_ms=batch.request_time_ms[requests],
        context=batch.context.select(requests),
        history_ranges=batch.history_ranges[requests],
        request_index=position[batch.request_index[keep]],
        item_index=batch.item_index[keep],
        cross=batch.cross.select(keep.nonzero().squeeze(1)),
        bias=batch.bias[keep],
        labels=None if batch.labels is None else batch.labels[keep],
        weights=None if batch.weights is None else batch.weights[keep],
    )


def without_events(batch: RequestBatch) -> RequestBatch:
    """What a server sends for users whose state it kept: cuts that point into the kept events, and
    no events.
    """
    return dataclasses.replace(
        batch,
        event_offsets=torch.zeros_like(batch.event_offsets),
        event_item=batch.event_item[:0],
        event_time_ms=batch.event_time_ms[:0],
        event_ids=batch.event_ids[:0],
    )


def reorder_users(batch: RequestBatch, order: Tensor) -> RequestBatch:
    """The same requests, with the user rows (and their events) in another order."""
    return batch.select_users(order)[0]


def briefly_trained(spec: InputSpec, settings: ModelConfig) -> dict[str, Tensor]:
    """All weights after three steps."""
    model = build_model(spec, settings, 0).train()
    dense = torch.optim.AdamW(list(model.dense_parameters()), 1e-2)
    tables = build_table_optimizer("adam", model.tables)
    for seed in range(3):
        batch = make_batch(spec, seed=seed)
        model.training_loss(batch).backward()  # type: ignore[no-untyped-call]
        dense.step()
        dense.zero_grad()
        tables.step(1e-2)
    return model.state_dict()
