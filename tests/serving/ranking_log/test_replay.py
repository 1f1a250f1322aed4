"""Served rankings made again from their log alone, when the store has long dropped or forgotten
what they saw.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.errors import DataError
from hemix.runs import Run
from hemix.schema import Schema
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.ranking_log import LoggingStore, RankingLogSet
from hemix.serving.ranking_log.logged_events import LoggedEvents, history_at
from hemix.serving.ranking_log.replay import replay, replay_log
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Event
from tests.cli.run import Command
from tests.refusals import raises
from tests.serving.parity import TOLERANCE, live_events, logged_requests, replayed
from tests.serving.ranking_log.test_log import features, late
from tests.serving.redis_server import RedisServer

SCHEMA = (
    "name: small\nlabels: {click: {}}\nsplit: {valid: 2026-01-08, test: 2026-01-09}\ntables: "
    "{events: e}\n"
)
NOON_MS = 1_770_000_000_000


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    match request.param:
        case "memory":
            yield "memory://"
        case "sqlite":
            yield f"sqlite:///{tmp_path / 'events.db'}"
        case _:
            server = RedisServer(tmp_path / "redis").start()
            yield server.url
            server.stop()


def test_the_log_alone_gives_the_scores_that_were_served(
    planted_logs: Path, planted_data: Path, planted_run: Path, tmp_path: Path, url: str
) -> None:
    """Late events, features that change half-way, a cap that drops events, and a second version
    that is loaded half-way.
    """
    run, limits = Run.load(planted_run), StoreLimits(cap=6, timeout_s=20)
    logs = RankingLogSet(tmp_path / "served", limits=limits)
    store = open_store(url, limits)
    logged = LoggingStore(store, logs)
    first_log = logs.open("feed", "1", run.schema)
    engine = Engine(
        run, logged, ServeConfig(store_timeout=20), name="feed", version="1", log=first_log
    )
    requests = logged_requests(planted_logs, Dataset(planted_data))[::4]
    half, opened = len(requests) // 2, [first_log]
    for number, one in enumerate(
        replayed(logged, late(live_events(planted_logs, run.schema)), requests)
    ):
        if number == half:
            logged.append(
                features(requests[half:], {"age": 30.0}, {"category": "c1", "price": 0.5})
            )
            opened.append(logs.open("feed", "2", run.schema))
            logs.release(first_log)
            engine = Engine(
                run,
                logged,
                ServeConfig(store_timeout=20),
                name="feed",
                version="2",
                log=opened[-1],
            )
        assert engine.rank([one.request])[0].degraded == ()
    logs.release(opened[-1])
    assert logs.dropped == 0

    back = [
        one
        for version, log in zip(("1", "2"), opened, strict=True)
        for one in replay(
            log.folder,
            Engine(run, open_store("memory://"), name="feed", version=version),
        )
    ]
    assert len(back) == len(requests) and all(one.complete for one in back)
    assert max(one.difference for one in back) <= TOLERANCE
    assert all(one.history_ranges == one.ranking.history_ranges for one in back)
    by_store = list(replay(opened[0].folder, Engine(run, store, name="feed", version="1"), store))
    assert not all(one.complete for one in by_store), "the store has dropped what the log still has"
    store.close()

    report = replay_log(opened[1].folder, planted_run)
    assert report["rankings"] == len(requests) - half and report["with_incomplete_histories"] == 0
    assert report["max_abs_difference"] <= TOLERANCE


def test_events_that_the_log_lacks_are_noticed(
    hemix: Command, planted_logs: Path, planted_data: Path, planted_run: Path, tmp_path: Path
) -> None:
    run = Run.load(planted_run)
    logs = RankingLogSet(tmp_path / "served")
    store = LoggingStore(open_store("memory://", StoreLimits(ttl_ms=None)), logs)
    log = logs.open("feed", "1", run.schema)
    engine = Engine(run, store, ServeConfig(store_timeout=20), name="feed", log=log)
    for one in replayed(
        store,
        live_events(planted_logs, run.schema),
        logged_requests(planted_logs, Dataset(planted_data))[:12],
    ):
        engine.rank([one.request])
    logs.release(log)
    (path,) = (log.folder / "events").glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.slice(table.num_rows // 3), path)  # as of a process that was killed
    code, out, err = hemix("log", "replay", log.folder, "--run", planted_run, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (
        report["rankings"] == 12
        and report["with_incomplete_histories"] > 0
        and report["max_abs_difference"] <= TOLERANCE
    )

    pq.write_table(table.drop_columns(["served_revision"]), path)
    with raises(DataError, path, code="missing_column", field="served_revision"):
        replay_log(log.folder, planted_run)


@pytest.mark.parametrize("seed", range(5))
def test_a_history_from_the_log_is_the_one_that_the_store_had(tmp_path: Path, seed: int) -> None:
    """Through caps, forgetting, late events, duplicates and events that enter no history."""
    draw, now = random.Random(seed), [NOON_MS]
    limits = StoreLimits(cap=4, ttl_ms=1_000, duplicate_window=2, clock_ms=lambda: now[0])
    logs = RankingLogSet(tmp_path / "served", limits=limits)
    store = LoggingStore(open_store("memory://", limits), logs)
    schema, seen = Schema.parse(SCHEMA), []
    log = logs.open("feed", "1", schema)
    for _ in range(120):
        now[0] += draw.choice([1, 200, 600, 1_000, 1_001])
        body = []
        for _ in range(draw.randrange(1, 4)):
            kind = draw.choice(["interaction", "interaction", "interaction", "impression", "user"])
            body.append(
                Event(
                    id=draw.choice("abcdefghijkl"),
                    kind=kind,
                    user=draw.choice("uv"),
                    time_ms=NOON_MS + draw.randrange(8),
                    item=None if kind == "user" else "i",
                    action="click" if kind == "interaction" else None,
                    fields={"age": 3} if kind == "user" else {},
                )
            )
        store.append(body)
        seen += [(user, store.history(user, limit=9)) for user in "uv"]
    logs.release(log)
    arrived = LoggedEvents(log.folder, schema).of({"u", "v"})
    assert sum(history.revision > 0 for _, history in seen) > 100
    for user, history in seen:
        if history.revision:
            replayed_events = history_at(
                arrived[user], history.revision, cap=limits.cap, ttl_ms=limits.ttl_ms
            )
            assert replayed_events is not None and [e.id for e in replayed_events] == [
                e.id for e in history.events
            ]
            assert tuple(replayed_events) == history.events
    assert history_at(arrived["u"], 1, cap=None, ttl_ms=None) is None
