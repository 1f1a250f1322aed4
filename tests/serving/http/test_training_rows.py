"""A real server keeps what it served; its log and its store give the same scores again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hemix import Client
from hemix.data.dataset import Dataset
from hemix.runs import Run
from hemix.serving.engine import Engine
from hemix.serving.ranking_log.replay import replay
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Event
from tests.cli.run import Command, refused
from tests.serving.http.test_server_process import as_json, serving
from tests.serving.parity import TOLERANCE, LoggedRequest, live_events, logged_requests


def rank_all(
    client: Client, requests: Sequence[LoggedRequest], events: Sequence[Event]
) -> tuple[list[list[tuple[str, float | None]]], int]:
    """Send every request after the events before it.

    Returns the ids and scores of every ranking, and how many events were sent.
    """
    scores, done = [], 0
    for request in (one.request for one in requests):
        until = next((i for i, e in enumerate(events) if e.time_ms >= request.time_ms), len(events))
        client.events([as_json(event) for event in events[done:until]])
        done = until
        ranking = client.rank(
            request.user,
            [{"id": c.id, "fields": dict(c.fields)} for c in request.items],
            id=request.id,
            timestamp=request.time_ms,
            context=dict(request.context),
        )
        scores.append([(item["id"], item["score"]) for item in ranking["items"]])
    return scores, done


def test_rankings_of_a_server_that_has_ended_are_replayed(
    hemix: Command, rich_logs: Path, rich_data: Path, rich_run: Path, tmp_path: Path
) -> None:
    run, url = Run.load(rich_run), f"sqlite:///{tmp_path / 'events.db'}"
    requests = logged_requests(rich_logs, Dataset(rich_data))[::4]
    events = live_events(rich_logs, run.schema)
    with serving(rich_run, tmp_path, "--store", url) as server:
        scores, done = rank_all(Client(server.url), requests, events)

    (folder,) = (tmp_path / "training-rows").iterdir()
    assert folder.name == f"{rich_run.name}-1-{run.schema.columns_fingerprint()}"
    assert sum(pq.read_metadata(f).num_rows for f in (folder / "events").glob("*.parquet")) == done
    store = open_store(url, StoreLimits(ttl_ms=None))
    back = list(replay(folder, Engine(run, store, name=rich_run.name, version="1"), store))
    assert [one.id for one in back] == [one.request.id for one in requests]
    assert max(one.difference for one in back) <= TOLERANCE
    for one, expected in zip(back, scores, strict=True):
        assert [item.id for item in one.ranking.items] == [item for item, _ in expected]
        for item, (_, score) in zip(one.ranking.items, expected, strict=True):
            assert score is None or item.score == pytest.approx(score, abs=TOLERANCE)
    store.close()

    code, out, err = hemix("log", "replay", folder, "--run", rich_run, "--store", url, "--json")
    assert code == 0, err
    again = json.loads(out)
    assert again["rankings"] == len(requests) and again["max_abs_difference"] <= TOLERANCE
    assert again["with_scores_on_one_side_only"] == 0
    export = ["log", "export", folder, "--run", rich_run, "--out", tmp_path / "rows", "--json"]
    code, out, err = hemix(*export)
    assert code == 0, err
    rows = json.loads(out)
    assert rows["rows"] == again["candidates"] and rows["events"] == done and rows["shown"] == 0
    line = refused(hemix("log", "replay", tmp_path, "--run", rich_run, "--store", url))
    assert line.startswith(f"{tmp_path}: ")
