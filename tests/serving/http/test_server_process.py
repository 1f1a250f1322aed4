"""`hemix serve` on a real run, from the command line, through the client: parity, kills, a store
that goes away, the end.
"""

from __future__ import annotations

import hashlib
import math
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hemix import Client
from hemix.cli import main
from hemix.data.dataset import Dataset
from hemix.errors import ServerError, UsageError
from hemix.runs import Run
from hemix.serving.types import Event
from tests.refusals import raises
from tests.serving.http.process import Server, hemix_server
from tests.serving.parity import TOLERANCE, expected_scores, live_events, logged_requests
from tests.serving.redis_server import RedisServer


def serving(run: Path, folder: Path, *args: object) -> AbstractContextManager[Server]:
    log = ["--log", folder / "training-rows"]
    return hemix_server([run, "--history-ttl-days", "0", *log, *args], folder / "log")


@pytest.fixture(scope="module")
def served(
    rich_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Client]]:
    folder = tmp_path_factory.mktemp("served")
    with serving(rich_run, folder, "--store", "memory://") as server:
        yield server, Client(server.url)


def as_json(event: Event) -> dict[str, object]:
    return {
        "event": event.kind,
        "id": event.id,
        "timestamp": event.time_ms,
        "user": event.user,
        "item": event.item,
        "type": event.action,
        "fields": dict(event.fields),
    }


def test_scores_over_http_are_those_of_training(
    served, rich_logs: Path, rich_data: Path, rich_run: Path
) -> None:  # type: ignore[no-untyped-def]
    _, client = served
    data, run = Dataset(rich_data), Run.load(rich_run)
    expected = expected_scores(run, data)
    events = live_events(rich_logs, run.schema)
    done = checked = 0
    for logged in logged_requests(rich_logs, data):
        request = logged.request
        until = next(
            (n for n in range(done, len(events)) if events[n].time_ms >= request.time_ms),
            len(events),
        )
        if until > done:
            assert (
                client.events([as_json(event) for event in events[done:until]])["accepted"]
                == until - done
            )
        done = until
        items = [{"id": item.id, "fields": dict(item.fields)} for item in request.items]
        answer = client.rank(
            request.user, items, context=request.context, timestamp=request.time_ms, id=request.id
        )
        rows = {
            candidate.id: expected[row]
            for candidate, row in zip(request.items, logged.log_rows, strict=True)
        }
        if len(rows) < len(request.items):
            continue  # an item twice with other fields
        for item in answer["items"]:
            theirs = rows[item["id"]]
            for name, value in {**item["outputs"], "score": item["score"]}.items():
                missing = value is None and math.isnan(theirs[name])
                assert missing or abs(value - theirs[name]) <= TOLERANCE
                checked += 1
    assert checked > 50


def test_an_event_counts_at_once(served) -> None:  # type: ignore[no-untyped-def]
    _, client = served
    before = client.rank("u1", ["i1", "i2"], explain=True)
    client.events(
        [{"event": "interaction", "id": "fresh", "user": "u1", "item": "i3", "type": "a1"}]
    )
    after = client.rank("u1", ["i1", "i2"], explain=True)
    assert all("i3" in [cause["item"] for cause in item["because"]] for item in after["items"])
    assert {i["id"]: i["outputs"] for i in before["items"]} != {
        i["id"]: i["outputs"] for i in after["items"]
    }


def test_the_served_model_is_reported(  # type: ignore[no-untyped-def]
    served, rich_run: Path
) -> None:
    server, client = served
    [model] = client.models()
    assert model["sha256"] == hashlib.sha256((rich_run / "run.json").read_bytes()).hexdigest()
    assert model["outputs"] == list(Run.load(rich_run).schema.outputs) and isinstance(
        model["test"], dict
    )
    before = {
        kind: server.metric(f'hemix_user_states_total{{cache="{kind}"}}')
        for kind in ("hit", "extended", "miss")
    }
    client.rank("u-states", ["i1"])
    client.events(
        [{"event": "interaction", "id": "s1", "user": "u-states", "item": "i3", "type": "a1"}]
    )
    client.rank("u-states", ["i1"])
    client.rank("u-states", ["i1"])
    after = {
        kind: server.metric(f'hemix_user_states_total{{cache="{kind}"}}') - n
        for kind, n in before.items()
    }
    assert after == {"hit": 1, "extended": 0, "miss": 2}, (
        "there is nothing to extend before the first event"
    )


