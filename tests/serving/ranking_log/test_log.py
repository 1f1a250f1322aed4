"""What was served comes back: as an impression log that prepare reads, and as the same scores from
the events as they had arrived.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.preparation import prepare
from hemix.runs import Run
from hemix.schema import Schema
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.idle_maintenance import IdleMaintenance
from hemix.serving.ranking_log import LogCapacity, LoggingStore, RankingLog, RankingLogSet
from hemix.serving.ranking_log.files import LOG_FORMAT
from hemix.serving.ranking_log.replay import replay
from hemix.serving.ranking_log.tables import LoggedRanking, LogTables
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import (
    Candidate,
    Event,
    HistoryOverride,
    RankRequest,
)
from tests.planted import write_logs
from tests.serving.parity import TOLERANCE, LoggedRequest, live_events, logged_requests, replayed
from tests.serving.ranking_log.rankings import logged_ranking


def late(events: Sequence[Event]) -> list[Event]:
    """Every fifth event arrives after the nine that follow it."""
    order = sorted(range(len(events)), key=lambda i: i + 9.5 * (i % 5 == 0))
    return [events[i] for i in order]


def features(
    requests: Sequence[LoggedRequest], user: dict[str, Any], item: dict[str, Any]
) -> list[Event]:
    """What is said of the first request's user and of all its candidates, a moment before it."""
    first = requests[0].request
    events = [
        Event(id="of-user", kind="user", time_ms=first.time_ms - 1, user=first.user, fields=user)
    ]
    return events + [
        Event(id=f"of-{c.id}", kind="item", time_ms=first.time_ms - 1, item=c.id, fields=item)
        for c in {c.id: c for c in first.items}.values()
    ]


@pytest.mark.parametrize("url", ["memory://", "sqlite"])
@pytest.mark.parametrize("name", ["planted", "rich"])
def test_a_replay_gives_the_scores_that_were_served(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, url: str
) -> None:
    """Late events, features of users and items that change half-way, requests with prices of their
    own, and a store lost for a while.
    """
    logs, data, folder = (
        request.getfixturevalue(f"{name}_{part}") for part in ("logs", "data", "run")
    )
    run = Run.load(folder)
    store = open_store(
        url if url == "memory://" else f"sqlite:///{tmp_path / 'events.db'}",
        StoreLimits(ttl_ms=None, timeout_s=20),
    )
    log = RankingLog(tmp_path / "served", run.schema, LogCapacity(rows=150))
    logged = LoggingStore(store, log)
    engine = Engine(run, logged, ServeConfig(store_timeout=20), name="feed", version="3", log=log)
    requests = logged_requests(logs, Dataset(data))[:: 3 if name == "planted" else 1]
    events = late(live_events(logs, run.schema))
    half, served, revisions = len(requests) // 2, [], set()
    for number, one in enumerate(replayed(logged, events, requests)):
        if number == half:
            changed = {"age": 30.0, "lat": 31.5}, {"category": "c1", "price": 0.5, "tags": ["t1"]}
            logged.append(features(requests[half:], *changed))
        items = tuple(
            dataclasses.replace(c, fields={**c.fields, "price": 0.25}) if number % 7 == 0 else c
            for c in one.request.items
        )
        ranking = engine.rank([dataclasses.replace(one.request, items=items, id=f"r{number % 5}")])[
            0
        ]
        served.append(ranking)
        revisions.add(ranking.history_revision)
    logged.append(features(requests[half:], {"age": 60.0}, {"category": "c2"})[1:])
    log.close()
    assert log.dropped == 0 and log.problem is None and len(revisions) > 10

    again = Engine(Run.load(folder), store, name="feed", version="3")
    back = list(replay(log.folder, again, store))
    assert len(back) == len(served)
    assert sum(len(one.logged_scores) for one in back) == sum(
        len(ranking.items) for ranking in served
    )
    assert max(one.difference for one in back) <= TOLERANCE
    for one, ranking in zip(back, served, strict=True):
        assert (one.id, one.history_ranges, one.ranking.history_ranges) == (
            ranking.id,
            ranking.history_ranges,
            ranking.history_ranges,
        )
    assert list(replay(log.folder, Engine(run, store, name="feed", version="4"), store)) == []
    store.close()


