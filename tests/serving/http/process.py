"""A real server process for a test: a free port, queries over HTTP, SIGTERM at the end."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forked import ForkedProcess, fork_hemix
from tests.serving.http import fake

ROOT = Path(__file__).parents[3]


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


@dataclass
class Server:
    """A running server."""

    url: str
    process: ForkedProcess
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 20,
    ) -> Answer:
        """One request on a connection of its own; ``body``: bytes as they are, else JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return Answer(
                answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()

    def rank(self, items: Sequence[str] = ("i1",), **more: Any) -> Answer:
        return self.ask(
            "POST", "/v1/rank", {"user": "u1", "items": [{"id": item} for item in items], **more}
        )

    def metric(self, name: str) -> float:
        """A sample of /metrics by its name with labels; 0 where there is none."""
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            if line.rpartition(" ")[0] == name:
                return float(line.rpartition(" ")[2])
        return 0.0

    def until(self, what: Any, seconds: float = 20) -> None:
        """Wait until ``what()`` holds."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "it did not come to that in time"
            time.sleep(0.01)

    def logs(self) -> list[dict[str, Any]]:
        whole = self.log.read_text().split("\n")[:-1]
        return [json.loads(line) for line in whole if line.startswith("{")]

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@contextmanager
def hemix_server(arguments: Sequence[object], log: Path) -> Iterator[Server]:
    """Run ``hemix serve ARGUMENTS --port 0 --json``; its stderr goes to ``log``."""
    process = fork_hemix("serve", *arguments, "--port", "0", "--json", err=log)
    with _running(process, log) as server:
        yield server


@contextmanager
def fake_server(folder: Path, **options: Any) -> Iterator[Server]:
    """The server of fake.py; ``folder`` is for its run and its log."""
    run, log = folder / "run", folder / "log"
    run.mkdir(parents=True, exist_ok=True)
    process = ForkedProcess(fake.main, {"run": str(run), **options}, err=log)
    with _running(process, log) as server:
        yield server


@contextmanager
def _running(process: ForkedProcess, log: Path) -> Iterator[Server]:
    """Wait for the line of JSON that a server prints when it is ready; SIGTERM at the end."""
    try:
        line = process.first_line()
        assert line, f"no server: {log.read_text()[-2000:]}"
        yield Server(json.loads(line)["url"], process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
