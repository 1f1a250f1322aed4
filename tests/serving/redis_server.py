"""A real redis-server on a free port, that tests may stop, kill and start again on the same
files.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.ports import stable_port

__all__ = ["RedisServer"]


class RedisServer:
    """Not started when made. Everything that it writes lies in ``folder``."""

    def __init__(self, folder: Path, *, fsync: str = "always") -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("REDIS ABSENT: no redis-server (Debian: apt-get install redis-server)")
        self._folder, self._fsync = folder, fsync
        self.port = stable_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        self._folder.mkdir(exist_ok=True)
        command = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self._folder),
            "--save",
            "",
        ]
        command += ["--appendonly", "yes", "--appendfsync", self._fsync]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait()
        return self

    def _wait(self) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            time.sleep(0.005)
        raise AssertionError(f"redis-server on port {self.port} does not answer")

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """In order; does nothing where it is not running."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None