def test_a_replay_would_notice(
    planted_logs: Path, planted_data: Path, planted_run: Path, tmp_path: Path
) -> None:
    """With one event less the scores differ: the check above can fail."""
    run, store = Run.load(planted_run), open_store("memory://", StoreLimits(ttl_ms=None))
    log = RankingLog(tmp_path / "served", run.schema)
    engine = Engine(run, store, ServeConfig(store_timeout=20), log=log)
    requests = logged_requests(planted_logs, Dataset(planted_data))[:20]
    for one in replayed(store, live_events(planted_logs, run.schema), requests):
        engine.rank([one.request])
    log.close()

    class Short:
        def arrivals(self, user: str, *, until: int | None = None) -> tuple[Event, ...]:
            return store.arrivals(user, until=until)[:-1]

    assert max(one.difference for one in replay(log.folder, engine, store)) <= TOLERANCE
    shortened = replay(log.folder, engine, Short())  # type: ignore[arg-type]
    assert max(one.difference for one in shortened) > TOLERANCE


def test_prepare_reads_what_was_served_as_an_impression_log(
    planted_run: Path, tmp_path: Path
) -> None:
    """Served rankings and logged events in the place of the log: the same requests, features and
    histories, labels unknown.
    """
    small = write_logs(tmp_path / "small", users=8)
    prepare(small, tmp_path / "small-data")
    run, data = Run.load(planted_run), Dataset(tmp_path / "small-data")
    store = open_store("memory://", StoreLimits(ttl_ms=None))
    log = RankingLog(tmp_path / "served", run.schema)
    logged = LoggingStore(store, log)
    engine = Engine(run, logged, ServeConfig(store_timeout=20), log=log)
    logged_rankings = [
        one for split in ("train", "valid", "test") for one in logged_requests(small, data, split)
    ]
    for one in replayed(logged, live_events(small, run.schema), logged_rankings):
        engine.rank([one.request])
    log.close()

    logs = tmp_path / "logs"
    logs.mkdir()
    for table in ("items.parquet", "users.parquet"):
        shutil.copy(small / table, logs / table)
    (logs / "impressions").symlink_to(log.folder / "rankings")
    (logs / "events").symlink_to(log.folder / "events")
    schema = (small / "schema.yaml").read_text()
    schema = schema.replace(
        "tables: {events: events.parquet,", "tables: {impressions: impressions, events: events,"
    )
    (logs / "schema.yaml").write_text(schema)
    manifest = prepare(logs, tmp_path / "data")

    again = Dataset(tmp_path / "data")
    assert {name: split["rows"] for name, split in manifest["splits"].items()} == {
        name: split["rows"] for name, split in data.manifest["splits"].items()
    }
    for name in ("train", "test"):
        before, after = data.split(name), again.split(name)
        ours, theirs = (part.batch(np.arange(part.requests)) for part in (before, after))
        assert sorted(ours.request_time_ms.tolist()) == sorted(theirs.request_time_ms.tolist())
        for level in ("users", "context", "cross"):
            a, b = (
                np.sort(getattr(batch, level).numbers.numpy(), axis=0) for batch in (ours, theirs)
            )
            assert a.shape == b.shape and np.allclose(a, b, atol=1e-6)
        lengths = [
            np.sort(batch.history_ranges.diff(dim=1).numpy(), axis=0) for batch in (ours, theirs)
        ]
        assert (lengths[0] == lengths[1]).all(), "histories are as long as they were"
        assert (after.labels.read() == -1).all()


def served_log(
    folder: Path, *, idle: IdleMaintenance | None = None, **capacity: Any
) -> tuple[RankingLog, RankRequest]:
    schema = Schema.parse(
        "name: small\nlabels: {click: {}}\nsplit: {valid: 2026-01-08, test: 2026-01-09}\ntables: "
        "{events: e}\n"
    )
    return RankingLog(folder, schema, LogCapacity(**capacity), idle=idle), RankRequest(
        id="r", user="u", time_ms=1_768_000_000_000, items=(Candidate("i"),)
    )


