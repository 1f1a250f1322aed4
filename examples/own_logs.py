"""Rank your own items: two Parquet files and a schema, then a ranked list.

Writes into ./example_shop, which must not exist.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import hemix

SCHEMA = """
name: shop
tables: {items: items.parquet}
features:
  user: {user_id: {type: categorical, vocabulary: {min_count: 5}}}
  context: {hour: {type: clock, part: hour}}
  item:
    item_id: {type: categorical, vocabulary: {min_count: 5}}
    category: {type: categorical}
    price: {type: numeric}
history: {global_length: 200, realtime_length: 50}
labels: {click: {column: is_click}, order: {column: is_order, given: click}}
roles: {request_id: request_id, bias: {column: position}}
score: order * price
split: {valid: 2026-01-11, test: 2026-01-12}
"""

logs = Path("example_shop/logs")
logs.mkdir(parents=True)
(logs / "schema.yaml").write_text(SCHEMA)

random = np.random.default_rng(0)
items, requests, shown = 200, 6_000, 5
category = random.integers(0, 8, items)
price = np.round(random.lognormal(3, 0.6, items), 2)
pq.write_table(
    pa.table(
        {
            "item_id": [f"i{n}" for n in range(items)],
            "category": [f"c{c}" for c in category],
            "price": price,
        }
    ),
    logs / "items.parquet",
)

user = random.integers(0, 300, requests).repeat(shown)
item = random.integers(0, items, requests * shown)
start_ms = 1_767_571_200_000  # 2026-01-05, UTC
time_ms = (start_ms + np.sort(random.integers(0, 8 * 86_400_000, requests))).repeat(shown)
likes = random.integers(0, 8, 300)  # each user likes one category
click = random.random(len(user)) < np.where(category[item] == likes[user], 0.5, 0.08)
order = click & (random.random(len(user)) < 0.2)
pq.write_table(
    pa.table(
        {
            "request_id": [f"r{n}" for n in np.arange(requests).repeat(shown)],
            "user_id": [f"u{n}" for n in user],
            "item_id": [f"i{n}" for n in item],
            "time_ms": time_ms,
            "position": np.tile(np.arange(shown), requests),
            "is_click": click,
            "is_order": order,
        }
    ),
    logs / "impressions.parquet",
)

hemix.prepare("example_shop/logs", "example_shop/data")
hemix.train(
    "example_shop/data",
    "example_shop/run",
    settings={"train.epochs": 4, "train.batch_size": 256},
)
scores = hemix.Run.load("example_shop/run").predict("example_shop/data", split="test")
print(scores.schema.names)

one_user = scores.filter(pc.equal(scores["user_id"], scores["user_id"][0]))
for row in one_user.sort_by([("score", "descending")]).slice(0, 5).to_pylist():
    print(
        f"{row['user_id']} {row['item_id']}: click {row['click']:.3f}, order {row['order']:.3f}, "
        f"score {row['score']:.2f}"
    )
