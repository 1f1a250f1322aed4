"""What is served is what training computed: every test impression of the logs, events arriving as
they did, to 1e-5.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from hemix.data.dataset import Dataset
from hemix.models import build_predictor, model_names
from hemix.models.lightgbm import LightGBM
from hemix.runs import Run
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.types import HistoryOverride
from tests.batches import make_config
from tests.serving.parity import (
    TOLERANCE,
    assert_same,
    expected_scores,
    live_events,
    logged_requests,
    replayed,
)

World = tuple[Path, Dataset, Run]


@pytest.fixture(params=["planted", "rich"])
def world(request: pytest.FixtureRequest) -> World:
    logs, data, run = (
        request.getfixturevalue(f"{request.param}_{part}") for part in ("logs", "data", "run")
    )
    return logs, Dataset(data), Run.load(run)


def engine_of(run: Run, store: Store, **options: Any) -> Engine:
    config = ServeConfig(store_timeout=5, **options)
    return Engine(run, store, config, dynamic_batching="workers" in options)


def memory() -> Store:
    return open_store("memory://", StoreLimits(ttl_ms=None))


def test_the_test_split_as_it_happened(world: World) -> None:
    logs, data, run = world
    store = memory()
    engine = engine_of(run, store)
    expected = expected_scores(run, data)
    cached = 0
    for logged in replayed(store, live_events(logs, run.schema), logged_requests(logs, data)):
        for _ in range(2):
            ranking = engine.rank([logged.request])[0]
            assert_same(ranking, logged, expected)
            cached += ranking.cache == "hit"
    assert cached >= len(logged_requests(logs, data)), "the second time a user's state was there"
    engine.close()


def untrained(run: Path, name: str) -> Run:
    """The run with a model of this name and random weights."""
    trained = Run.load(run)
    config = make_config(name=name, embedding_init_std=0.5)
    model = build_predictor(trained.spec, config, seed=3).eval()
    return dataclasses.replace(trained, model=model)


@pytest.mark.parametrize("name", model_names())
def test_every_model_serves_and_requests_are_joined(
    rich_logs: Path, rich_data: Path, rich_run: Path, name: str
) -> None:
    """All requests in one go, the whole log in the store: what lies after a request is not seen."""
    data, run = Dataset(rich_data), untrained(rich_run, name)
    store, requests = memory(), logged_requests(rich_logs, data)
    store.append(live_events(rich_logs, run.schema))
    engine = engine_of(run, store)
    expected = expected_scores(run, data)
    for ranking, one in zip(engine.rank([a.request for a in requests]), requests, strict=True):
        assert_same(ranking, one, expected)
    for one in requests[:5]:
        assert_same(engine.rank([one.request])[0], one, expected)
    engine.close()


@pytest.mark.parametrize("name", model_names())
def test_every_model_scores_a_large_request_in_parts(
    rich_logs: Path, rich_data: Path, rich_run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By free threads: candidates as by one, wherever they are cut."""
    data, run = Dataset(rich_data), untrained(rich_run, name)
    model, store, requests = run.model, memory(), logged_requests(rich_logs, data)
    store.append(live_events(rich_logs, run.schema))
    items = tuple(item for one in requests for item in one.request.items)
    request = dataclasses.replace(
        requests[-1].request, items=(items * (400 // len(items) + 1))[:399]
    )
    whole, parts = engine_of(run, store), engine_of(run, store, workers=4)
    scored, score = list[int](), model.score
    if isinstance(model, LightGBM):
        # it has no trees, so what these would see stands for what they would say
        weights = torch.randn(
            len(model.features), len(run.spec.tasks), generator=torch.Generator().manual_seed(0)
        )

        def score(state: Any, inputs: Any) -> torch.Tensor:
            return torch.sin(torch.nan_to_num(model.candidate_rows(state, inputs))) @ weights

    monkeypatch.setattr(
        model,
        "score",
        lambda state, inputs: scored.append(len(inputs.batch.bias)) or score(state, inputs),
    )  # type: ignore[func-returns-value]
    rankings = [
        {item.position: (item.score, *item.outputs.values()) for item in e.rank([request])[0].items}
        for e in (whole, parts)
    ]
    assert scored[0] == 399 and sorted(scored[1:]) == [133, 133, 133]
    for position, values in rankings[0].items():
        assert rankings[1][position] == pytest.approx(values, abs=TOLERANCE, nan_ok=True), position
    for engine in (whole, parts):
        engine.close()


@pytest.mark.parametrize("name", model_names())
def test_every_model_goes_on_with_new_events(
    rich_logs: Path, rich_data: Path, rich_run: Path, name: str
) -> None:
    """The log as it happened: a user's state is extended by the events that have come since."""
    data, run = Dataset(rich_data), untrained(rich_run, name)
    store = memory()
    engine, expected, extended = engine_of(run, store), expected_scores(run, data), 0
    for one in replayed(
        store, live_events(rich_logs, run.schema), logged_requests(rich_logs, data)
    ):
        ranking = engine.rank([one.request])[0]
        assert_same(ranking, one, expected)
        extended += ranking.cache == "extended"
    assert extended >= 5
    engine.close()


def test_a_request_may_bring_its_own_history(world: World) -> None:
    logs, data, run = world
    store = memory()
    engine, full = engine_of(run, store), engine_of(run, memory())
    expected = expected_scores(run, data)
    for logged in replayed(store, live_events(logs, run.schema), logged_requests(logs, data)[:40]):
        begin, middle, end = engine.rank([logged.request])[0].history_ranges
        events = store.history(logged.request.user, limit=1000).events
        own = HistoryOverride(global_=events[begin:middle], realtime=events[middle:end])
        assert_same(
            full.rank([dataclasses.replace(logged.request, history=own)])[0], logged, expected
        )
    for one in (engine, full):
        one.close()


def test_a_run_of_another_store_and_back(world: World) -> None:
    """The answer to a request does not depend on who asked before: with a cache of nothing, and
    with one that forgets all the time.
    """
    logs, data, run = world
    store = memory()
    engines = [engine_of(run, store, cache_mib=size / 2**20) for size in (0, 40_000)]
    expected = expected_scores(run, data)
    for logged in replayed(store, live_events(logs, run.schema), logged_requests(logs, data)[:40]):
        for engine in engines:
            assert_same(engine.rank([logged.request])[0], logged, expected)
    assert len(engines[0].cache) == 0 and 0 < engines[1].cache.bytes <= 40_000
    for engine in engines:
        engine.close()
