"""A ranking server for tests: it has no model, scores every item 0, and fails on request."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class FakeServer:
    """Listens while the block runs."""

    def __init__(self, name: str = "m", version: str = "1", schema: str = "s") -> None:
        self.model = {
            "name": name,
            "version": version,
            "schema": schema,
            "sha256": f"{name}{version}",
        }
        self.errors: dict[str, tuple[int, str]] = {}
        """By path: status and message of the errors to answer."""
        self.rejected: list[dict[str, Any]] = []
        """Events that the server reports as rejected."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                body = json.loads(
                    self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null"
                )
                status, content = server.answer(self.path, body)
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path in self.errors:
            status, message = self.errors[path]
            return status, {"error": {"code": "invalid", "message": message}}
        if path == "/v1/models":
            return 200, {"models": [self.model]}
        if path == "/v1/events":
            return 200, {
                "accepted": len(body) - len(self.rejected),
                "duplicate": 0,
                "rejected": self.rejected,
            }
        return 200, {"items": [{"id": item["id"], "score": 0.0} for item in body["items"]]}

    def __enter__(self) -> FakeServer:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