def test_the_client_tells_what_is_wrong(served) -> None:  # type: ignore[no-untyped-def]
    server, client = served
    assert client.ready()
    assert client.models()[0]["state"] == "ready"
    with raises(
        ServerError, "/v1/rank", 422, code="invalid", field="items[1].fields.price"
    ) as caught:
        client.rank("u1", ["i1", {"id": "i2", "fields": {"price": "dear"}}])
    assert (caught.value.status, caught.value.field) == (422, "items[1].fields.price")
    with raises(ServerError, 404, code="unknown_model", field="model"):
        client.rank("u1", ["i1"], model="other")
    with raises(ServerError, 401, code="no_admin"):
        client.load("run", "2")
    with raises(UsageError, "/v1/rank"):
        client.rank("u1", ["i1"], context={"price": math.nan})
    with raises(ServerError, 404, code="not_found") as caught:
        client.load(
            "a/b?c", "2"
        )  # were it not quoted, this would be the path of another route, and a query
    assert "a%2Fb%3Fc" in str(caught.value)
    with raises(UsageError, "localhost:80", field="url"):
        Client("localhost:80")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Client(f"http://127.0.0.1:{free.getsockname()[1]}", timeout_seconds=2)
        assert not nobody.ready()
        with raises(ServerError, nobody.url, code="no_answer"):
            nobody.rank("u1", ["i1"])
    assert server.process.poll() is None


def test_values_of_mixed_kinds_are_one_value(served) -> None:  # type: ignore[no-untyped-def]
    _, client = served
    items = [
        {"id": f"i{n}", "fields": {"category": value}}
        for n, value in enumerate([3, "3", 3.0, None, True])
    ]
    assert len(client.rank("u1", items, context={"city": 5})["items"]) == 5
    answer = client.rank("nobody \x00 ünïcödé", ["\u2028", "i1"])
    assert {item["id"]: item["status"] for item in answer["items"]} == {
        "\u2028": "UNKNOWN_ITEM",
        "i1": "OK",
    }


def test_what_was_served_is_written_at_the_end(rich_run: Path, tmp_path: Path) -> None:
    with serving(rich_run, tmp_path, "--store", "memory://") as server:
        Client(server.url).events(
            [{"event": "interaction", "id": "e1", "user": "u1", "item": "i3", "type": "a1"}]
        )
        assert server.rank(["i1", "i2"]).status == 200
        assert server.metric("hemix_log_left_out") == 0
        assert server.stop() == 0
    [log] = (tmp_path / "training-rows").iterdir()
    assert log.name.startswith("run-1-")
    assert pq.read_table(log / "rankings").num_rows == 2
    assert pq.read_table(log / "events").num_rows == 1


