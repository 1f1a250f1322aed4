"""What is served is what training computed: every test impression of the logs, events arriving as they did, to 1e-5."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hemix import api
from hemix.data.dataset import Dataset
from hemix.run import Run
from hemix.serving.engine import Engine
from hemix.serving.store import Limits, open_store
from hemix.serving.types import HistoryOverride, RankRequest
from tests.serving.parity import asked_requests, assert_same, expected_scores, live_events, replayed

SETTINGS = {"train.batch_impressions": 32, "train.warmup_steps": 1, "model.embedding_deviation": 0.5}


@pytest.fixture(scope="module")
def planted_run(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(
        planted_data, tmp_path_factory.mktemp("planted-run") / "run", settings={**SETTINGS, "train.batch_impressions": 512}
    )


@pytest.fixture(params=["planted", "rich"])
def world(request: pytest.FixtureRequest) -> tuple[Path, Dataset, Run]:
    logs, data, run = (request.getfixturevalue(f"{request.param}_{part}") for part in ("logs", "data", "run"))
    return logs, Dataset(data), Run.load(run)


@pytest.fixture
def engine(world: tuple[Path, Dataset, Run]) -> Iterator[Engine]:
    store = open_store("memory://", Limits(cap=10_000, ttl_ms=None))
    engine = Engine(world[2], store, store_timeout_s=5)
    yield engine
    engine.close()


def test_the_test_split_as_it_happened(world: tuple[Path, Dataset, Run]) -> None:
    logs, data, run = world
    store = open_store("memory://", Limits(cap=10_000, ttl_ms=None))
    engine = Engine(run, store, store_timeout_s=5)
    expected = expected_scores(run, data)
    cached = 0
    for asked in replayed(store, live_events(logs, run.schema), asked_requests(logs, data)):
        for _ in range(2):
            ranking = engine.rank([asked.request])[0]
            assert_same(ranking, asked, expected)
            cached += ranking.cached
    assert cached >= len(asked_requests(logs, data)), "the second time a user's state was there"
    engine.close()
