"""Shapes of POST /v1/rank and /v1/events as docs/reference/serving-api.md gives them."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from pathlib import Path

import pytest

from hemix.schema import Schema
from hemix.serving.field_validation import FieldValidator
from hemix.serving.http.events import read_events
from hemix.serving.http.messages import ApiError
from hemix.serving.http.rank import rank, read_request
from hemix.serving.http.service import RequestLimits
from hemix.serving.loaded_models import LoadedModels
from hemix.serving.stores import open_store
from hemix.serving.types import Ranking, RankRequest
from tests.refusals import raises
from tests.serving.http.fake import FakeEngine
from tests.serving.http.process import Server, fake_server


def event(**fields: object) -> dict[str, object]:
    return {
        "event": "interaction",
        "id": uuid.uuid4().hex,
        "user": "u7",
        "item": "i9",
        "type": "click",
        **fields,
    }


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
    response = server.ask(
        "POST", "/v1/events", [event(user=user, item="never seen", type="odd")]
    ).json
    assert (response["accepted"], response["duplicate"], response["rejected"]) == (1, 0, [])
    ranking = server.rank(["i1"], user=user, explain=True).json
    assert ranking["items"][0]["because"] == [
        {"item": "never seen", "weight": 0.5, "age_seconds": 1.0, "type": "odd"}
    ]
    history = server.ask("GET", f"/v1/users/{user}/history").json
    assert [(e["item"], e["part"]) for e in history["events"]] == [("never seen", "realtime")]


def test_duplicates_count_once_and_invalid_events_leave_the_others(server: Server) -> None:
    now = int(time.time() * 1000)
    first = event()
    body = [
        first,
        event(timestamp=now + 3_600_000),
        event(event="impression", item=None),
        event(fields={"price": 3}),
        {"event": "item", "id": uuid.uuid4().hex, "item": "i1", "fields": {"price": "dear"}},
        {
            "event": "user",
            "id": uuid.uuid4().hex,
            "user": "u1",
            "fields": {"likes": ["a", "b"], "lat": 31.0},
        },
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
    for body in (
        [event(fields=many), event(fields=fits)],
        [event(fields=large), event(fields=fits)],
    ):
        answer = server.ask("POST", "/v1/events", body).json
        assert answer["accepted"] == 1
        assert [(r["index"], r["code"], r["field"]) for r in answer["rejected"]] == [
            (0, "invalid", "fields")
        ]


@pytest.mark.parametrize("ahead_ms", [None, 0, 2_000, 50_000])
def test_whatever_the_clock_of_an_event_the_next_ranking_is_after_it(
    server: Server, ahead_ms: int | None
) -> None:
    user = uuid.uuid4().hex
    for n in range(30):
        body = event(user=user, item=f"i{n}")
        if ahead_ms is not None:
            body["timestamp"] = int(time.time() * 1000) + ahead_ms
        assert server.ask("POST", "/v1/events", [body]).json["accepted"] == 1
        because = server.rank(["i1"], user=user, explain=True).json["items"][0]["because"]
        assert [cause["item"] for cause in because][-1:] == [f"i{n}"]
        seen = server.ask("GET", f"/v1/users/{user}/history").json
        assert (
            seen["events"][-1]["item"] == f"i{n}" and seen["events"][-1]["timestamp"] < seen["now"]
        )


def test_an_event_and_a_ranking_of_one_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[RankRequest] = []

    class RecordingEngine(FakeEngine):
        def _rank(self, request: RankRequest) -> Ranking:
            requests.append(request)
            return super()._rank(request)

    store = open_store("memory://")
    models = LoadedModels(
        lambda folder, name, version: RecordingEngine(folder, name, version, store)
    )
    models.put("fake", "1", Path(__file__).parent / "nowhere")
    monkeypatch.setattr(time, "time", lambda: 1_770_000_000.0)
    [parsed] = read_events(json.dumps(event()).encode(), models.checks(), RequestLimits()).events
    rank(
        read_request(b'{"user": "u7", "items": [{"id": "i1"}]}', RequestLimits()),
        models,
        RequestLimits(),
        "r1",
    )
    assert parsed.time_ms < requests[0].time_ms


def test_ids_with_slashes(server: Server) -> None:
    server.ask("POST", "/v1/events", [event(user="a/b//c")])
    response = server.ask("GET", "/v1/users/a%2Fb%2F%2Fc/history")
    assert (response.status, response.json["user"]) == (200, "a/b//c")
    assert len(response.json["events"]) == 1


def test_ndjson_and_gzip_and_a_single_object(server: Server) -> None:
    lines = b"\n".join(json.dumps(event()).encode() for _ in range(3)) + b"\n\n"
    assert (
        server.ask("POST", "/v1/events", lines, {"content-type": "application/x-ndjson"}).json[
            "accepted"
        ]
        == 3
    )
    assert (
        server.ask("POST", "/v1/events", json.dumps(event(), indent=1).encode()).json["accepted"]
        == 1
    )
    packed = gzip.compress(json.dumps([event()]).encode()) + gzip.compress(b"\n")
    assert (
        server.ask("POST", "/v1/events", packed, {"content-encoding": "gzip"}).json["accepted"] == 1
    )
    assert server.ask("POST", "/v1/events", []).json["accepted"] == 0


def test_request_ids_and_methods_and_paths(server: Server) -> None:
    assert (
        server.ask("GET", "/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"]
        == "abc-1"
    )
    assert (
        len(
            server.ask("GET", "/healthz", headers={"x-request-id": "no spaces"}).headers[
                "x-request-id"
            ]
        )
        == 32
    )
    assert server.ask("GET", "/v1/nothing").error["code"] == "not_found"
    wrong = server.ask("GET", "/v1/rank")
    assert (wrong.status, wrong.error["code"], wrong.headers["allow"]) == (
        405,
        "method_not_allowed",
        "POST",
    )


def test_models_health_and_metrics(server: Server) -> None:
    [model] = server.ask("GET", "/v1/models").json["models"]
    assert (model["name"], model["version"], model["state"], len(model["schema"])) == (
        "fake",
        "1",
        "ready",
        16,
    )
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


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
        "/docs",
        "/openapi.json",
        "/v1/models",
        "/v1/users/u1/history",
    ],
)
def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    get, head = server.ask("GET", path), server.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert (
        head.headers["content-type"] == get.headers["content-type"]
        and int(head.headers["content-length"]) > 0
    )


def test_head_of_what_cannot_be_got(server: Server, tmp_path: Path) -> None:
    for path, status in (("/v1/rank", 405), ("/v1/nothing", 404)):
        answer = server.ask("HEAD", path)
        assert (answer.status, answer.body) == (status, b"")
    with fake_server(tmp_path, store="redis://127.0.0.1:1/0", token="a-token-of-sixteen") as away:
        answers = [away.ask("HEAD", path) for path in ("/readyz", "/healthz", "/v1/models")]
        assert [(answer.status, answer.body) for answer in answers] == [
            (503, b""),
            (200, b""),
            (401, b""),
        ]


def test_a_body_may_begin_with_a_mark(server: Server) -> None:
    mark = b"\xef\xbb\xbf"
    for body in (
        json.dumps([event()]).encode(),
        json.dumps(event(), indent=1).encode(),
        json.dumps(event()).encode() + b"\n",
    ):
        assert server.ask("POST", "/v1/events", mark + body).json["accepted"] == 1
        assert (
            server.ask(
                "POST", "/v1/events", gzip.compress(mark + body), {"content-encoding": "gzip"}
            ).json["duplicate"]
            == 1
        )
    assert (
        server.ask("POST", "/v1/rank", mark + b'{"user": "u1", "items": [{"id": "i1"}]}').status
        == 200
    )
    lines = [json.dumps(event()).encode() for _ in range(2)]
    assert (
        server.ask("POST", "/v1/events", mark + lines[0] + b"\n" + mark + lines[1]).json["accepted"]
        == 2
    ), "two joined files"
    for path in ("/v1/rank", "/v1/events"):
        assert "empty" in server.ask("POST", path, mark).error["message"]
    for body in (mark, mark + mark + b"[]", b"[" + mark + b"]"):
        assert server.ask("POST", "/v1/events", body).error["code"] == "malformed_json"


OF_TWO = """
name: two
labels: {click: {}}
split: {valid: 2026-01-07, test: 2026-01-08}
features: {user: {likes: {type: LIKES}}, item: {PRICE}}
history: {fields: {tab: {type: TAB}}}
"""


def two_models(*, strict: bool = False) -> dict[str, FieldValidator]:
    """``a`` reads numbers and a position, ``b`` categories and a title."""
    a = (
        OF_TWO.replace("LIKES", "numeric")
        .replace("PRICE", "price: {type: numeric}")
        .replace("TAB", "numeric")
    )
    b = OF_TWO.replace("LIKES", "categorical").replace(
        "PRICE", "price: {type: categorical}, title: {type: categorical}"
    )
    schemas = {"a": a + "roles: {bias: {column: position}}\n", "b": b.replace("TAB", "categorical")}
    return {
        name: FieldValidator(Schema.parse(text), strict=strict) for name, text in schemas.items()
    }


@pytest.mark.parametrize(
    ("body", "field", "unusable"),
    [
        (event(fields={"tab": 3}), None, {}),
        (event(item=None, type="search"), None, {}),
        (event(fields={"tab": "top"}), None, {"a": 1}),
        (event(fields={"tab": "top", "position": 4}), None, {"a": 1}),
        (event(fields={"tab": "top", "position": True}), "fields.position", {}),
        (event(fields={"tab": [1]}), "fields.tab", {}),
        (event(event="item", fields={"price": "dear", "title": "tea"}), None, {"a": 1}),
        (event(event="item", fields={"price": 3, "title": ["tea"]}), "fields.title", {}),
        (event(event="user", fields={"likes": "x", "other": [1]}), None, {"a": 1}),
        (event(event="user", fields={"likes": None}), None, {}),
    ],
)
def test_every_model_reads_the_fields_that_it_can(
    body: dict[str, object], field: str | None, unusable: dict[str, int]
) -> None:
    parsed = read_events(json.dumps(body).encode(), two_models(), RequestLimits())
    assert [one["field"] for one in parsed.rejected] == ([] if field is None else [field])
    assert (len(parsed.events), dict(parsed.unusable)) == (int(field is None), unusable)


def test_strict_refuses_the_columns_that_no_model_has() -> None:
    for fields, accepted in (
        ({"tab": "top", "position": 1}, True),
        ({"tab": 1, "colour": "red"}, False),
    ):
        parsed = read_events(
            json.dumps(event(fields=fields)).encode(), two_models(strict=True), RequestLimits()
        )
        assert len(parsed.events) == accepted


@pytest.mark.parametrize(
    "position", [True, False, -1, 1.5, 1e99, "3", [2], float("nan"), 2**53 + 2]
)
def test_a_position_is_a_whole_number_of_at_least_0(position: object) -> None:
    checks = {"a": two_models()["a"]}
    body = json.dumps(
        [
            event(fields={"position": position}),
            event(fields={"position": 2.0}),
            event(fields={"position": None}),
        ]
    )
    if position != position:  # NaN is no JSON at all
        with raises(ApiError, code="malformed_json"):
            read_events(body.encode(), checks, RequestLimits())
        return
    parsed = read_events(body.encode(), checks, RequestLimits())
    assert [(one["index"], one["code"], one["field"]) for one in parsed.rejected] == [
        (0, "invalid", "fields.position")
    ]
    assert len(parsed.events) == 2


def test_the_pages_load_nothing_from_elsewhere(server: Server) -> None:
    for path in ("/", "/docs"):
        page = server.ask("GET", path)
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        assert (
            b"http://" not in page.body.replace(b"http://www.w3.org", b"")
            and b"https://" not in page.body
        )
        assert "default-src 'none'" in page.headers["content-security-policy"]


def test_requests_are_logged_as_json(server: Server) -> None:
    server.ask("POST", "/v1/rank", {"user": "u1", "items": []}, {"x-request-id": "logged-1"})
    server.until(lambda: any(line.get("request_id") == "logged-1" for line in server.logs()))
    [line] = [line for line in server.logs() if line.get("request_id") == "logged-1"]
    assert (line["status"], line["path"], line["code"], line["field"]) == (
        422,
        "/v1/rank",
        "invalid",
        "items",
    )
