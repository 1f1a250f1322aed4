"""Rankings from SQLite and Redis are those of training to 1e-5: events as they came, or loaded from
logs; impressions as events too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hemix import api
from hemix.data.dataset import Dataset
from hemix.runs import Run
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.stores import StoreLimits, open_store
from tests.rich import SCHEMA
from tests.serving.parity import (
    assert_same,
    expected_scores,
    live_events,
    logged_requests,
    replayed,
)
from tests.serving.redis_server import RedisServer
from tests.serving.stores.conftest import empty

SETTINGS = {
    "train.batch_size": 32,
    "train.warmup_steps": 1,
    "train.epochs": 2,
    "model.embedding_init_std": 0.5,
}


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    server: RedisServer = request.getfixturevalue("redis_server")
    empty(server)
    return server.url


@pytest.fixture(scope="module")
def shown(rich_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Logs, data and run of the same impressions, which are their own history."""
    folder = tmp_path_factory.mktemp("shown")
    logs = folder / "logs"
    shutil.copytree(rich_logs, logs)
    schema = SCHEMA.replace("events: events.parquet, ", "")
    schema = schema.replace("  action: {column: action, vocabulary: {min_count: 1}}\n", "").replace(
        "tab: {", "reason: {"
    )
    (logs / "schema.yaml").write_text(schema)
    api.prepare(logs, folder / "data")
    return logs, folder / "data", api.train(folder / "data", folder / "run", settings=SETTINGS)


def test_events_as_they_came(rich_logs: Path, rich_data: Path, rich_run: Path, url: str) -> None:
    data, run = Dataset(rich_data), Run.load(rich_run)
    store = open_store(url, StoreLimits(timeout_s=5))
    engine = Engine(run, store, ServeConfig(store_timeout=5))
    expected = expected_scores(run, data)
    for logged in replayed(
        store, live_events(rich_logs, run.schema), logged_requests(rich_logs, data)
    ):
        for _ in range(2):
            assert_same(engine.rank([logged.request])[0], logged, expected)
    engine.close()
    store.close()


def test_events_loaded_from_logs(
    rich_logs: Path, rich_data: Path, rich_run: Path, url: str
) -> None:
    compare_loaded(rich_logs, rich_data, rich_run, url)


def test_impressions_loaded_from_logs(shown: tuple[Path, Path, Path], url: str) -> None:
    compare_loaded(*shown, url)


def compare_loaded(logs: Path, folder: Path, trained: Path, url: str) -> None:
    data, run = Dataset(folder), Run.load(trained)
    assert api.store_load(logs, url)["accepted"] == data.manifest["history"]["events"] > 100
    store = open_store(
        url, StoreLimits(timeout_s=5, impressions=run.schema.history_source == "impressions")
    )
    engine = Engine(run, store, ServeConfig(store_timeout=5))
    expected = expected_scores(run, data)
    seen = 0
    for logged in logged_requests(logs, data):
        ranking = engine.rank([logged.request])[0]
        assert_same(ranking, logged, expected)
        seen += ranking.history_ranges[2] - ranking.history_ranges[0]
    assert seen > 0
    engine.close()
    store.close()
