"""Synthetic logs for benchmarks of preparation and training.

Users and items are heavy-tailed, requests have ten candidates, orders become known late, and a few
events are out of order. Rows are written in blocks, which limits memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hemix.data.jagged_array import offsets_of
from hemix.files import storage_errors

__all__ = ["write_logs"]

_CANDIDATES = 10
_BLOCK_ROWS = 250_000
_DAY_MS = 86_400_000
_START_MS = 1_767_225_600_000  # 2026-01-01 UTC
_DAYS = 30
_EVENT_DAYS = 5 * _DAYS  # histories begin months before the first request

_SCHEMA = """\
schema_version: 1
name: bench
tables: {events: events.parquet, items: items.parquet, users: users.parquet}
clock: {timezone: Asia/Shanghai}
features:
  user:
    user_id: {type: categorical}
    city: {type: categorical}
    age: {type: numeric}
  context:
    hour: {type: clock, part: hour}
    device: {type: categorical}
    place: {type: coordinates, latitude: latitude, longitude: longitude}
  item:
    item_id: {type: categorical}
    category: {type: categorical}
    tags: {type: categorical, multi: true, hash: {rows: 1000}}
    price: {type: numeric}
    place: {type: coordinates, latitude: latitude, longitude: longitude}
  cross:
    distance: {type: distance, between: [context.place, item.place]}
    match: {type: numeric, encoding: standardise}
history:
  action: {type: categorical, vocabulary: {min_count: 1}}
  fields: {hour: {type: clock, part: hour}, seconds: {type: numeric}}
labels: {click: {}, order: {given: click, available_at: order_time_ms}}
roles: {request_id: request_id, bias: {column: position, max: 20}}
split: {valid: 2026-01-29, test: 2026-01-30}
"""


Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    impressions: int
    events: int
    users: int
    items: int


def write_logs(
    folder: Path, *, impressions: int, events: int, users: int, items: int, seed: int
) -> None:
    """Write logs and schema.yaml; the same arguments give the same rows.

    Args:
        folder: The logs folder.
        impressions: Number of impressions.
        events: Number of events.
        users: Number of users.
        items: Number of items.
        seed: Seed of the random draws.

    Raises:
        StorageError: The folder cannot be written.
    """
    sizes = _Sizes(impressions=impressions, events=events, users=users, items=items)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schema.yaml").write_text(_SCHEMA, encoding="utf-8")
        rng = np.random.default_rng([seed, 0])
        pq.write_table(_users(rng, users), folder / "users.parquet")
        pq.write_table(_items(rng, items), folder / "items.parquet")
        _write_blocks(
            folder / "impressions.parquet",
            impressions,
            [seed, 1],
            lambda rng, first, count: _impressions(rng, first, count, sizes),
        )
        _write_blocks(
            folder / "events.parquet",
            events,
            [seed, 2],
            lambda rng, first, count: _events(rng, first, count, sizes),
        )


def _write_blocks(
    path: Path,
    rows: int,
    seed: list[int],
    make_block: Callable[[np.random.Generator, int, int], pa.Table],
) -> None:
    """Write a table whose blocks are ``make_block(rng, first row, rows)``."""
    writer = None
    for first in range(0, rows, _BLOCK_ROWS):
        count = min(_BLOCK_ROWS, rows - first)
        table = make_block(np.random.default_rng([*seed, first]), first, count)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _ids(prefix: str, numbers: Any) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def _heavy_tailed(rng: np.random.Generator, bound: int, count: int, power: float) -> Ints:
    """Draw numbers below ``bound``; a higher ``power`` makes small numbers more frequent."""
    return (bound * rng.random(count) ** power).astype(np.int64)


def _users(rng: np.random.Generator, users: int) -> pa.Table:
    age = rng.integers(15, 80, users).astype(np.float64)
    return pa.table(
        {
            "user_id": _ids("u", np.arange(users)),
            "city": _ids("city", _heavy_tailed(rng, 300, users, 2)),
            "age": pa.array(age, mask=rng.random(users) < 0.1),
        }
    )


def _items(rng: np.random.Generator, items: int) -> pa.Table:
    lengths = rng.integers(0, 6, items)
    tags = pa.ListArray.from_arrays(
        pa.array(offsets_of(lengths), pa.int32()),
        _ids("t", rng.integers(0, 5000, lengths.sum())),
    )
    return pa.table(
        {
            "item_id": np.arange(items) + 1_000_000,
            "category": _ids("c", _heavy_tailed(rng, 200, items, 2)),
            "tags": tags,
            "price": np.round(rng.lognormal(3, 1, items), 2),
            "latitude": 31 + rng.random(items),
            "longitude": 121 + rng.random(items),
        }
    )


def _impressions(rng: np.random.Generator, first: int, count: int, sizes: _Sizes) -> pa.Table:
    rows = np.arange(first, first + count)
    request = rows // _CANDIDATES
    # all rows of a request have the same user, device and coordinates
    request_rng = np.random.default_rng([7, first])
    index = request - request[0]
    requests = int(index[-1]) + 1
    time_ms = _START_MS + (request * _CANDIDATES * _DAYS * _DAY_MS) // sizes.impressions
    click = rng.random(count) < 0.08
    order = click & (rng.random(count) < 0.1)
    return pa.table(
        {
            "request_id": request,
            "user_id": _ids("u", _heavy_tailed(request_rng, sizes.users, requests, 1.5)[index]),
            "item_id": _heavy_tailed(rng, sizes.items, count, 3) + 1_000_000,
            "time_ms": time_ms,
            "position": (rows % _CANDIDATES).astype(np.int16),
            "device": _ids("d", request_rng.integers(0, 30, requests)[index]),
            "latitude": 31 + request_rng.random(requests)[index],
            "longitude": 121 + request_rng.random(requests)[index],
            "match": rng.normal(size=count),
            "click": click.astype(np.int8),
            "order": order.astype(np.int8),
            "order_time_ms": pa.array(time_ms + rng.integers(0, 2 * _DAY_MS, count), mask=~order),
        }
    )


def _events(rng: np.random.Generator, first: int, count: int, sizes: _Sizes) -> pa.Table:
    rows = np.arange(first, first + count)
    start_ms = _START_MS - (_EVENT_DAYS - _DAYS) * _DAY_MS
    time_ms = start_ms + (rows * _EVENT_DAYS * _DAY_MS) // sizes.events
    late = rng.random(count) < 0.001
    actions = pa.array(["view", "click", "order", "search"])
    return pa.table(
        {
            "user_id": _ids("u", _heavy_tailed(rng, sizes.users, count, 1.5)),
            "item_id": _heavy_tailed(rng, sizes.items, count, 3) + 1_000_000,
            "time_ms": np.where(late, time_ms - _DAY_MS, time_ms),
            "action": actions.take(pa.array(_heavy_tailed(rng, 4, count, 2))),
            "seconds": np.round(rng.exponential(20, count), 1),
        }
    )
