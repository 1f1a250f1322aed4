"""The client: its requests, its errors, and when it uses a proxy."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from hemix import connections
from hemix.client import Client
from hemix.errors import ServerError, UsageError
from tests.refusals import raises


class _Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        name = self.server.name  # type: ignore[attr-defined]
        self._send(200, {"ready": True, "models": [{"name": name}]})

    def do_POST(self) -> None:
        """Echo the request; a user without id is refused."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/rank" and not request["user"]:
            error = {"code": "invalid", "message": "empty", "field": "user", "request_id": "r7"}
            self._send(422, {"error": error})
        else:
            self._send(200, {"request": request})
        if self.path == "/v1/events":
            self.close_connection = True  # without a header that says so

    def _send(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _start(name: str) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.name, server.connections = name, []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, http.server.HTTPServer]]:
    """A server, and a proxy that the environment names for all addresses."""
    servers = {name: _start(name) for name in ("server", "proxy")}
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{servers['proxy'].server_port}")
    yield servers
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.fixture
def ports(servers: dict[str, http.server.HTTPServer]) -> dict[str, int]:
    return {name: server.server_port for name, server in servers.items()}


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "0.0.0.0", "127.1", "[::ffff:127.0.0.1]"]
)
def test_a_server_on_this_machine_is_reached_without_the_proxy(
    ports: dict[str, int], host: str
) -> None:
    for scheme in ("http", "HTTP"):
        client = Client(f"{scheme}://{host}:{ports['server']}", timeout_seconds=5)
        assert client.models() == [{"name": "server"}] and client.ready()


def test_calls_share_a_connection_until_the_server_closes_it(
    servers: dict[str, http.server.HTTPServer],
) -> None:
    client = Client(f"http://127.0.0.1:{servers['server'].server_port}", timeout_seconds=5)
    connections = servers["server"].connections  # type: ignore[attr-defined]
    for _ in range(3):
        client.models()
    assert len(connections) == 1
    client.events([])
    assert client.models() and client.models()
    assert len(connections) == 2


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost.:80", True),
        ("http://shop.localhost", True),
        ("http://[::1]:80", True),
        ("http://127.0.0.2", True),
        ("http://0", True),
        ("http://10.1.2.3", False),
        ("http://localhost.example", False),
        ("http://127.example", False),
        ("http://cafe", False),
        ("http://128.1", False),
    ],
)
def test_loopback_addresses_are_recognised(url: str, loopback: bool) -> None:
    assert connections._is_loopback(urlsplit(url).hostname) == loopback


@pytest.mark.usefixtures("ports")
def test_other_servers_are_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client("http://models.example", timeout_seconds=5).models() == [{"name": "proxy"}]
    monkeypatch.setenv("no_proxy", "models.example")
    with raises(ServerError, "models.example", code="no_answer"):
        Client("http://models.example", timeout_seconds=5).models()


def test_an_address_without_scheme_or_host_is_refused() -> None:
    for url in ("http://[::1", "localhost:80", "ftp://x"):
        with raises(UsageError, repr(url), field="url"):
            Client(url)


def test_a_ranking_request_has_the_options_that_are_set(ports: dict[str, int]) -> None:
    client = Client(f"http://127.0.0.1:{ports['server']}", timeout_seconds=5)
    assert client.rank("u1", ["a", {"id": "b", "fields": {"price": 2}}])["request"] == {
        "user": "u1",
        "items": [{"id": "a"}, {"id": "b", "fields": {"price": 2}}],
    }
    response = client.rank(
        "u1", ["a"], context={"city": "x"}, timestamp=5, id="r1", explain=True, model=None
    )
    assert response["request"] == {
        "user": "u1",
        "items": [{"id": "a"}],
        "context": {"city": "x"},
        "timestamp": 5,
        "id": "r1",
        "explain": True,
    }
    assert "explain" not in client.rank("u1", ["a"], explain=False)["request"]


def test_an_unknown_option_and_a_value_that_is_not_json_are_refused() -> None:
    client = Client("http://127.0.0.1:1", timeout_seconds=1)
    with pytest.raises(TypeError) as caught:
        client.rank("u1", ["a"], explian=True)  # type: ignore[call-arg]
    assert "'explian'" in str(caught.value)
    with raises(UsageError, "/v1/rank", field="body"):
        client.rank("u1", ["a"], context={"price": float("nan")})


def test_a_refused_request_raises_the_fields_of_the_servers_error(ports: dict[str, int]) -> None:
    client = Client(f"http://127.0.0.1:{ports['server']}", timeout_seconds=5)
    with pytest.raises(ServerError) as error:
        client.rank("", ["a"])
    refused = error.value
    assert (refused.status, refused.code, refused.field) == (422, "invalid", "user")
    assert (refused.request_id, refused.retry_after) == ("r7", None)
