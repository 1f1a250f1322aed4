"""Logs with every type of feature at every level, statistics by every type of key, history counts,
missing values, unknown labels, weights, versions; a known truth row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.planted import DAY_MS, START_MS

SCHEMA = """
name: rich
tables: {events: events.parquet, items: items.parquet, users: users.parquet, truth: truth.parquet}
valid_from: since_ms
features:
  user:
    user_id: {type: categorical, vocabulary: {min_count: 1}}
    segment: {type: categorical, hash: {rows: 7}}
    likes: {type: categorical, multi: true, vocabulary: {min_count: 1}}
    age: {type: numeric, buckets: 4}
    income: {type: numeric, encoding: standardise}
    taste: {type: vector, size: 2}
    home: {type: coordinates, latitude: lat, longitude: lon}
  context:
    hour: {type: clock, part: hour}
    city: {type: categorical, vocabulary: {min_count: 1}}
    battery: {type: numeric, encoding: standardise}
    query: {type: vector, size: 3}
    place: {type: coordinates, latitude: lat, longitude: lon}
  item:
    item_id: {type: categorical, vocabulary: {min_count: 1}}
    category: {type: categorical, vocabulary: {min_count: 1}}
    tags: {type: categorical, multi: true, vocabulary: {min_count: 1}}
    quality: {type: numeric, buckets: 4}
    price: {type: numeric, encoding: standardise}
    picture: {type: vector, size: 2}
    place: {type: coordinates, latitude: lat, longitude: lon}
  cross:
    reason: {type: categorical, vocabulary: {min_count: 1}}
    match: {type: numeric, buckets: 4}
    lift: {type: numeric, encoding: standardise}
    pair: {type: vector, size: 2}
    far: {type: distance, between: [context.place, item.place], buckets: 4}
history:
  action: {column: action, vocabulary: {min_count: 1}}
  fields: {hour: {type: clock, part: hour}, tab: {type: categorical, vocabulary: {min_count: 1}}}
  global_length: 6
  realtime_length: 3
  counts: true
  match_counts: {columns: [item_id, tags, category, quality]}
statistics:
  of_user: {label: click, by: [user]}
  of_place: {label: order, by: [user.age, context.city], smoothing: 5}
  of_hour: {label: click, by: [context.hour]}
  of_item: {label: order, by: [item]}
  of_kind: {label: click, by: [item.category]}
  of_quality: {label: click, by: [user, item.quality], smoothing: 2}
  of_match: {label: click, by: [cross.match]}
  of_far: {label: order, by: [cross.far, cross.reason]}
labels: {click: {}, order: {given: click}}
roles: {request_id: request_id, weight: weight, bias: {column: position, max: 5},
  negative_sampling_rate: 0.25}
score: order * price
split: {valid: 2026-01-07, test: 2026-01-08}
"""


def _some(rng: np.random.Generator, values: Any, missing: float = 0.2) -> list[Any]:
    return [None if rng.random() < missing else value for value in values]


def _table(columns: dict[str, Any]) -> pa.Table:
    return pa.table(
        {
            name: values if isinstance(values, pa.Array) else list(values)
            for name, values in columns.items()
        }
    )


def _lists(rng: np.random.Generator, letter: str, rows: int) -> list[list[str]]:
    return [[f"{letter}{v}" for v in rng.integers(0, 6, n)] for n in rng.integers(0, 4, rows)]


def _coordinates(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    lat, lon = 31 + rng.random(rows), 121 + rng.random(rows)
    here = rng.random(rows) < 0.8
    return {"lat": pa.array(lat, mask=~here), "lon": pa.array(lon, mask=~here)}


def write_rich(
    folder: Path, *, users: int = 12, items: int = 20, seed: int = 0, item: str = "i"
) -> Path:
    """Write four days of logs: two requests a user and day, one to four candidates each.

    Some impressions are there twice.

    Args:
        folder: A new folder.
        users: How many users, each with two versions.
        items: How many items.
        seed: Of all random values.
        item: How the name of every item begins.

    Returns:
        ``folder``.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    pq.write_table(_users(rng, users), folder / "users.parquet")
    names = [f"{item}{number}" for number in range(items)]
    pq.write_table(_items(rng, names), folder / "items.parquet")
    events: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for day in range(-1, 4):
        for user in range(users):
            for visit in range(2):
                hour = int(rng.integers(1, 11)) + visit * 11
                time_ms = START_MS + day * DAY_MS + hour * 3_600_000
                events += _events(rng, f"u{user}", names, time_ms)
                if day >= 0:
                    request = {
                        "user_id": f"u{user}",
                        "time_ms": time_ms,
                        "request_id": f"r{day}-{user}-{visit}",
                    }
                    rows += _impressions(rng, request, names)
    rows += rows[5:50:9]
    order = rng.permutation(len(rows))
    table = pa.Table.from_pylist([rows[n] for n in order])
    pq.write_table(pa.Table.from_pylist(events), folder / "events.parquet")
    pq.write_table(table, folder / "impressions.parquet")
    # the truth of a row is its number: 0.001, 0.002, ... and half of it
    truth = np.arange(1, len(rows) + 1) / 1000
    pq.write_table(pa.table({"p_click": truth, "p_order": truth / 2}), folder / "truth.parquet")
    (folder / "schema.yaml").write_text(SCHEMA)
    return folder


