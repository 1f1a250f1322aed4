"""A feature type that no file of hemix knows is prepared, trained, served and replayed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hemix import api
from hemix.data.dataset import Dataset
from hemix.data.encode import Encoders
from hemix.errors import DataError, RequestError
from hemix.preparation import prepare
from hemix.runs import Run
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.ranking_log import LoggingStore, RankingLogSet
from hemix.serving.ranking_log.replay import replay_log
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Candidate, RankRequest
from tests.features import log_count, minute_of_day  # noqa: F401 (they register their types)
from tests.planted import SCHEMA, write_logs
from tests.refusals import raises
from tests.rich import write_rich
from tests.serving.parity import (
    TOLERANCE,
    assert_same,
    expected_scores,
    live_events,
    logged_requests,
    replayed,
)

COUNTS = {
    ("users", "user", "orders"): None,
    ("items", "item", "sales"): "sold",
    ("impressions", "cross", "shown"): None,
}
"""(table, level, feature) -> the column, where it is not the feature's name"""


def write_counts(folder: Path, seed: int = 7) -> Path:
    """The rich logs with a count of users, of items and of impressions, a fifth of each missing.

    Context, cross and events have the minute of the day too, which is the key of a statistic.
    """
    write_rich(folder)
    rng = np.random.default_rng(seed)
    schema = yaml.safe_load((folder / "schema.yaml").read_text())
    for (table, level, name), column in COUNTS.items():
        path = folder / f"{table}.parquet"
        content = pq.read_table(path)
        counts = np.floor(np.exp(rng.normal(2, 2, content.num_rows)))
        values = pa.array(counts.astype(np.int64), mask=rng.random(len(counts)) < 0.2)
        pq.write_table(content.append_column(column or name, values), path)
        schema["features"][level][name] = {"type": "log_count"}
        if column:
            schema["features"][level][name]["column"] = column
    for level in ("context", "cross"):
        schema["features"][level]["minute"] = {"type": "minute_of_day"}
    schema["history"]["fields"]["minute"] = {"type": "minute_of_day"}
    schema["statistics"]["of_minute"] = {"label": "click", "by": ["cross.minute"]}
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counts(tmp_path_factory.mktemp("counts") / "logs")


@pytest.fixture(scope="module")
def data(logs: Path) -> Path:
    prepare(logs, logs.parent / "data")
    return logs.parent / "data"


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    settings = {
        "train.batch_size": 32,
        "train.warmup_steps": 1,
        "model.embedding_init_std": 0.5,
    }
    return api.train(data, data.parent / "run", settings=settings)


def test_it_is_prepared(logs: Path, data: Path) -> None:
    encoders, split = Encoders.load(data / "encoders"), Dataset(data).split("test")
    assert Encoders.load(data / "encoders").schema.to_yaml().count("type: log_count") == 3
    saved = json.loads((data / "encoders" / "encoders.json").read_text())["states"]
    counts = {"user.orders", "item.sales", "cross.shown"}
    assert set(saved) == {*counts, "context.minute", "cross.minute", "event.minute"}
    sales = pq.read_table(logs / "items.parquet").column("sold").to_pylist()
    block = encoders.encode("item", {"sold": pa.array([sales[3], None, 0])}, 3)
    at = encoders.spec().item.numbers_of("sales")
    assert [encoders.spec().item.number_names[i] for i in at] == ["sales", "sales.missing"]
    expected = [[math.log1p(sales[3]) / saved["item.sales"], 0], [0, 1], [0, 0]]
    np.testing.assert_allclose(block.numbers[:, at], expected, rtol=1e-6)

    shown = pq.read_table(logs / "impressions.parquet").column("shown").to_pylist()
    batch, at = split.batch(np.arange(split.requests)), encoders.spec().cross.numbers_of("shown")
    rows = [shown[row] for row in split.log_row.read()[batch.impression_index.numpy()]]
    expected = [[0, 1] if v is None else [math.log1p(v) / saved["cross.shown"], 0] for v in rows]
    np.testing.assert_allclose(batch.cross.numbers[:, at].numpy(), expected, rtol=1e-6)


def test_a_computed_type_is_prepared(data: Path) -> None:
    encoders, split = Encoders.load(data / "encoders"), Dataset(data).split("train")
    batch, spec = split.batch(np.arange(split.requests)), encoders.spec()
    minutes = batch.request_time_ms.numpy() % 86_400_000 // 60_000
    edges = encoders.states[("states", "context.minute")]
    assert len(edges) == 3 and spec.tables["context.minute"] == 2 + 4
    ids = batch.context.ids[:, spec.context.names.index("minute")].numpy()
    assert ids.tolist() == [2 + sum(minute >= edge for edge in edges) for minute in minutes]

    edges = encoders.states[("states", "event.minute")]
    minutes = batch.event_time_ms.numpy() % 86_400_000 // 60_000
    ids = batch.event_ids[:, spec.event.names.index("minute")].numpy()
    assert len(edges) == 3 and len(ids) > 50
    assert ids.tolist() == [2 + sum(minute >= edge for edge in edges) for minute in minutes]


