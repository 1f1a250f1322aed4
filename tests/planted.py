"""Small logs with a planted rule: a click is likely when the item's category is that of the user's
last event today.

Nothing else predicts a click, so a model that reads real-time histories learns it and a model that
cannot stays near 0.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

SMALL_MODEL = {"model.layers": 1, "model.token_width": 8, "model.tokenizer_hidden": 16}
"""Settings of a run whose scores do not matter: a step takes half the time of size tiny"""
DAY_MS = 86_400_000
START_MS = 1_767_571_200_000  # 2026-01-05 00:00 UTC, a Monday

SCHEMA = """
name: planted
tables: {events: events.parquet, items: items.parquet, users: users.parquet}
clock: {column: time_ms, unit: ms, timezone: UTC}
features:
  user:
    user_id: {type: categorical, vocabulary: {min_count: 2}}
    age: {type: numeric, buckets: 4}
  context:
    hour: {type: clock, part: hour}
    place: {type: coordinates, latitude: lat, longitude: lon}
  item:
    item_id: {type: categorical, vocabulary: {min_count: 1}}
    category: {type: categorical, vocabulary: {min_count: 1}}
    tags: {type: categorical, vocabulary: {min_count: 1}, multi: true}
    price: {type: numeric, encoding: standardise}
    place: {type: coordinates, latitude: lat, longitude: lon}
  cross:
    distance: {type: distance, between: [context.place, item.place], buckets: 4}
history:
  item_features: [item_id, category]
  action: {column: action, vocabulary: {min_count: 1}}
  fields: {hour: {type: clock, part: hour}}
  global_length: 20
  realtime_length: 5
labels:
  click: {}
  order: {given: click}
roles: {request_id: request_id, bias: {column: position, max: 5}}
score: order * price + 0.1 * click
split: {valid: 2026-01-08, test: 2026-01-09}
"""


def write_logs(
    folder: Path,
    *,
    users: int = 60,
    days: int = 5,
    seed: int = 0,
    schema: str = SCHEMA,
    **changes: Any,
) -> Path:
    """Write logs and schema.yaml into ``folder``; ``changes`` replace columns of the impression
    table. Returns ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    category = np.arange(40) % 5
    pq.write_table(_items(rng, category), folder / "items.parquet")
    pq.write_table(
        pa.table({"user_id": [f"u{n}" for n in range(users)], "age": rng.integers(18, 70, users)}),
        folder / "users.parquet",
    )
    events, rows = _visits(rng, category, users, days)
    pq.write_table(pa.table(events), folder / "events.parquet")
    table = pa.table(rows)
    for name, column in changes.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, folder / "impressions.parquet")
    (folder / "schema.yaml").write_text(schema)
    return folder


def _items(rng: np.random.Generator, category: npt.NDArray[np.int64]) -> pa.Table:
    items = len(category)
    lat, lon = 31 + rng.random(items) / 10, 121 + rng.random(items) / 10
    return pa.table(
        {
            "item_id": [f"i{n}" for n in range(items)],
            "category": [f"c{n}" for n in category],
            "tags": [[f"t{n % 3}", f"t{n % 2 + 3}"][: n % 3] for n in range(items)],
            "price": pa.array([None if n == 7 else float(n) for n in range(items)]),
            "lat": lat,
            "lon": lon,
        }
    )


def _visits(
    rng: np.random.Generator, category: npt.NDArray[np.int64], users: int, days: int
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Two visits of every user a day: columns of the events and of the impressions."""
    events: dict[str, list[Any]] = {"user_id": [], "item_id": [], "time_ms": [], "action": []}
    rows: dict[str, list[Any]] = {
        k: []
        for k in (
            "user_id",
            "item_id",
            "time_ms",
            "request_id",
            "position",
            "lat",
            "lon",
            "click",
            "order",
        )
    }
    for day in range(-3, days):
        for user in range(users):
            for visit in range(2):
                time = (
                    START_MS
                    + day * DAY_MS
                    + int(rng.integers(1, 11)) * 3_600_000
                    + visit * 11 * 3_600_000
                )
                seen = int(rng.integers(len(category)))
                events["user_id"].append(f"u{user}")
                events["item_id"].append(f"i{seen}")
                events["time_ms"].append(time - 60_000)
                events["action"].append("view")
                if day < 0:
                    continue
                for position, shown in enumerate(rng.integers(0, len(category), 4)):
                    click = rng.random() < (0.8 if category[shown] == category[seen] else 0.1)
                    values = (
                        f"u{user}",
                        f"i{shown}",
                        time,
                        f"r{day}-{user}-{visit}",
                        position,
                        31.05,
                        121.05,
                    )
                    for key, value in zip(
                        rows, (*values, int(click), int(click and rng.random() < 0.5)), strict=True
                    ):
                        rows[key].append(value)
    return events, rows
