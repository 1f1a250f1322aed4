"""Tokens, addresses, strictness."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hemix.errors import UsageError
from hemix.serving.http.admission import Access, check_host
from hemix.serving.http.messages import ApiError
from hemix.serving.token_file import read_token
from tests.refusals import raises
from tests.serving.http.process import Server, fake_server

TOKEN, ADMIN = "user-token-0123456789", "admin-token-0123456789"


def test_doors_and_what_is_logged(tmp_path: Path) -> None:
    with fake_server(tmp_path, token=TOKEN, admin_token=ADMIN, registry=str(tmp_path)) as server:
        body = {"user": "u1", "items": [{"id": "i1"}]}
        doors = [
            ("POST", "/v1/rank", body),
            ("POST", "/v1/events", []),
            ("GET", "/v1/models", None),
            ("GET", "/v1/playground", None),
        ]
        doors += [("GET", "/v1/users/u1/history", None)]
        for method, path, content in doors:
            for header in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": TOKEN},
                {"authorization": f"Basic {TOKEN}"},
            ):
                answer = server.ask(method, path, content, header)
                assert (
                    answer.status,
                    answer.error["code"],
                    answer.headers["www-authenticate"],
                ) == (
                    401,
                    "unauthorized",
                    "Bearer",
                )
            for token in (TOKEN, ADMIN):
                assert (
                    server.ask(method, path, content, {"authorization": f"Bearer {token}"}).status
                    == 200
                )
        load = "/v1/models/fake/versions/1:load"
        assert server.ask("POST", load, headers={"authorization": f"Bearer {TOKEN}"}).status == 401
        assert server.ask("POST", load, headers={"authorization": f"Bearer {ADMIN}"}).status == 404
        for path in ("/healthz", "/readyz", "/metrics", "/"):
            assert server.ask("GET", path).status == 200, "probes and the page itself need none"
        log = server.log.read_text()
        assert TOKEN not in log and ADMIN not in log


def test_without_an_admin_token_nothing_can_be_loaded() -> None:
    access = Access()
    access.check(None)
    with raises(ApiError, code="no_admin"):
        access.check("Bearer ", admin=True)
    with pytest.raises(ApiError):
        Access("a" * 16).check("Bearer \udcff")


@pytest.mark.parametrize(
    "content", ["", "short", "two words but long enough", "ünïcödé" * 4, "a" * 20 + "\nsecond line"]
)
def test_files_that_hold_no_token(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with raises(UsageError, tmp_path / "token", 16, field="--token-file"):
        read_token(tmp_path / "token", "--token-file")
    with raises(UsageError, "nowhere", code="unreadable_file", field="--token-file"):
        read_token(tmp_path / "nowhere", "--token-file")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_other_addresses_need_a_token(host: str) -> None:
    with raises(UsageError, host, field="--host"):
        check_host(host, token=False)
    check_host(host, token=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_this_machine_needs_none(host: str) -> None:
    check_host(host, token=False)


def test_strict_refuses_what_the_run_does_not_know(tmp_path: Path) -> None:
    with fake_server(tmp_path, limits={"strict": True}) as server:
        assert server.rank(["i1", "i2"]).status == 200
        for more, code, field in (
            ({"user": "stranger"}, "unknown_user", "user"),
            ({"items": [{"id": "i1"}, {"id": "strange"}]}, "unknown_item", "items[1].id"),
            ({"context": {"colour": "red"}}, "invalid", "context.colour"),
            (
                {"items": [{"id": "i1", "fields": {"colour": "red"}}]},
                "invalid",
                "items[0].fields.colour",
            ),
        ):
            answer = server.ask("POST", "/v1/rank", {"user": "u1", "items": [{"id": "i1"}], **more})
            assert (answer.status, answer.error["code"], answer.error["field"]) == (
                422,
                code,
                field,
            )


def test_strict_refuses_nothing_that_it_cannot_know_without_its_store(tmp_path: Path) -> None:
    with fake_server(tmp_path, limits={"strict": True}, store="redis://127.0.0.1:1/0") as server:
        answer = server.rank(["strange"])
        assert (answer.status, answer.json["degraded"]) == (200, ["history", "features"])
        assert answer.json["items"][0]["status"] == "UNKNOWN_ITEM"


def test_pages_of_other_sites_cannot_ask_a_server_without_a_token(tmp_path: Path) -> None:
    body = {"user": "u1", "items": [{"id": "i1"}]}
    with fake_server(tmp_path / "open") as server:
        own = {"origin": server.url}
        assert server.ask("POST", "/v1/rank", body, headers=own).status == 200
        for origin in ("http://elsewhere.example", "null", f"http://localhost:{server.port}"):
            answer = server.ask(
                "POST", "/v1/rank", body, headers={"origin": origin, "content-type": "text/plain"}
            )
            assert (answer.status, answer.error["code"]) == (403, "cross_origin")
            assert server.ask("POST", "/v1/events", [], headers={"origin": origin}).status == 403
    with fake_server(tmp_path / "token", token="a-token-of-sixteen") as server:
        headers = {
            "origin": "http://elsewhere.example",
            "authorization": "Bearer a-token-of-sixteen",
        }
        assert server.ask("POST", "/v1/rank", body, headers=headers).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "", None])
@pytest.mark.parametrize(
    "origin",
    [
        "http://[::1",
        "http://]",
        "null",
        "",
        "http://",
        "\xff",
        "http://ex\u2100mple",
        "//",
        "127.0.0.1:8080",
        "http://127.0.0.1",
    ],
)
def test_an_origin_that_is_no_site_of_this_server_is_another(origin: str, host: str | None) -> None:
    with pytest.raises(ApiError) as refused:
        Access().check_origin(origin, host)
    assert (refused.value.http_status, refused.value.code) == (403, "cross_origin")
    Access("a-token-of-sixteen").check_origin(origin, host)


def test_odd_headers_are_no_defect(server: Server) -> None:
    """Bytes as they are, past every client's checks: an answer below 500, or the caller is hung up
    on.
    """
    body = b'{"user": "u1", "items": [{"id": "i1"}]}'
    length = f"content-length: {len(body)}\r\n".encode()
    for head in (
        *(
            b"origin: " + origin
            for origin in (
                b"null",
                b"http://[::1",
                b"\xff\xfe",
                b"http://\xe2\x84\x80",
                b"a" * 5000,
            )
        ),
        *(
            b"authorization: " + given
            for given in (
                b"\xff",
                b"Bearer",
                b"Bearer \xff\x80",
                b"bearer  x y",
                b"Basic " + b"=" * 5000,
            )
        ),
        *(b"x-request-id: " + given for given in (b"\xff", b"{}", b"a" * 5000)),
        *(b"content-encoding: " + given for given in (b"\xff", b"gzip, gzip", b"a" * 5000)),
        *(b"content-type: " + given for given in (b"\xff", b"text/html; charset=utf-7")),
        *(
            b"content-length: " + given
            for given in (b"-1", b"+3", b"1e3", b"9" * 19, b"9" * 5000, b"\xb2", b"")
        ),
        *(b"transfer-encoding: " + given for given in (b"gzip", b"chunked, chunked", b"\xff")),
    ):
        with socket.create_connection(("127.0.0.1", server.port), 10) as caller:
            own = b"" if head.startswith((b"content-length", b"transfer-encoding")) else length
            caller.sendall(
                b"POST /v1/rank HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                + own
                + head
                + b"\r\n\r\n"
                + body
            )
            first = caller.recv(200).split(b"\r\n")[0]
        assert first.split(b" ")[1:2] < [b"500"], (head[:60], first)
    for host in (b"", b"\xff", b"[::1", b"a b", b"a" * 5000):
        with socket.create_connection(("127.0.0.1", server.port), 10) as caller:
            caller.sendall(
                b"POST /v1/rank HTTP/1.1\r\nhost: "
                + host
                + b"\r\norigin: null\r\nconnection: close\r\n"
                + length
                + b"\r\n"
                + body
            )
            first = caller.recv(200).split(b"\r\n")[0]
        assert first.split(b" ")[1:2] < [b"500"], (host[:60], first)
    assert server.rank().status == 200


def test_a_token_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbf" + TOKEN.encode() + b"\r\n")
    assert read_token(tmp_path / "token", "--token-file") == TOKEN
