"""``hemix init``, ``check`` and ``schema``: a first schema for logs that have none."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import jsonschema_rs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import hemix
from hemix import Schema
from hemix.errors import DataError, UsageError
from tests.cli.run import Command

DAY_S = 86_400
START_S = 1_767_571_200  # 2026-01-05 00:00 UTC
ROWS = 2_000


def write_shop(folder: Path) -> Path:
    """Lists of five products in seconds, with clicks, purchases later on, and what they brought."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    request = np.arange(ROWS) // 5
    seconds = START_S + np.sort(rng.integers(0, 6 * DAY_S, ROWS // 5))[request]
    click = rng.random(ROWS) < 0.3
    bought = click & (rng.random(ROWS) < 0.4)
    user = rng.integers(0, 80, ROWS // 5)[request]
    product = rng.integers(0, 60, ROWS)
    impressions = {
        "search_id": [f"s{i}" for i in request],
        "customer_id": user,
        "product_id": [f"p{i}" for i in product],
        "ts": seconds,
        "rank": np.arange(ROWS) % 5 + 1,
        "device": rng.choice(["phone", "desk"], ROWS // 5)[request],
        "similarity": rng.random(ROWS),
        "clicked": click.astype(np.int8),
        "purchase": bought.astype(np.int8),
        "purchase_ts": pa.array(
            [int(t) + 3600 if b else None for t, b in zip(seconds, bought, strict=True)], pa.int64()
        ),
        "revenue": pa.array([9.5 if b else None for b in bought]),
        "dwell_seconds": rng.random(ROWS) * click,
        "page_version": [7] * ROWS,
    }
    pq.write_table(pa.table(impressions), folder / "impression_log.parquet")
    products = {
        "product_id": [f"p{i}" for i in range(60)],
        "brand": [f"b{i % 12}" for i in range(60)],
        "price": rng.random(60) * 100,
        "colours": [["red"], ["red", "blue"], None] * 20,
        "embedding": pa.array([[0.5, 1.5, 2.5]] * 60, pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(products), folder / "products.parquet")
    return folder


def write_news(folder: Path) -> Path:
    """A stream in a folder of files: timestamps, booleans, behaviour in a table of its own."""
    rng = np.random.default_rng(1)
    (folder / "exposures" / "dt=1").mkdir(parents=True)
    start = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    times = [
        start + datetime.timedelta(minutes=int(m)) for m in np.sort(rng.integers(0, 9_000, ROWS))
    ]
    stream = pa.table(
        {
            "viewerId": [f"v{i}" for i in rng.integers(0, 70, ROWS)],
            "articleId": rng.integers(0, 90, ROWS),
            "shownAt": pa.array(times, pa.timestamp("us", tz="UTC")),
            "is_clicked": rng.random(ROWS) < 0.2,
        }
    )
    pq.write_table(stream, folder / "exposures" / "dt=1" / "a.parquet")
    events = pa.table(
        {
            "viewerId": [f"v{i}" for i in rng.integers(0, 70, 500)],
            "articleId": rng.integers(0, 90, 500),
            "readAt": pa.array(
                [start - datetime.timedelta(minutes=int(m)) for m in rng.integers(1, 9_000, 500)],
                pa.timestamp("us", tz="UTC"),
            ),
            "event_type": rng.choice(["read", "share"], 500),
        }
    )
    pq.write_table(events, folder / "behaviours.parquet")
    return folder


def test_lists_of_a_shop(tmp_path: Path) -> None:
    logs = write_shop(tmp_path / "shop logs")
    hemix.init(logs)
    schema = Schema.load(logs / "schema.yaml")
    assert (schema.user, schema.item) == ("customer_id", "product_id")
    assert (schema.clock.column, schema.clock.unit) == ("ts", "s")
    assert schema.tables.items == "products.parquet"
    assert schema.tables.events is schema.tables.users is None
    assert schema.roles.request_id == "search_id"
    assert schema.roles.bias is not None
    assert (schema.roles.bias.column, schema.roles.bias.serve_as) == ("rank", 1)
    assert schema.tasks == ("clicked", "purchase")
    assert schema.labels["purchase"].given == "clicked"
    assert schema.labels["purchase"].available_at == "purchase_ts"
    types = {f"{level}.{name}": feature.type for level, name, feature in schema.features}
    assert types == {
        "user.customer_id": "categorical",
        "context.hour": "clock",
        "context.weekday": "clock",
        "context.device": "categorical",
        "item.product_id": "categorical",
        "item.brand": "categorical",
        "item.price": "numeric",
        "item.colours": "categorical",
        "item.embedding": "vector",
        "cross.similarity": "numeric",
    }
    left_out = (logs / "schema.yaml").read_text()
    assert all(f"# {name}: left out" in left_out for name in ("revenue", "dwell_seconds"))
    assert (schema.split.valid, schema.split.test) == ("2026-01-09", "2026-01-10")
    assert "clicked_brand" in schema.statistics
    manifest = hemix.check(logs)
    assert sum(split["rows"] for split in manifest["splits"].values()) == ROWS
    assert manifest["join_rate"]["items"] == 1.0
    assert sorted(path.name for path in logs.iterdir()) == [
        *("impression_log.parquet", "products.parquet", "schema.yaml"),
    ]


def test_a_stream_of_news(tmp_path: Path) -> None:
    logs = write_news(tmp_path / "news")
    hemix.init(logs, tmp_path / "draft.yaml")
    schema = Schema.load(tmp_path / "draft.yaml")
    assert (schema.user, schema.item) == ("viewerId", "articleId")
    assert (schema.tables.impressions, schema.tables.events) == ("exposures", "behaviours.parquet")
    assert (schema.clock.column, schema.history.clock_column) == ("shownAt", "readAt")
    assert schema.history.action is not None
    assert schema.history.action.column == "event_type"
    assert schema.tasks == ("is_clicked",)
    (logs / "schema.yaml").write_text((tmp_path / "draft.yaml").read_text())
    assert hemix.check(logs)["history"]["events"] == 500


@pytest.mark.parametrize("named", ["rich", "planted"])
def test_logs_of_the_tests(named: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The draft finds the columns that the written schema names."""
    logs = request.getfixturevalue(f"{named}_logs")
    written, draft = Schema.load(logs / "schema.yaml"), tmp_path / "draft.yaml"
    hemix.init(logs, draft)
    found = Schema.load(draft)
    assert (found.user, found.item) == (written.user, written.item)
    assert found.clock.column == written.clock.column
    assert found.tables.events == written.tables.events
    assert found.tasks[0] == written.tasks[0]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        hemix.init(tmp_path)
    assert caught.value.code == "missing_table"
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        hemix.init(tmp_path)
    assert (caught.value.code, caught.value.field) == ("missing_table", "tables.impressions")
    columns = {"user_id": [1, 2], "item_id": [1, 2], "time_ms": [START_S * 1000] * 2}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        hemix.init(tmp_path)
    assert (caught.value.code, caught.value.field) == ("missing_column", "labels")
    (tmp_path / "schema.yaml").write_text("name: mine\n")
    with pytest.raises(UsageError) as used:
        hemix.init(tmp_path)
    assert used.value.code == "out_exists"
    assert (tmp_path / "schema.yaml").read_text() == "name: mine\n"


def test_the_json_schema_accepts_schemas_and_refuses_typing_errors(
    hemix: Command, rich_logs: Path, planted_logs: Path, tmp_path: Path
) -> None:
    code, printed, _ = hemix("schema")
    assert code == 0
    validator = jsonschema_rs.validator_for(json.loads(printed))
    shop = write_shop(tmp_path / "shop")
    assert hemix("init", shop)[0] == 0
    for logs in (rich_logs, planted_logs, shop):
        content = yaml.load((logs / "schema.yaml").read_text(), yaml.BaseLoader)
        validator.validate(typed(content))
        content["lables"] = {}
        assert not validator.is_valid(typed(content))


def typed(content: object) -> object:
    """YAML as an editor reads it: numbers and booleans have their type, dates are text."""
    if isinstance(content, dict):
        return {key: typed(value) for key, value in content.items()}
    if isinstance(content, list):
        return [typed(value) for value in content]
    value = yaml.safe_load(str(content))
    return content if isinstance(value, datetime.date | datetime.datetime | dict | list) else value
