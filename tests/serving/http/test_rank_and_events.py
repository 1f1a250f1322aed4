"""Shapes of POST /v1/rank and /v1/events as docs/serving.md gives them."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from pathlib import Path

import pytest

from hemix.serving.http.events import read_events
from hemix.serving.http.ranking import rank, read_request
from hemix.serving.http.service import Limits
from hemix.serving.models import Models
from hemix.serving.store import open_store
from hemix.serving.types import Ranking, RankRequest
from tests.serving.http.fake import FakeRanker
from tests.serving.http.process import Server


def event(**fields: object) -> dict[str, object]:
    return {"event": "interaction", "id": uuid.uuid4().hex, "user": "u7", "item": "i9", "type": "click", **fields}


def test_a_ranking(server: Server) -> None:
    answer = server.rank(["i2", "i5", "x"], id="r1")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert {k: v for k, v in answer.json.items() if k not in ("items", "took_ms")} == {
        "id": "r1",
        "model": "fake",
        "version": "1",
        "degraded": [],
        "user_status": "OK",
    }
    assert answer.json["items"] == [
        {"id": "i5", "score": 5.0, "outputs": {"click": 0.5}, "status": "OK"},
        {"id": "i2", "score": 2.0, "outputs": {"click": 0.5}, "status": "OK"},
        {"id": "x", "score": 0.0, "outputs": {"click": 0.5}, "status": "UNKNOWN_ITEM"},
    ]
    assert "score;dur=" in answer.headers["server-timing"]


def test_an_event_is_in_the_next_because(server: Server) -> None:
    user = uuid.uuid4().hex
    taken = server.ask("POST", "/v1/events", [event(user=user, item="never seen", type="odd")]).json
    assert (taken["accepted"], taken["duplicate"], taken["rejected"]) == (1, 0, [])
    ranking = server.rank(["i1"], user=user, explain=True).json
    assert ranking["items"][0]["because"] == [{"item": "never seen", "weight": 0.5, "age_seconds": 1.0, "type": "odd"}]
    history = server.ask("GET", f"/v1/users/{user}/history").json
    assert [(e["item"], e["part"]) for e in history["events"]] == [("never seen", "realtime")]


def test_events_are_taken_once_and_wrong_ones_do_not_spoil_the_others(server: Server) -> None:
    now = int(time.time() * 1000)
    first = event()
    body = [
        first,
        event(timestamp=now + 3_600_000),
        event(item=None),
        event(fields={"price": 3}),
        {"event": "item", "id": uuid.uuid4().hex, "item": "i1", "fields": {"price": "dear"}},
        {"event": "user", "id": uuid.uuid4().hex, "user": "u1", "fields": {"likes": ["a", "b"], "lat": 31.0}},
        {"event": "user", "id": uuid.uuid4().hex, "user": "u1", "fields": {"lat": 91.0}},
        first,
        event(id=7),
        event(timestamp=1_770_000_000),
        event(event="sale"),
        {"event": "item", "id": uuid.uuid4().hex, "fields": {"price": 3}},
        event(fields={"tab": {"nested": 1}}),
    ]
    answer = server.ask("POST", "/v1/events", body)
    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["duplicate"]) == (3, 1)
    assert [(r["index"], r["code"], r["field"]) for r in answer.json["rejected"]] == [
        (1, "future_timestamp", "timestamp"),
        (2, "invalid", "item"),
        (4, "invalid", "fields.price"),
        (6, "invalid", "fields.lat"),
        (8, "invalid", "id"),
        (9, "invalid", "timestamp"),
        (10, "invalid", "event"),
        (11, "invalid", "item"),
        (12, "invalid", "fields.tab"),
    ]


def test_an_event_of_too_many_or_too_large_fields_is_left_out_alone(server: Server) -> None:
    many = {f"c{n}": n for n in range(257)}
    large = {f"c{n}": "x" * 4000 for n in range(17)}
    fits = {f"c{n}": n for n in range(256)}
    for body in ([event(fields=many), event(fields=fits)], [event(fields=large), event(fields=fits)]):
        answer = server.ask("POST", "/v1/events", body).json
        assert answer["accepted"] == 1
        assert [(r["index"], r["code"], r["field"]) for r in answer["rejected"]] == [(0, "invalid", "fields")]


@pytest.mark.parametrize("ahead_ms", [None, 0, 2_000, 50_000])
def test_whatever_the_clock_of_an_event_the_next_ranking_is_after_it(server: Server, ahead_ms: int | None) -> None:
    user = uuid.uuid4().hex
    for n in range(30):
        told = event(user=user, item=f"i{n}")
        if ahead_ms is not None:
            told["timestamp"] = int(time.time() * 1000) + ahead_ms
        assert server.ask("POST", "/v1/events", [told]).json["accepted"] == 1
        because = server.rank(["i1"], user=user, explain=True).json["items"][0]["because"]
        assert [cause["item"] for cause in because][-1:] == [f"i{n}"]
        seen = server.ask("GET", f"/v1/users/{user}/history").json
        assert seen["events"][-1]["item"] == f"i{n}" and seen["events"][-1]["timestamp"] < seen["now"]


def test_an_event_and_a_ranking_of_one_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RankRequest] = []

    class Asked(FakeRanker):
        def _rank(self, request: RankRequest) -> Ranking:
            asked.append(request)
            return super()._rank(request)

    store = open_store("memory://")
    models = Models(lambda folder, name, version: Asked(folder, name, version, store))
    models.put("fake", "1", Path(__file__).parent / "nowhere")
    monkeypatch.setattr(time, "time", lambda: 1_770_000_000.0)
    [told] = read_events(json.dumps(event()).encode(), models.checks(), Limits()).events
    rank(read_request(b'{"user": "u7", "items": [{"id": "i1"}]}', Limits()), models, Limits(), "r1")
    assert told.time_ms < asked[0].time_ms


def test_ids_with_slashes(server: Server) -> None:
    server.ask("POST", "/v1/events", [event(user="a/b//c")])
    found = server.ask("GET", "/v1/users/a%2Fb%2F%2Fc/history")
    assert (found.status, found.json["user"], len(found.json["events"])) == (200, "a/b//c", 1)


def test_ndjson_and_gzip_and_a_single_object(server: Server) -> None:
    lines = b"\n".join(json.dumps(event()).encode() for _ in range(3)) + b"\n\n"
    assert server.ask("POST", "/v1/events", lines, {"content-type": "application/x-ndjson"}).json["accepted"] == 3
    assert server.ask("POST", "/v1/events", json.dumps(event(), indent=1).encode()).json["accepted"] == 1
    packed = gzip.compress(json.dumps([event()]).encode()) + gzip.compress(b"\n")
    assert server.ask("POST", "/v1/events", packed, {"content-encoding": "gzip"}).json["accepted"] == 1
    assert server.ask("POST", "/v1/events", []).json["accepted"] == 0


def test_request_ids_and_methods_and_paths(server: Server) -> None:
    assert server.ask("GET", "/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(server.ask("GET", "/healthz", headers={"x-request-id": "no spaces"}).headers["x-request-id"]) == 32
    assert server.ask("GET", "/v1/nothing").error["code"] == "not_found"
    wrong = server.ask("GET", "/v1/rank")
    assert (wrong.status, wrong.error["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")


def test_models_health_and_metrics(server: Server) -> None:
    [model] = server.ask("GET", "/v1/models").json["models"]
    assert (model["name"], model["version"], model["state"], len(model["schema"])) == ("fake", "1", "ready", 16)
    assert server.ask("GET", "/healthz").status == 200
    ready = server.ask("GET", "/readyz").json
    assert (ready["ready"], ready["checks"]["store"]) == (True, True)
    before = server.metric('hemix_unknown_ids_total{kind="item"}')
    server.rank(["unheard of"])
    assert server.metric('hemix_unknown_ids_total{kind="item"}') == before + 1
    server.ask("POST", "/v1/events", [event()])
    assert 0 <= server.metric("hemix_newest_event_age_seconds") < 60
    assert server.metric('hemix_stage_seconds_count{stage="score"}') > 0
    assert server.metric("process_resident_memory_bytes") > 2**24


def test_openapi_has_the_columns_of_what_serves(server: Server) -> None:
    schemas = server.ask("GET", "/openapi.json").json["components"]["schemas"]
    columns = {
        message: schemas[message]["properties"][field]["properties"]
        for message, field in (("RankMessage", "context"), ("ItemMessage", "fields"), ("EventMessage", "fields"))
    }
    assert columns["RankMessage"].keys() == {"sleep", "fail"}, "the hour is read from no column"
    assert columns["ItemMessage"].keys() == {"item_id", "price", "picture", "match"}
    assert columns["EventMessage"].keys() == {"action", "tab", "user_id", "likes", "lat", "lon", "item_id", "price", "picture"}
    assert columns["EventMessage"]["lat"] == {"type": ["number", "null"], "minimum": -90, "maximum": 90}
    picture = columns["ItemMessage"]["picture"]
    assert (picture["minItems"], picture["maxItems"], picture["items"]) == (2, 2, {"type": "number"})
    assert schemas["EventMessage"]["properties"]["fields"]["additionalProperties"], "others are left aside"


def test_the_pages_load_nothing_from_elsewhere(server: Server) -> None:
    for path in ("/", "/docs"):
        page = server.ask("GET", path)
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        assert b"http://" not in page.body.replace(b"http://www.w3.org", b"") and b"https://" not in page.body
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert server.ask("GET", "/openapi.json").json["openapi"] == "3.1.0"


def test_requests_are_logged_as_json(server: Server) -> None:
    server.ask("POST", "/v1/rank", {"user": "u1", "items": []}, {"x-request-id": "logged-1"})
    server.until(lambda: any(line.get("request_id") == "logged-1" for line in server.logs()))
    [line] = [line for line in server.logs() if line.get("request_id") == "logged-1"]
    assert (line["status"], line["path"], line["code"], line["field"]) == (422, "/v1/rank", "invalid", "items")
