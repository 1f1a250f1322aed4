"""The load generator sends what its plan says, and counts what comes back."""

from __future__ import annotations

import io
import json
import socket
import sys
from dataclasses import asdict
from typing import Any

import pytest

from hemix.lab.benchmarks import load_generator
from hemix.lab.benchmarks.load_generator import LoadPlan, RequestStream, generate_load
from tests.lab.benchmarks.recording_server import RecordingServer, recording_server

RANKED = (200, {"degraded": []}, "score;dur=1.5, store;dur=0.25")
TAKEN = (200, {"accepted": 2}, "")
ITEMS, USERS, ACTIONS = ("i1", "i2", "i3"), ("u1", "u2", "u3", "u4"), ("click", "order")


def stream(kind: Any = "rank", *, size: int = 3, fresh: bool = False) -> RequestStream:
    return RequestStream(kind=kind, per_second=100, size=size, users=USERS, fresh=fresh)


def plan(server: RecordingServer, *streams: RequestStream, seed: int = 0) -> LoadPlan:
    """100 requests a second and stream: 5 to warm up and 10 that count."""
    return LoadPlan(
        port=server.port,
        seconds=0.1,
        warm_up_seconds=0.05,
        streams=streams,
        items=ITEMS,
        actions=ACTIONS,
        context={"city": "x"},
        seed=seed,
    )


def test_requests_after_the_warm_up_count() -> None:
    with recording_server({"/v1/rank": RANKED, "/v1/events": TAKEN}) as server:
        rank, events = generate_load(plan(server, stream(), stream("events", size=2)))
    assert (rank["stream"], events["stream"]) == ("rank 3", "events 2")
    assert (rank["requests"], events["requests"]) == (10, 10)
    assert (rank["asked_per_second"], rank["answered_per_second"]) == (100, 100)
    assert (rank["errors"], rank["degraded"], events["accepted_events"]) == ({}, 0, 20)
    assert (rank["score_ms"], rank["store_ms"]) == ([1.5] * 3, [0.25] * 3)
    low, middle, high = rank["latency_ms"]
    assert 0 < low <= middle <= high
    rankings, bodies = server.bodies["/v1/rank"], server.bodies["/v1/events"]
    assert len(rankings) == len(bodies) == 15
    for ranking in rankings:
        assert ranking["user"] in USERS and ranking["context"] == {"city": "x"}
        assert [set(item) for item in ranking["items"]] == [{"id"}] * 3
        assert {item["id"] for item in ranking["items"]} <= set(ITEMS)
    sent = [event for body in bodies for event in body]
    assert {len(body) for body in bodies} == {2}
    assert len({event["id"] for event in sent}) == len(sent)
    assert {event["item"] for event in sent} <= set(ITEMS)
    assert {event["type"] for event in sent} == set(ACTIONS)


def test_a_fresh_ranking_follows_an_event_of_its_user() -> None:
    with recording_server({"/v1/rank": RANKED, "/v1/events": TAKEN}) as server:
        (rank,) = generate_load(plan(server, stream(fresh=True)))
    assert (rank["requests"], rank["accepted_events"]) == (10, 0)
    users = [[body["user"] for body in server.bodies["/v1/rank"]]]
    users += [[body[0]["user"] for body in server.bodies["/v1/events"]]]
    assert sorted(users[0]) == sorted(users[1])
    assert {len(body) for body in server.bodies["/v1/events"]} == {1}


def test_a_seed_names_the_requests() -> None:
    sent = []
    for seed in (1, 1, 2):
        with recording_server({"/v1/rank": RANKED, "/v1/events": TAKEN}) as server:
            generate_load(plan(server, stream(), seed=seed))
        sent.append(sorted(map(json.dumps, server.bodies["/v1/rank"])))
    assert sent[0] == sent[1]
    assert sent[0] != sent[2]


@pytest.mark.parametrize(
    ("answer", "errors", "degraded"),
    [
        ((503, {"error": {}}, ""), {"503": 10}, 0),
        ((200, b"no JSON", ""), {"JSONDecodeError": 10}, 0),
        ((200, {"degraded": ["history"]}, ""), {}, 10),
    ],
)
def test_bad_answers_are_counted(
    answer: tuple[int, Any, str], errors: dict[str, int], degraded: int
) -> None:
    with recording_server({"/v1/rank": answer}) as server:
        (rank,) = generate_load(plan(server, stream()))
    assert (rank["errors"], rank["degraded"], rank["requests"]) == (errors, degraded, 10)
    assert rank["answered_per_second"] == (0 if errors else 100)


def test_a_server_that_is_gone_is_an_error_of_every_request() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = RecordingServer(closed.getsockname()[1], {})
        (rank,) = generate_load(plan(gone, stream()))
    assert rank["errors"] == {"ConnectionRefusedError": 10}


def test_the_process_reads_a_plan_and_prints_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with recording_server({"/v1/rank": RANKED}) as server:
        content = asdict(plan(server, stream()))
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(content)))
        load_generator._main()
    (rank,) = json.loads(capsys.readouterr().out)
    assert (rank["stream"], rank["requests"]) == ("rank 3", 10)