def _users(rng: np.random.Generator, users: int) -> pa.Table:
    """Two versions of every user: from the start, and from the second day on."""
    numbers = [user for user in range(users) for _ in range(2)]
    rows = len(numbers)
    return _table(
        {
            "user_id": [f"u{number}" for number in numbers],
            "since_ms": [0 if row % 2 == 0 else START_MS + DAY_MS for row in range(rows)],
            "segment": _some(rng, [f"s{row}" for row in range(rows)]),
            "likes": _lists(rng, "l", rows),
            "age": _some(rng, rng.integers(18, 70, rows).tolist()),
            "income": _some(rng, rng.normal(size=rows).tolist()),
            "taste": rng.normal(size=(rows, 2)).tolist(),
            **_coordinates(rng, rows),
        }
    )


def _items(rng: np.random.Generator, names: list[str]) -> pa.Table:
    rows = len(names)
    return _table(
        {
            "item_id": names,
            "since_ms": [0] * rows,
            "category": _some(rng, [f"c{row % 5}" for row in range(rows)]),
            "tags": _lists(rng, "t", rows),
            "quality": _some(rng, rng.random(rows).tolist()),
            "price": _some(rng, rng.random(rows).tolist()),
            "picture": rng.normal(size=(rows, 2)).tolist(),
            **_coordinates(rng, rows),
        }
    )


def _events(
    rng: np.random.Generator, user: str, names: list[str], time_ms: int
) -> list[dict[str, Any]]:
    """Up to three events of a user in the minutes before ``time_ms``."""
    return [
        {
            "user_id": user,
            "item_id": names[rng.integers(len(names))],
            "time_ms": time_ms - 60_000 * (minute + 1),
            "action": None if rng.random() < 0.1 else f"a{rng.integers(3)}",
            "tab": None if rng.random() < 0.2 else f"b{rng.integers(4)}",
        }
        for minute in range(int(rng.integers(0, 4)))
    ]


def _impressions(
    rng: np.random.Generator, request: dict[str, Any], names: list[str]
) -> list[dict[str, Any]]:
    """One to four candidates of a request; ``request``: its own columns."""
    context = {
        "lat": 31 + rng.random(),
        "lon": 121 + rng.random(),
        "city": None if rng.random() < 0.2 else f"city{rng.integers(3)}",
        "battery": None if rng.random() < 0.2 else rng.random(),
        "query": rng.normal(size=3).tolist(),
    }
    rows = []
    for position in range(int(rng.integers(1, 5))):
        click = None if rng.random() < 0.1 else int(rng.random() < 0.4)
        order = None if rng.random() < 0.1 else int(bool(click) and rng.random() < 0.5)
        rows.append(
            {
                "user_id": request["user_id"],
                "item_id": names[rng.integers(len(names))],
                "time_ms": request["time_ms"],
                "request_id": request["request_id"],
                "position": position,
                "weight": float(rng.integers(1, 4)),
                "reason": None if rng.random() < 0.2 else f"w{rng.integers(3)}",
                "match": None if rng.random() < 0.2 else rng.random(),
                "lift": None if rng.random() < 0.2 else rng.random(),
                "pair": rng.normal(size=2).tolist(),
                "click": click,
                "order": order,
                **{name: context[name] for name in ("city", "battery", "query", "lat", "lon")},
            }
        )
    return rows
