"""Nothing that the encoders learn depends on outcomes.

Flipped labels, with the events that they cause, change no byte of the encoders; and labels that are
coin flips cannot be predicted by any model, though every click leaves an event.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix import api
from hemix.models import model_names
from hemix.preparation import prepare

DAY_MS = 86_400_000
START_MS = 1_767_571_200_000  # 2026-01-05 00:00 UTC

FEATURES = """
features:
  user: {user_id: {type: categorical}, age: {type: numeric, buckets: 4}}
  item:
    item_id: {type: categorical}
    shop: {type: categorical, table: shop}
    price: {type: numeric, encoding: standardise}
  context: {city: {type: categorical}}
  cross: {offer: {type: numeric, buckets: 8}}
"""
TABLES = "tables: {events: events.parquet, items: items.parquet, users: users.parquet}\n"
ALONE = "tables: {items: items.parquet, users: users.parquet}\n"
SPLIT = "split: {valid: 2026-01-06, test: 2026-01-07}\n"
SCHEMAS = {
    "an action": f"name: a\n{TABLES}{FEATURES}"
    f"labels: {{click: {{}}, order: {{given: click}}}}\n{SPLIT}",
    "fields": f"""name: a
{TABLES}{FEATURES}
history:
  fields:
    seconds: {{type: numeric, buckets: 4}}
    page: {{type: categorical}}
    at_shop: {{type: categorical, table: shop}}
labels: {{click: {{}}, order: {{given: click}}}}
{SPLIT}""",
    "impressions as events": f"""name: a
{ALONE}{FEATURES}
history: {{fields: {{place: {{type: categorical, column: city}}}}}}
labels: {{click: {{}}, order: {{given: click, available_at: known_ms}}}}
{SPLIT}""",
}
"""What the history is made of"""


def write_logs(
    folder: Path,
    schema: str,
    *,
    flip: bool = False,
    rows: int = 900,
    users: int = 90,
    items: int = 400,
) -> Path:
    """Write logs of three days with coin flips as labels; every click and order is an event too.

    ``flip``: turn all labels round, with the events that they cause.
    """
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    (folder / "schema.yaml").write_text(schema)
    count = 3 * rows
    item = np.where(
        rng.random(count) < 0.8, rng.integers(items, size=count), rng.integers(5, size=count)
    )
    user = rng.integers(users, size=count)
    time_ms = (
        START_MS
        + np.repeat(np.arange(3), rows) * DAY_MS
        + rng.integers(1000, DAY_MS - 10_000_000, size=count)
    )
    click, order = rng.random(count) < 0.3, rng.random(count) < 0.5
    if flip:
        click, order = ~click, ~order
    order &= click
    shown = Shown(user=user, item=item, time_ms=time_ms, click=click, order=order)
    pq.write_table(_impressions(rng, shown), folder / "impressions.parquet")
    pq.write_table(
        pa.table({"user_id": [f"u{n}" for n in range(users)], "age": rng.integers(90, size=users)}),
        folder / "users.parquet",
    )
    shop = [f"s{n // 2}" for n in range(items)]
    pq.write_table(
        pa.table(
            {"item_id": [f"i{n}" for n in range(items)], "shop": shop, "price": rng.random(items)}
        ),
        folder / "items.parquet",
    )
    pq.write_table(_events(rng, shown, users, shop), folder / "events.parquet")
    return folder


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Impressions and their labels, each [n]."""

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    time_ms: npt.NDArray[np.int64]
    click: npt.NDArray[np.bool_]
    order: npt.NDArray[np.bool_]


def _impressions(rng: np.random.Generator, shown: Shown) -> pa.Table:
    count = len(shown.user)
    known_ms = np.where(shown.order, shown.time_ms + 3_600_000, 0)
    columns: dict[str, Any] = {
        "user_id": [f"u{n}" for n in shown.user],
        "item_id": [f"i{n}" for n in shown.item],
        "time_ms": shown.time_ms,
        "click": shown.click.astype(np.int8),
        "order": shown.order.astype(np.int8),
        "known_ms": pa.array(known_ms, mask=~shown.order),
        "city": [f"c{n}" for n in rng.integers(60, size=count) ** 2],
        "offer": rng.random(count),
    }
    return pa.table(columns)