def served(request: RankRequest) -> LoggedRanking:
    return logged_ranking(request, {"click": 0.5})


def test_rows_have_a_key_if_the_schema_names_one() -> None:
    """So that a log reads like the logs of the schema's own table."""
    schema = Schema.parse(
        "name: small\nlabels: {click: {}}\nsplit: {valid: 2026-01-08, test: 2026-01-09}\n"
        "roles: {row_key: impression_id}\n"
    )
    request = RankRequest(
        id="r", user="u", time_ms=1_768_000_000_000, items=(Candidate("i"), Candidate("j"))
    )
    table = LogTables(schema).rankings([served(request), served(request)], ["first", "second"])
    assert table["impression_id"].to_pylist() == ["first:0", "first:1", "second:0", "second:1"]


def test_columns_of_rankings_and_their_order(tmp_path: Path) -> None:
    """A public file: a renamed column needs a higher version of LOG_FORMAT."""
    log, request = served_log(tmp_path)
    log.log_ranking(served(request))
    log.close()
    (file,) = (tmp_path / "rankings").glob("*.parquet")
    columns = pq.read_table(file).to_pydict()
    assert [name for name in columns if name.startswith("served_")] == [
        "served_request",
        "served_ranking",
        "served_model",
        "served_version",
        "served_rank",
        "served_request_index",
        "served_score",
        "served_click",
        "served_status",
        "served_history_revision",
        "served_history_events",
        "served_history_cap",
        "served_history_ttl_ms",
        "served_history_ranges",
        "served_degraded",
        "served_user_features",
        "served_history_item_features",
        "served_item_features",
        "served_fields",
    ]
    assert columns["served_rank"] == columns["served_request_index"] == [0]
    assert columns["served_history_ranges"] == [[0, 0, 0]]
    assert LOG_FORMAT.version == 2


def test_files_appear_whole_by_size_and_by_time(tmp_path: Path) -> None:
    log, request = served_log(tmp_path, rows=10, seconds=0.2)
    for _ in range(25):
        log.log_ranking(served(request))
    done = threading.Event()
    for _ in range(200):
        files = sorted((tmp_path / "rankings").glob("*.parquet"))
        if sum(pq.read_metadata(file).num_rows for file in files) == 25:
            break
        done.wait(0.05)
    assert len(files) >= 3 and max(pq.read_metadata(file).num_rows for file in files) == 10
    assert not list(tmp_path.rglob(".*.part"))
    log.close()
    log.close()
    ids = [value for file in files for value in pq.read_table(file)["served_request"].to_pylist()]
    assert len(set(ids)) == 25, "rankings of one id stay apart"


def test_a_ranking_of_its_own_history_is_not_logged(tmp_path: Path) -> None:
    log, request = served_log(tmp_path)
    log.log_ranking(served(dataclasses.replace(request, history=HistoryOverride())))
    log.close()
    assert not list(tmp_path.rglob("*.parquet")) and log.dropped == 0


def test_serving_never_waits_for_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, request = served_log(tmp_path, queue_size=4, rows=1)
    hold = threading.Event()
    monkeypatch.setattr(log, "_write_files", lambda: hold.wait(20))
    for _ in range(50):
        log.log_ranking(served(request))
    assert log.dropped >= 40
    hold.set()
    log.close()


def test_what_waits_is_bounded_by_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, request = served_log(tmp_path, queue_rows=100, rows=1)
    hold = threading.Event()
    monkeypatch.setattr(log, "_write_files", lambda: hold.wait(20))
    body = [
        Event(id=f"e{n}", kind="interaction", time_ms=n, user="u", item="i", action="click")
        for n in range(30)
    ]
    log.log_ranking(served(request))
    until = time.monotonic() + 20
    while log._queue.qsize() and time.monotonic() < until:
        time.sleep(0.01)
    for n in range(10):
        log.log_events(body, n)
    assert log.dropped == 7, "three bodies of thirty wait"
    hold.set()
    log.close()
    assert log.dropped == 7
    log, _ = served_log(tmp_path / "other", queue_rows=1)
    log.log_events(body, 1)
    log.close()
    assert log.dropped == 0, "one that is larger than all that may wait is taken by an idle log"