def test_what_strict_refuses_is_no_training_row(rich_run: Path, tmp_path: Path) -> None:
    with serving(rich_run, tmp_path, "--store", "memory://", "--strict") as server:
        client = Client(server.url)
        with raises(ServerError, 422, code="unknown_item", field="items[1].id"):
            client.rank("u1", ["i1", "strange"])
        client.events([{"event": "item", "id": "e1", "item": "strange", "fields": {"price": 1.0}}])
        assert client.rank("u1", ["i1", "strange"])["items"][0]["status"] == "OK"
        assert server.stop() == 0
    [log] = (tmp_path / "training-rows").iterdir()
    assert pq.read_table(log / "rankings").num_rows == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nowhere"], "nowhere: no such run folder"),
        (
            ["RUN", "--host", "0.0.0.0"],
            "--host 0.0.0.0: other machines can reach it: give a --token-file",
        ),
        (["RUN", "--store", "mongodb://x"], "expected memory://"),
        (["RUN", "--token-file", "nowhere"], "--token-file nowhere: cannot be read"),
        (["RUN", "--port", "TAKEN"], "cannot listen there: Address already in use"),
        (["RUN", "--device", "abacus"], "abacus"),
        (["RUN", "--registry", "nowhere"], "--registry nowhere: no such folder"),
    ],
)
def test_what_cannot_be_served_ends_in_one_line(
    rich_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    says: str,
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        words = [
            {"RUN": str(rich_run), "TAKEN": str(listener.getsockname()[1])}.get(word, word)
            for word in args
        ]
        store = [] if "--store" in words else ["--store", "memory://"]
        port = [] if "--port" in words else ["--port", "0"]
        monkeypatch.setattr("sys.argv", ["hemix", "serve", *words, *store, *port, "--no-log"])
        with pytest.raises(SystemExit) as end:
            main()
    printed = capsys.readouterr()
    assert (end.value.code, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1 and says in printed.err, printed.err


def interactions(ids: list[str]) -> list[dict[str, Any]]:
    """Events of ids ROUND-THREAD-BODY-NUMBER; every thread has a user."""
    return [
        {
            "event": "interaction",
            "id": i,
            "user": f"u{i.split('-')[1]}",
            "item": "i1",
            "type": "a1",
        }
        for i in ids
    ]


def send_until_killed(url: str, round_: int, thread: int, end: float, accepted: list[str]) -> None:
    """Send events until the server is gone, or until ``end`` s of the monotonic clock."""
    client = Client(url)
    for body in range(10_000):
        ids = [f"{round_}-{thread}-{body}-{n}" for n in range(5)]
        try:
            response = client.events(interactions(ids))
        except ServerError:
            return  # killed: these may or may not be there
        assert response["accepted"] == 5
        accepted.extend(ids)
        if time.monotonic() > end:
            return


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_no_accepted_event_is_lost_by_kill_9(rich_run: Path, tmp_path: Path, kind: str) -> None:
    redis = RedisServer(tmp_path / "redis").start() if kind == "redis" else None
    store = redis.url if redis is not None else f"sqlite:///{tmp_path / 'events.db'}"
    accepted: list[str] = []
    try:
        for round_ in range(4):
            with serving(rich_run, tmp_path, "--store", store) as server:
                end = time.monotonic() + random.Random(round_).uniform(0.3, 1.2)
                threads = [
                    threading.Thread(
                        target=send_until_killed, args=(server.url, round_, n, end + 5, accepted)
                    )
                    for n in range(3)
                ]
                for thread in threads:
                    thread.start()
                time.sleep(max(end - time.monotonic(), 0))
                server.process.kill()
                if redis is not None:
                    redis.kill()
                for thread in threads:
                    thread.join()
            if redis is not None:
                redis.start()
        assert len(accepted) > 20
        with serving(rich_run, tmp_path, "--store", store) as server:
            client = Client(server.url)
            for first in range(0, len(accepted), 1000):
                response = client.events(interactions(accepted[first : first + 1000]))
                assert (response["accepted"], response["rejected"]) == (0, []), (
                    "every accepted event is there still"
                )
    finally:
        if redis is not None:
            redis.kill()


@pytest.mark.slow
def test_a_store_that_goes_and_comes_back(rich_run: Path, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis").start()
    try:
        with serving(rich_run, tmp_path, "--store", redis.url) as server:
            client = Client(server.url)
            client.events(
                [{"event": "interaction", "id": "e1", "user": "u1", "item": "i3", "type": "a1"}]
            )
            assert client.rank("u1", ["i1"])["degraded"] == []
            redis.kill()
            began = time.monotonic()
            answer = server.rank(["i1"])
            assert (answer.status, answer.json["degraded"]) == (
                200,
                ["features", "history"],
            ) or "history" in answer.json["degraded"]
            assert time.monotonic() - began < 5, "waited for the store within bounds"
            server.until(lambda: server.ask("GET", "/readyz").status == 503)
            assert server.ask("GET", "/healthz").status == 200
            assert (
                server.ask(
                    "POST", "/v1/events", [{"event": "user", "id": "x", "user": "u", "fields": {}}]
                ).status
                == 503
            )
            redis.start()
            server.until(lambda: server.ask("GET", "/readyz").status == 200)
            server.until(lambda: server.rank(["i1"]).json["degraded"] == [])
            because = client.rank("u1", ["i1"], explain=True)["items"][0]["because"]
            assert "i3" in [cause["item"] for cause in because]
            assert server.stop() == 0
    finally:
        redis.kill()


@pytest.mark.slow
def test_what_one_server_took_the_other_ranks_by(rich_run: Path, tmp_path: Path) -> None:
    """Two servers behind one Redis, each with states of its own."""
    for name in "ab":
        (tmp_path / name).mkdir()
    redis = RedisServer(tmp_path / "redis").start()
    try:
        with (
            serving(rich_run, tmp_path / "a", "--store", redis.url) as a,
            serving(rich_run, tmp_path / "b", "--store", redis.url) as b,
        ):
            clients = Client(a.url), Client(b.url)
            for n, (teller, ranker) in enumerate((clients, clients[::-1]) * 3):
                sent = [
                    {
                        "event": "interaction",
                        "id": f"e{n}",
                        "user": "u1",
                        "item": f"i{n}",
                        "type": "a1",
                    }
                ]
                assert teller.events(sent)["accepted"] == 1
                assert (
                    teller.events(sent)["duplicate"] == 1 and ranker.events(sent)["duplicate"] == 1
                )
                seen = [
                    one.rank("u1", ["i7", "i8"], explain=True)["items"] for one in (ranker, teller)
                ]
                assert all(
                    f"i{n}" in [cause["item"] for cause in item["because"]]
                    for items in seen
                    for item in items
                )
                theirs, ours = ({item["id"]: item["score"] for item in items} for items in seen)
                assert ours == pytest.approx(theirs, abs=TOLERANCE)
    finally:
        redis.kill()


@pytest.mark.slow
def test_a_store_that_stands_still_and_goes_on(rich_run: Path, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis").start()
    try:
        with serving(rich_run, tmp_path, "--store", redis.url) as server:
            client = Client(server.url)
            client.events(
                [{"event": "interaction", "id": "e1", "user": "u1", "item": "i3", "type": "a1"}]
            )
            server.until(lambda: client.rank("u1", ["i1"])["degraded"] == [])
            redis.send(signal.SIGSTOP)
            for _ in range(10):
                answer = server.ask(
                    "POST", "/v1/rank", {"user": "u1", "items": [{"id": "i1"}]}, timeout=5
                )
                assert (answer.status, answer.json["degraded"]) == (200, ["history", "features"])
            server.until(lambda: server.ask("GET", "/readyz").status == 503)
            assert server.ask("GET", "/healthz").status == 200
            refused = server.ask(
                "POST", "/v1/events", [{"event": "user", "id": "x", "user": "u", "fields": {}}]
            )
            assert refused.status in (503, 504) and refused.headers["retry-after"] == "1"
            redis.send(signal.SIGCONT)
            server.until(lambda: server.ask("GET", "/readyz").status == 200)
            server.until(lambda: server.rank(["i1"]).json["degraded"] == [])
            because = client.rank("u1", ["i1"], explain=True)["items"][0]["because"]
            assert "i3" in [cause["item"] for cause in because]
            assert server.stop() == 0
    finally:
        redis.send(signal.SIGCONT)
        redis.kill()
