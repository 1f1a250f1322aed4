"""Bad input: 4xx with a code, a sentence, the field and the request's id; the server goes on."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from hemix.measure import PeakMemory, anonymous_bytes
from tests.serving.http.process import Server, fake_server

ITEM = [{"id": "i1"}]
NOW = 1_770_000_000_000
PAST = {"item": "i1", "timestamp": NOW}
EARLIER = {**PAST, "timestamp": NOW - 1}
ODD = {**PAST, "fields": {"tab": [1]}}
LARGE = {f"c{n}": "x" * 4000 for n in range(17)}
WIDE = {**PAST, "fields": LARGE}
NESTED = {**PAST, "fields": {"a": {}}}
DEEP = (
    b'{"user": "u", "items": [{"id": "i", "fields": {"a": '
    + b'{"a":' * 5000
    + b"1"
    + b"}" * 5000
    + b"}}]}"
)


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "malformed_json", None),
        (b"{", 400, "malformed_json", None),
        (b"\xff\xfe", 400, "malformed_json", None),
        (b'{"user": "\xff", "items": []}', 400, "malformed_json", None),
        (b'{"user": "\\ud800", "items": []}', 400, "malformed_json", None),
        (b'{"user": NaN}', 400, "malformed_json", None),
        (DEEP, 422, "invalid", "items[0].fields"),
        ([], 422, "invalid", None),
        ("text", 422, "invalid", None),
        ({}, 422, "invalid", "user"),
        ({"user": None, "items": ITEM}, 422, "invalid", "user"),
        ({"user": 7, "items": ITEM}, 422, "invalid", "user"),
        ({"user": "", "items": ITEM}, 422, "invalid", "user"),
        ({"user": "u" * 300, "items": ITEM}, 422, "invalid", "user"),
        ({"user": "u1"}, 422, "invalid", "items"),
        ({"user": "u1", "items": []}, 422, "invalid", "items"),
        ({"user": "u1", "items": [{"id": "i1"}, {"id": 3}]}, 422, "invalid", "items[1].id"),
        ({"user": "u1", "items": [{}]}, 422, "invalid", "items[0].id"),
        ({"user": "u1", "items": ITEM * 51}, 413, "too_many_items", "items"),
        ({"user": "u1", "items": ITEM, "model": "other"}, 404, "unknown_model", "model"),
        ({"user": "u1", "items": ITEM, "timestamp": 1_770_000_000}, 422, "invalid", "timestamp"),
        ({"user": "u1", "items": ITEM, "timestamp": "now"}, 422, "invalid", "timestamp"),
        ({"user": "u1", "items": ITEM, "explain": "yes"}, 422, "invalid", "explain"),
        (
            {"user": "u1", "items": ITEM, "context": {"sleep": "long"}},
            422,
            "invalid",
            "context.sleep",
        ),
        (
            {"user": "u1", "items": [*ITEM, {"id": "i2", "fields": {"picture": [1.0]}}]},
            422,
            "invalid",
            "items[1].fields.picture",
        ),
        (
            {"user": "u1", "items": [{"id": "i2", "fields": {"match": True, "price": [1]}}]},
            422,
            "invalid",
            "items[0].fields.price",
        ),
        (
            {"user": "u1", "items": [{"id": "i2", "fields": {"price": 10**19}}]},
            422,
            "invalid",
            "items[0].fields.price",
        ),
        (
            {"user": "u1", "items": [{"id": "i2", "fields": {"a": 1, "odd": {"b": 1}}}]},
            422,
            "invalid",
            "items[0].fields.odd",
        ),
        (
            {"user": "u1", "items": ITEM, "context": {"odd": [1, [2]]}},
            422,
            "invalid",
            "context.odd[1]",
        ),
        (
            b'{"user": "u", "context": {"a": 1, "b": [1, 1e999]}, "items": [{"id": "i"}]}',
            422,
            "invalid",
            "context.b",
        ),
        (
            b'{"user": "u", "context": {"a": {}}, "context": 3, "items": [{"id": "i"}]}',
            422,
            "invalid",
            "context",
        ),
        (
            b'{"items": [{"id": "i", "fields": {"a": {}}}], "items": [], "user": "u"}',
            422,
            "invalid",
            "items[0].fields",
        ),
        ({"user": "u1", "items": ITEM, "context": {"a" * 300: 1}}, 422, "invalid", "context"),
        (
            {"user": "u1", "items": ITEM, "context": {f"c{n}": 1 for n in range(257)}},
            422,
            "invalid",
            "context",
        ),
        (
            {"user": "u1", "items": [{"id": "i2", "fields": {f"c{n}": 1 for n in range(257)}}]},
            422,
            "invalid",
            "items[0].fields",
        ),
        (
            {"user": "u1", "items": [*ITEM, {"id": "i2", "fields": LARGE}]},
            422,
            "invalid",
            "items[1].fields",
        ),
        ({"user": "u1", "items": ITEM, "context": LARGE}, 422, "invalid", "context"),
        (
            {"user": "u1", "items": ITEM, "history": {"global": [WIDE]}},
            422,
            "invalid",
            "history.global[0].fields",
        ),
        (
            {"user": "u1", "items": ITEM, "history": {"global": [NESTED]}},
            422,
            "invalid",
            "history.global[0].fields.a",
        ),
        (
            {"user": "u1", "items": ITEM, "history": {"realtime": [{"item": "i1"}]}},
            422,
            "invalid",
            "history.realtime[0].timestamp",
        ),
        (
            {"user": "u1", "items": ITEM, "history": {"global": [ODD]}},
            422,
            "invalid",
            "history.global[0].fields.tab",
        ),
        (
            {"user": "u1", "items": ITEM, "history": {"global": [PAST, EARLIER]}},
            422,
            "invalid",
            "history.global[1].timestamp",
        ),
        (
            {"user": "u1", "items": ITEM, "timestamp": NOW, "history": {"realtime": [PAST]}},
            *(422, "invalid", "history.realtime[0].timestamp"),
        ),
    ],
)
def test_bad_rankings_name_the_field(
    server: Server, body: Any, status: int, code: str, field: str | None
) -> None:
    answer = server.ask("POST", "/v1/rank", body, {"x-request-id": "r-1"})
    assert (answer.status, answer.error["code"], answer.error["field"]) == (status, code, field), (
        answer.error
    )
    assert answer.error["request_id"] == "r-1"
    assert "\n" not in answer.error["message"] and len(answer.error["message"]) > 10


@pytest.mark.parametrize(
    "body",
    [b"", b"   ", b"[", b'[{"event": "user"},]', b'{"a": 1} x', b"[" * 50_000, b"nonsense\nlines"],
)
def test_bodies_of_events_that_are_not_json(server: Server, body: bytes) -> None:
    answer = server.ask("POST", "/v1/events", body)
    assert (answer.status, answer.error["code"]) == (400, "malformed_json")


def test_a_body_over_the_limit_is_not_read(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as caller:
        caller.sendall(b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-length: 900000000\r\n\r\n")
        assert b"413" in caller.recv(1000).split(b"\r\n")[0], "refused before any of it was sent"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/v1/rank")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    chunk = b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"
    try:
        for _ in range(50):
            connection.send(chunk)
            time.sleep(0.01)
    except OSError:
        pass  # hung up on
    else:
        assert connection.getresponse().status == 413
    assert server.rank().status == 200


def test_a_gzip_bomb_is_refused_before_it_is_held(server: Server) -> None:
    packer = zlib.compressobj(9, wbits=31)
    zeros = b" " * 2**20
    bomb = b"".join(packer.compress(zeros) for _ in range(90)) + packer.flush()
    assert len(bomb) < 100_000, "small enough to be let in"
    server.rank()
    before = anonymous_bytes(server.process.pid)
    answers = [
        server.ask("POST", "/v1/events", bomb, {"content-encoding": "gzip"}) for _ in range(5)
    ]
    assert {(answer.status, answer.error["code"]) for answer in answers} == {(413, "too_large")}
    assert anonymous_bytes(server.process.pid) - before < 30 * 2**20


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/events", b"[" + b"0," * 4_000_000 + b"0]"),
        ("/v1/events", b"\n" * 8_000_000),
        ("/v1/events", b"[" + b"{}," * 2_700_000 + b"{}]"),
        ("/v1/rank", b'{"user":"u","items":[' + b'{"id":"i"},' * 700_000 + b'{"id":"i"}]}'),
        (
            "/v1/rank",
            b'{"user":"u","context":{'
            + b",".join(b'"%x":1' % n for n in range(700_000))
            + b'},"items":[{"id":"i"}]}',
        ),
    ],
    ids=["values", "lines", "objects", "items", "keys"],
)
def test_many_small_values_are_refused_before_they_are_made(
    tmp_path: Path, path: str, body: bytes
) -> None:
    assert len(body) < 8 * 2**20
    with fake_server(tmp_path) as server:
        server.rank()
        before = anonymous_bytes(server.process.pid)
        with PeakMemory(server.process.pid, every_seconds=0.002) as memory:
            answer = server.ask("POST", path, body)
        assert (answer.status, answer.error["code"]) == (413, "too_many_values")
        assert memory.bytes - before < 60 * 2**20


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        (b"not gzip", "gzip", "damaged_gzip"),
        (gzip.compress(b"[]", mtime=0)[:-9], "gzip", "damaged_gzip"),
        (b"", "gzip", "damaged_gzip"),
        (b"[]", "br", "unknown_encoding"),
    ],
)
def test_encodings_that_cannot_be_read(
    server: Server, body: bytes, encoding: str, code: str
) -> None:
    answer = server.ask("POST", "/v1/events", body, {"content-encoding": encoding})
    assert (answer.status, answer.error["code"]) == (400, code)


def test_a_slow_body_is_hung_up_on_and_holds_no_worker(server: Server) -> None:
    callers = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(8)]
    for caller in callers:
        caller.sendall(b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
    assert server.rank().status == 200
    for caller in callers:
        answer = b""
        while chunk := caller.recv(4096):
            answer += chunk
        assert b"slow_body" in answer
        caller.close()


def test_a_request_that_is_not_http(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as caller:
        caller.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert caller.recv(100).startswith(b"HTTP/1.1 400")
    assert server.rank().status == 200


def test_a_defect_of_ours_is_a_500_that_tells_nothing_and_is_logged(server: Server) -> None:
    answer = server.ask(
        "POST",
        "/v1/rank",
        {"user": "u1", "items": ITEM, "context": {"fail": "x"}},
        {"x-request-id": "defect-1"},
    )
    assert (answer.status, answer.error["code"]) == (500, "internal")
    assert "RuntimeError" not in json.dumps(answer.error)
    [line] = [
        line
        for line in server.logs()
        if line.get("request_id") == "defect-1" and "traceback" in line
    ]
    assert "RuntimeError: a defect" in line["traceback"]
    assert server.rank().status == 200
