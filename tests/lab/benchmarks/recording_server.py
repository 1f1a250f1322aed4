"""A server that records what a load generator sends, and answers as a ranking server does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["RecordingServer", "recording_server"]


class RecordingServer:
    """The bodies by path, in the order of arrival, and what the answers hold."""

    def __init__(self, port: int, answers: dict[str, tuple[int, Any, str]]) -> None:
        self.port, self.answers = port, answers
        self.bodies: dict[str, list[Any]] = {"/v1/rank": [], "/v1/events": []}


@contextmanager
def recording_server(answers: dict[str, tuple[int, Any, str]]) -> Iterator[RecordingServer]:
    """Serve until the block ends.

    Args:
        answers: By path the status, the JSON body and the header ``server-timing``.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                recording.bodies[self.path].append(body)
            status, content, timing = recording.answers[self.path]
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(payload)))
            self.send_header("server-timing", timing)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recording = RecordingServer(server.server_port, answers)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield recording
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
