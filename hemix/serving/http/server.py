"""The server as a process: its socket, its signals, slow callers, and the end that finishes what is in work."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from hemix.errors import UsageError

__all__ = ["bind", "serve"]

_HEAD_SECONDS = 10.0
_IDLE_SECONDS = 75
_FINISH_SECONDS = 30
_CONNECTIONS = 1024


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises UsageError naming the flag."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--host {host} --port {port}: cannot listen there: {why}") from error
    return bound


class _Patient(H11Protocol):
    """Hangs up on a caller whose request's head does not arrive in time."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        partial = self.conn.their_state is h11.IDLE
        if not partial:
            self._stop()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()

    def _stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Server(uvicorn.Server):
    """Ends with exit code 0 on SIGTERM and Ctrl-C, when what is in work is done."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def serve(app: ASGIApp, bound: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; ``on_ready`` is called when the socket accepts."""
    options: dict[str, Any] = {
        "http": _Patient,
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _IDLE_SECONDS,
        "timeout_graceful_shutdown": _FINISH_SECONDS,
        "limit_concurrency": _CONNECTIONS,
    }
    server = _Server(uvicorn.Config(app, **options), on_ready)
    asyncio.run(server.serve(sockets=[bound]))