def test_rows_are_made_when_nothing_is_in_work_while_the_queue_leaves_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(IdleMaintenance):
        waited = 0

        def wait_until_idle(self, seconds: float) -> bool:  # noqa: ARG002
            self.waited += 1
            return False

    idle, hold = Busy(), threading.Event()
    log, request = served_log(tmp_path, queue_rows=100, rows=1, idle=idle)
    write = log._write_files
    monkeypatch.setattr(log, "_write_files", lambda: (hold.wait(20), write()))
    for _ in range(60):
        log.log_ranking(served(request))
    hold.set()
    log.close()
    assert 1 + 24 <= idle.waited <= 1 + 26, "a quarter of the queue is time enough"
    assert (
        log.dropped == 0
        and sum(pq.read_metadata(f).num_rows for f in (tmp_path / "rankings").iterdir()) == 60
    )


def test_only_old_files_are_deleted_and_only_by_the_setting(tmp_path: Path) -> None:
    gone, _ = served_log(tmp_path / "feed-1-x", rows=1)
    body = [Event(id="e", kind="interaction", time_ms=1, user="u", item="i", action="click")]
    gone.log_events(body, 1)
    gone.close()
    (old,) = (tmp_path / "feed-1-x" / "events").glob("*.parquet")
    of_another = tmp_path / "feed-1-x" / "events" / "mine.parquet"
    shutil.copy(old, of_another)
    for path in (old, of_another):
        os.utime(path, (time.time() - 3 * 86_400,) * 2)
    for days, left in ((None, True), (4, True), (2, False)):
        logs = RankingLogSet(tmp_path, keep_days=days)
        log = logs.open("feed", "2", gone.schema)
        log.log_events(body, 1)
        logs.release(log)
        assert old.exists() is left and of_another.exists(), days
    assert len(list((log.folder / "events").glob("*.parquet"))) == 3, "the new ones stay"


def test_a_failed_write_is_reported_and_serving_continues(tmp_path: Path) -> None:
    log, request = served_log(tmp_path / "served", rows=1)
    shutil.rmtree(tmp_path / "served" / "rankings")
    log.log_ranking(served(request))
    log.close()
    assert log.dropped == 1 and log.problem is not None and "rankings" in log.problem


def test_a_disk_that_is_nearly_full_is_left_to_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, request = served_log(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        "hemix.serving.ranking_log.log.shutil.disk_usage",
        lambda _: usage._replace(free=255 * 2**20),
    )
    log.log_ranking(served(request))
    log.close()
    assert (
        log.dropped == 1
        and log.problem is not None
        and "the last 256 MiB of the disk are left to the store" in log.problem
    )
    assert not list(tmp_path.rglob("*.parquet*"))


def test_a_value_outside_its_columns_type_costs_its_own_chunk_alone(tmp_path: Path) -> None:
    log, request = served_log(tmp_path, seconds=0.1)
    log.log_ranking(served(dataclasses.replace(request, time_ms=2**70)))
    until = time.monotonic() + 20
    while log.dropped == 0 and time.monotonic() < until:
        time.sleep(0.02)
    log.log_ranking(served(request))
    log.close()
    assert log.dropped == 1
    assert [
        pq.read_metadata(file).num_rows for file in (tmp_path / "rankings").glob("*.parquet")
    ] == [1]


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    (tmp_path / "rankings").mkdir(parents=True)
    (tmp_path / "rankings" / ".x.parquet.part").write_bytes(b"PAR1")
    log, _ = served_log(tmp_path)
    log.close()
    assert not list(tmp_path.rglob(".*.part"))
