"""The server as a process: its socket, its signals, slow callers, and the end that finishes what is
in work.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from hemix.errors import UsageError
from hemix.serving.http.connection import Patient

__all__ = ["bind", "serve"]

_IDLE_SECONDS = 75
_FINISH_SECONDS = 30
_PATIENCE_SECONDS = 30.0
_CONNECTIONS = 2048
"""Idle ones too; requests in work have their own limit"""
_OTHER_FILES = 256
"""Of the store, the logs and the models"""


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


def _room_for(connections: int) -> int:
    """So many connections, or what the system's limit on open files leaves; a soft limit is
    raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    wanted = connections + _OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(connections, soft - _OTHER_FILES), 1)


def serve(
    app: ASGIApp,
    bound: socket.socket,
    on_ready: Callable[[], None],
    *,
    patience_seconds: float = _PATIENCE_SECONDS,
    connections: int = _CONNECTIONS,
) -> None:
    """Serve until SIGTERM or Ctrl-C; ``on_ready`` is called when the socket accepts.

    ``patience_seconds``: a caller may take so long to read an answer, or to end a body that nobody
    reads; past so many ``connections`` idle ones are closed.
    """
    options: dict[str, Any] = {
        "http": partial(Patient, patience=patience_seconds, most=_room_for(connections)),
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _IDLE_SECONDS,
        "timeout_graceful_shutdown": _FINISH_SECONDS,
    }
    server = _Server(uvicorn.Config(app, **options), on_ready)
    asyncio.run(server.serve(sockets=[bound]))