def _events(rng: np.random.Generator, shown: Shown, users: int, shop: list[str]) -> pa.Table:
    """Views before the logs, and the clicks and orders of the impressions."""
    past = 1_200
    old_item = rng.integers(len(shop), size=past)
    click, order = shown.click, shown.order
    parts = [
        (
            rng.integers(users, size=past),
            old_item,
            START_MS - rng.integers(1, 30 * DAY_MS, size=past),
            "view",
        ),
        (shown.user[click], shown.item[click], shown.time_ms[click] + 1000, "click"),
        (shown.user[order], shown.item[order], shown.time_ms[order] + 2000, "order"),
    ]
    events = {
        "user_id": [f"u{n}" for who, *_ in parts for n in who],
        "item_id": [f"i{n}" for _, what, *_ in parts for n in what],
        "time_ms": np.concatenate([when for *_, when, _ in parts]),
        "action": [action for who, *_, action in parts for _ in who],
        "seconds": np.concatenate([when % 977 for *_, when, _ in parts]).astype(np.float64),
        "page": [f"p{n % 13}" for who, *_ in parts for n in who],
        "at_shop": [shop[n] for _, what, *_ in parts for n in what],
    }
    return pa.table(events)


def encoders(folder: Path, **options: Any) -> dict[str, bytes]:
    prepare(folder, folder / "data", **options)
    files = sorted((folder / "data" / "encoders").iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("history", SCHEMAS)
def test_flipped_labels_and_their_events_change_no_byte_of_the_encoders(
    tmp_path: Path, history: str
) -> None:
    logs = {
        flip: write_logs(tmp_path / str(flip), SCHEMAS[history], flip=flip)
        for flip in (False, True)
    }
    assert encoders(logs[False]) == encoders(logs[True])
    counts = [
        {
            file.relative_to(folder).as_posix(): file.read_bytes()
            for file in folder.rglob("train_impressions.npy")
        }
        for folder in (logs[False] / "data", logs[True] / "data")
    ]
    assert counts[0] == counts[1]
    assert len(counts[0]) == 1 + 8  # items, and the users of every partition


def test_flipped_labels_change_no_byte_of_encoders_that_continue_from_others(
    tmp_path: Path,
) -> None:
    first = write_logs(tmp_path / "first", SCHEMAS["fields"], items=300)
    prepare(first, tmp_path / "earlier")
    digests = [
        encoders(
            write_logs(tmp_path / str(flip), SCHEMAS["fields"], flip=flip),
            init_from=tmp_path / "earlier",
            vocabulary_ttl_days=1,
        )
        for flip in (False, True)
    ]
    assert digests[0] == digests[1]


COINS = """
name: coins
tables: {events: events.parquet, items: items.parquet}
features:
  user: {user_id: {type: categorical}}
  item: {item_id: {type: categorical}, shop: {type: categorical}}
  context: {city: {type: categorical}}
labels: {click: {}}
split: {valid: 2026-01-06, test: 2026-01-07}
"""


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of coin flips whose items are mostly shown once."""
    folder = tmp_path_factory.mktemp("coins")
    logs = write_logs(folder / "logs", COINS, rows=4_000, users=400, items=20_000)
    api.prepare(logs, folder / "data")
    return folder / "data"


def test_on_coin_flips_rows_of_known_and_unknown_items_have_the_same_label_rate(
    coins: Path,
) -> None:
    rates = json.loads((coins / "manifest.json").read_text())["label_rates"]
    for split in ("train", "valid", "test"):
        entry = rates[split]["item.item_id"]["click"]
        assert min(entry["known"]["rows"], entry["unknown"]["rows"]) > 500
        assert entry["beyond_chance"] is False


@pytest.mark.sampled(4)
@pytest.mark.parametrize("model", model_names())
def test_no_model_predicts_coin_flips(coins: Path, tmp_path: Path, model: str) -> None:
    if model == "lightgbm":
        pytest.importorskip("lightgbm")
    run = tmp_path / "run"
    api.train(
        coins,
        run,
        model=model,
        settings={"train.threads": 1, "train.batch_size": 64},
    )
    # a vocabulary that knows the clicked items gives .83 and more on its own rows, what fits by
    # chance .65 at most
    fitted = api.evaluate(run, coins, split="train", importance_impressions=0)["tasks"]["click"][
        "auc"
    ]
    assert abs(fitted - 0.5) < 0.25
    for split in ("valid", "test"):
        click = api.evaluate(run, coins, split=split, importance_impressions=0)["tasks"]["click"]
        low, high = click["auc_ci95"]
        reach = (high - low) / 4  # of 18 intervals at 95 % one misses by chance: half as wide again
        assert low - reach <= 0.5 <= high + reach
        rate = click["positives"] / 4_000
        base = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
        assert click["logloss"] == pytest.approx(base, abs=0.01)
