"""A real server process for a test: a free port, queries over HTTP, SIGTERM at the end."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serving.http.fake import serve_fake

ROOT = Path(__file__).parents[3]
_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload(["__main__", "tests.serving.http.fake"])


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
    process: subprocess.Popen[str] | _ForkedProcess
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
def started(args: Sequence[str], log: Path, seconds: float = 60) -> Iterator[Server]:
    """Start ``python ARGS``, which prints a line of JSON with its url when it is ready."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *args],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=ROOT,
        )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if ready else ""
        assert line, f"no server: {log.read_text()[-2000:]}"
        yield Server(json.loads(line)["url"], process, log)
    finally:
        _end(process)
        process.stdout.close()


class _ForkedProcess:
    """The part of ``subprocess.Popen`` that tests use, of a process of the fork server."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("fake server", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


@contextmanager
def fake_server(folder: Path, **options: Any) -> Iterator[Server]:
    """The server of fake.py; ``folder`` is for its run and its log.

    It is a fork of a process that has imported everything, and so is ready at once.
    """
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    ready, send = _FORK_SERVER.Pipe(duplex=False)
    child = _FORK_SERVER.Process(
        target=serve_fake, args=({"run": str(run), **options}, folder / "log", send)
    )
    child.start()
    send.close()
    process = _ForkedProcess(child)
    try:
        assert ready.poll(60), f"no server: {(folder / 'log').read_text()[-2000:]}"
        yield Server(ready.recv(), process, folder / "log")
    finally:
        _end(process)
        ready.close()


def _end(process: subprocess.Popen[str] | _ForkedProcess) -> None:
    """SIGTERM, and SIGKILL to a process that does not end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
