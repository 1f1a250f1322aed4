"""`hemix bench prepare`: how fast and in how much memory large logs become a dataset folder.

Logs are drawn piece by piece, so that drawing them needs no more memory than preparing them. Users
and items are heavy-tailed, requests have ten candidates, orders become known late, a few rows come
out of order. Preparation runs in a process of its own, whose anonymous memory is sampled.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hemix.errors import HemixError
from hemix.files import storage_errors
from hemix.measure import PeakMemory, machine

__all__ = ["LIMIT_BYTES", "run", "write_logs"]

LIMIT_BYTES = 2 * 1024**3
"""Anonymous memory that preparation may use at the full size."""

_IMPRESSIONS, _EVENTS, _USERS, _ITEMS = 5_000_000, 20_000_000, 200_000, 100_000
_CANDIDATES = 10
_PIECE = 250_000
_DAY_MS = 86_400_000
_START_MS = 1_767_225_600_000  # 2026-01-01 UTC
_DAYS = 30

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


def run(
    *,
    scale: float = 1.0,
    impressions: int = _IMPRESSIONS,
    events: int = _EVENTS,
    seed: int = 0,
    out: Path | None = None,
) -> dict[str, Any]:
    """Draw logs of ``scale`` times the given sizes, prepare them and measure.

    ``out`` keeps logs and data there.

    The one case says seconds, rows (impressions and events) a second, peak anonymous bytes, and
    whether these stay under the limit.
    """
    impressions, events = max(int(impressions * scale), 1000), max(int(events * scale), 1000)
    users, items = max(int(_USERS * scale), 10), max(int(_ITEMS * scale), 10)
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
        folder = Path(temporary) if out is None else out
        began = time.monotonic()
        write_logs(
            folder / "logs",
            impressions=impressions,
            events=events,
            users=users,
            items=items,
            seed=seed,
        )
        drawn = time.monotonic()
        peak_bytes = _prepare(folder / "logs", folder / "data")
        seconds = time.monotonic() - drawn
        dataset_bytes = sum(
            path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file()
        )
    case = {
        "name": "prepare",
        "impressions": impressions,
        "events": events,
        "users": users,
        "items": items,
        "rows_per_second": round((impressions + events) / seconds),
        "ours_seconds": round(seconds, 2),
        "ours_peak_bytes": peak_bytes,
        "limit_bytes": LIMIT_BYTES,
        "within_limit": peak_bytes < LIMIT_BYTES,
        "dataset_bytes": dataset_bytes,
        "draw_seconds": round(drawn - began, 2),
    }
    return {"cases": [case], "machine": machine()}


def _prepare(logs: Path, data: Path) -> int:
    """Prepare in a process of its own; returns its peak of anonymous memory in bytes, the
    interpreter included.
    """
    code = "import sys; from hemix.preparation import prepare; prepare(sys.argv[1], sys.argv[2])"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(logs), str(data)], stderr=subprocess.PIPE, text=True
    ) as process:
        with PeakMemory(process.pid, every_seconds=0.02) as peak:
            _, errors = process.communicate()
        if process.returncode != 0:
            raise HemixError(f"bench prepare: {errors.strip().splitlines()[-1]}")
    return peak.bytes


def write_logs(
    folder: Path, *, impressions: int, events: int, users: int, items: int, seed: int
) -> None:
    """Write logs of these sizes and schema.yaml, the same for the same arguments."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schema.yaml").write_text(_SCHEMA, encoding="utf-8")
        draw = np.random.default_rng([seed, 0])
        pq.write_table(_users(draw, users), folder / "users.parquet")
        pq.write_table(_items(draw, items), folder / "items.parquet")
        _stream(
            folder / "impressions.parquet",
            impressions,
            [seed, 1],
            lambda d, first, n: _impressions(d, first, n, impressions, users, items),
        )
        _stream(
            folder / "events.parquet",
            events,
            [seed, 2],
            lambda d, first, n: _events(d, first, n, events, users, items),
        )


def _stream(
    path: Path,
    rows: int,
    seed: list[int],
    piece: Callable[[np.random.Generator, int, int], pa.Table],
) -> None:
    writer = None
    for first, count in _pieces(rows):
        table = piece(np.random.default_rng([*seed, first]), first, count)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _pieces(rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, _PIECE):
        yield first, min(_PIECE, rows - first)


def _names(prefix: str, numbers: Any) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def _tailed(draw: np.random.Generator, of: int, count: int, power: float) -> Any:
    """Numbers below ``of``, the small ones far more often."""
    return (of * draw.random(count) ** power).astype(np.int64)


def _users(draw: np.random.Generator, users: int) -> pa.Table:
    age = draw.integers(15, 80, users).astype(np.float64)
    return pa.table(
        {
            "user_id": _names("u", np.arange(users)),
            "city": _names("city", _tailed(draw, 300, users, 2)),
            "age": pa.array(age, mask=draw.random(users) < 0.1),
        }
    )


def _items(draw: np.random.Generator, items: int) -> pa.Table:
    lengths = draw.integers(0, 6, items)
    tags = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)),
        _names("t", draw.integers(0, 5000, lengths.sum())),
    )
    return pa.table(
        {
            "item_id": np.arange(items) + 1_000_000,
            "category": _names("c", _tailed(draw, 200, items, 2)),
            "tags": tags,
            "price": np.round(draw.lognormal(3, 1, items), 2),
            "latitude": 31 + draw.random(items),
            "longitude": 121 + draw.random(items),
        }
    )


def _impressions(
    draw: np.random.Generator, first: int, count: int, of: int, users: int, items: int
) -> pa.Table:
    rows = np.arange(first, first + count)
    request = rows // _CANDIDATES
    per_request = np.random.default_rng(
        [7, first]
    )  # a request's values must not differ between its rows
    group = request - request[0]
    each = int(group[-1]) + 1

    def once(values: Any) -> Any:
        return values[group]

    time_ms = _START_MS + (request * _CANDIDATES * _DAYS * _DAY_MS) // of
    click = draw.random(count) < 0.08
    order = click & (draw.random(count) < 0.1)
    return pa.table(
        {
            "request_id": request,
            "user_id": _names("u", once(_tailed(per_request, users, each, 1.5))),
            "item_id": _tailed(draw, items, count, 3) + 1_000_000,
            "time_ms": time_ms,
            "position": (rows % _CANDIDATES).astype(np.int16),
            "device": _names("d", once(per_request.integers(0, 30, each))),
            "latitude": once(31 + per_request.random(each)),
            "longitude": once(121 + per_request.random(each)),
            "match": draw.normal(size=count),
            "click": click.astype(np.int8),
            "order": order.astype(np.int8),
            "order_time_ms": pa.array(time_ms + draw.integers(0, 2 * _DAY_MS, count), mask=~order),
        }
    )


def _events(
    draw: np.random.Generator, first: int, count: int, of: int, users: int, items: int
) -> pa.Table:
    days = 5 * _DAYS  # events of the months before, too
    time_ms = (
        _START_MS
        - (days - _DAYS) * _DAY_MS
        + (np.arange(first, first + count) * days * _DAY_MS) // of
    )
    late = draw.random(count) < 0.001
    return pa.table(
        {
            "user_id": _names("u", _tailed(draw, users, count, 1.5)),
            "item_id": _tailed(draw, items, count, 3) + 1_000_000,
            "time_ms": np.where(late, time_ms - _DAY_MS, time_ms),
            "action": pa.array(["view", "click", "order", "search"]).take(
                pa.array(_tailed(draw, 4, count, 2))
            ),
            "seconds": np.round(draw.exponential(20, count), 1),
        }
    )
