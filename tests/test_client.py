"""Which way the client takes to its server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from hemix import client as client_module
from hemix.client import Client
from hemix.errors import ServerError, UsageError


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"ready": True, "models": [{"name": self.server.name}]}).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _start(name: str) -> http.server.ThreadingHTTPServer:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    made.name = name  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """A server and a proxy, which the environment names for everything."""
    made = {name: _start(name) for name in ("server", "proxy")}
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{made['proxy'].server_port}")
    yield {name: one.server_port for name, one in made.items()}
    for one in made.values():
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "0.0.0.0", "127.1", "[::ffff:127.0.0.1]"]
)
def test_no_proxy_stands_before_a_server_on_this_machine(ports: dict[str, int], host: str) -> None:
    for scheme in ("http", "HTTP"):
        client = Client(f"{scheme}://{host}:{ports['server']}", timeout_seconds=5)
        assert client.models() == [{"name": "server"}] and client.ready()


@pytest.mark.parametrize(
    ("url", "here"),
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
def test_what_names_this_machine(url: str, here: bool) -> None:
    assert client_module._is_loopback(url) == here


@pytest.mark.usefixtures("ports")
def test_other_servers_are_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client("http://models.example", timeout_seconds=5).models() == [{"name": "proxy"}]
    monkeypatch.setenv("no_proxy", "models.example")
    with pytest.raises(ServerError, match="no answer"):
        Client("http://models.example", timeout_seconds=5).models()


def test_a_url_that_is_none() -> None:
    for url in ("http://[::1", "localhost:80", "ftp://x"):
        with pytest.raises(UsageError, match="expected http://HOST:PORT"):
            Client(url)