def test_impressions_as_events_have_it_too(tmp_path: Path) -> None:
    schema = SCHEMA.replace("tables: {events: events.parquet, items", "tables: {items")
    schema = schema.replace("{hour: {type: clock, part: hour}}", "{at: {type: minute_of_day}}")
    prepare(write_logs(tmp_path / "logs", schema=schema), tmp_path / "data")
    encoders = Encoders.load(tmp_path / "data" / "encoders")
    assert len(encoders.states[("states", "event.at")]) == 3


def test_a_later_day_keeps_its_state(data: Path, tmp_path: Path) -> None:
    other = write_counts(tmp_path / "logs", seed=8)
    prepare(other, tmp_path / "data", init_from=data)
    prepare(other, tmp_path / "anew")
    before, after, anew = (
        Encoders.load(folder / "encoders")
        for folder in (data, tmp_path / "data", tmp_path / "anew")
    )
    assert before.changed_states(after) == []
    assert {"user.orders", "item.sales", "cross.shown"} <= set(before.changed_states(anew))


def test_it_is_served_as_it_was_trained_and_replayed(
    logs: Path, data: Path, run: Path, tmp_path: Path
) -> None:
    loaded, served = Run.load(run), RankingLogSet(tmp_path / "served")
    log = served.open("feed", "1", loaded.schema)
    store = LoggingStore(open_store("memory://", StoreLimits(ttl_ms=None)), served)
    config = ServeConfig(store_timeout=5)
    engine = Engine(loaded, store, config, name="feed", version="1", log=log)
    requests = logged_requests(logs, Dataset(data))
    expected = expected_scores(loaded, Dataset(data))
    values = [candidate.fields["shown"] for one in requests for candidate in one.request.items]
    assert None in values and len(set(values)) > 5
    for one in replayed(store, live_events(logs, loaded.schema), requests):
        assert_same(engine.rank([one.request])[0], one, expected)
    fields = {"shown": 3, "sold": 10**6}
    alone = _request(requests[0].request, fields)
    changed, as_before = engine.rank([alone])[0], engine.rank([_request(alone, {"shown": 3})])[0]
    assert changed.items[0].score != as_before.items[0].score, "the request's own value counts"
    engine.close()
    served.release(log)

    again = replay_log(log.folder, run)
    assert again["rankings"] == len(requests) + 2
    assert again["max_abs_difference"] <= TOLERANCE


def _request(like: RankRequest, fields: dict[str, Any]) -> RankRequest:
    item = like.items[0].id
    return RankRequest(
        id=f"alone-{len(fields)}",
        user=like.user,
        time_ms=like.time_ms,
        context=like.context,
        items=(Candidate(item, fields),),
    )


def test_boosted_trees_read_it(data: Path, tmp_path: Path) -> None:
    settings = {"train.batch_size": 32, "model.name": "lightgbm"}
    loaded = Run.load(api.train(data, tmp_path / "run", settings=settings))
    scores = expected_scores(loaded, Dataset(data))
    assert all(0 < row["click"] < 1 for row in scores.values())


def test_a_wrong_value_is_refused_in_a_log_and_in_a_request(
    logs: Path, data: Path, run: Path, tmp_path: Path, copied: Callable[[Path, Path], Path]
) -> None:
    wrong = copied(logs, tmp_path / "logs")
    items = pq.read_table(wrong / "items.parquet")
    counts = items.column("sold").to_pylist()
    counts[4] = -1
    position = items.column_names.index("sold")
    pq.write_table(items.set_column(position, "sold", pa.array(counts)), wrong / "items.parquet")
    with raises(DataError, wrong / "items.parquet", "row 4", field="sold"):
        prepare(wrong, tmp_path / "data")

    engine = Engine(Run.load(run), open_store("memory://"), ServeConfig(store_timeout=5))
    like = logged_requests(logs, Dataset(data))[0].request
    with pytest.raises(RequestError) as error:
        engine.rank([_request(like, {"shown": -1})])
    assert error.value.field == "items[0].fields.shown"
    engine.close()


@pytest.fixture
def copied() -> Callable[[Path, Path], Path]:
    import shutil

    return lambda source, target: Path(shutil.copytree(source, target))
