"""The uvicorn server: its socket, its signals, and time-outs that uvicorn lacks.

Only this file depends on uvicorn's internals. uvicorn has no time-out for slow clients and no bound
on idle connections; :class:`TimeoutProtocol` adds both, so that a server without a reverse proxy
in front of it is safe too. Tests with slow clients fail where a new uvicorn changes what it uses.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from hemix.errors import UsageError
from hemix.serving.json_logging import log_record

__all__ = ["TimeoutProtocol", "bind", "serve"]

_HEAD_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 75
_SHUTDOWN_SECONDS = 30
_CLIENT_SECONDS = 30.0
_MAX_CONNECTIONS = 2048
"""Idle ones too; requests in work have a limit of their own"""
_OTHER_FILES = 256
"""Open files of the store, the logs and the models"""


class TimeoutProtocol(H11Protocol):
    """Closes connections of slow clients, and idle ones where there are too many.

    uvicorn waits without end for a request's head, for a client that reads no answer, and for the
    rest of a body that was answered before it ended. Here a head must arrive within 10 s. A client
    has ``client_seconds`` to read an answer, counted while the socket's buffers are full, and as
    long to end a body. Beyond ``max_connections`` the longest idle connection is closed.

    Overridden hooks of uvicorn's H11Protocol: ``on_response_complete``; attributes read:
    ``conn``, ``connections``, ``cycle``, ``loop``, ``transport``.
    """

    def __init__(
        self, *args: Any, client_seconds: float, max_connections: int, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._client_seconds, self._max_connections = client_seconds, max_connections
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Limit the time of the first head, and the number of connections."""
        super().connection_made(transport)
        # pause_writing then means unread bytes, and resume_writing that the client has read all
        transport.set_write_buffer_limits(high=0)
        self._update_timers()
        if len(self.connections) > self._max_connections:
            self._close_longest_idle()

    def data_received(self, data: bytes) -> None:
        """Start or stop timers by the state of the request."""
        super().data_received(data)
        self._update_timers()

    def on_response_complete(self) -> None:
        """Limit the time of a body that arrives after its answer."""
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._start_timer("body", self._client_seconds)

    def pause_writing(self) -> None:
        """Limit the time to read an answer."""
        super().pause_writing()
        self._start_timer("answer", self._client_seconds)

    def resume_writing(self) -> None:
        """The client has read the answer so far."""
        super().resume_writing()
        self._stop_timer("answer")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        super().connection_lost(exc)
        for timeout in list(self._timers):
            self._stop_timer(timeout)

    def _update_timers(self) -> None:
        # uvicorn's keep-alive timer ends with the first byte, so a slow head needs a timer
        if self.conn.their_state is not h11.SEND_BODY:
            self._stop_timer("body")
        if self.conn.their_state is h11.IDLE:
            self._start_timer("head", _HEAD_SECONDS)
        else:
            self._stop_timer("head")

    def _start_timer(self, timeout: str, seconds: float) -> None:
        if timeout not in self._timers:
            self._timers[timeout] = self.loop.call_later(seconds, self._abort, timeout)

    def _stop_timer(self, timeout: str) -> None:
        timer = self._timers.pop(timeout, None)
        if timer is not None:
            timer.cancel()

    def _abort(self, why: str) -> None:
        log_record("connection closed", why=why)
        self.transport.abort()  # close() would wait for the buffer

    def _close_longest_idle(self) -> None:
        idle = [
            connection
            for connection in self.connections
            if isinstance(connection, TimeoutProtocol)
            and connection is not self
            and connection.idle
        ]
        if idle:
            min(idle, key=lambda connection: connection._idle_since)._abort("room")

    @property
    def idle(self) -> bool:
        """Whether the connection has no request in work."""
        return self.cycle is None or self.cycle.response_complete


class _Server(uvicorn.Server):
    """Exits with code 0 on SIGTERM and Ctrl-C, after the requests in work are done.

    uvicorn raises the signal again when it has shut down, which would end with another code.
    """

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
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


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket.

    Args:
        host: Address.
        port: Port; 0 takes a free one.

    Raises:
        UsageError: The address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it a short answer
    # waits 40 ms for the client's delayed acknowledgement of the head
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"--host {host} --port {port}: cannot listen there: {reason}", field="--host"
        ) from error
    return bound


def _allowed_connections(connections: int) -> int:
    """Raise the soft limit on open files as needed; return how many connections it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    needed = connections + _OTHER_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(connections, soft - _OTHER_FILES), 1)


def serve(
    app: ASGIApp,
    bound: socket.socket,
    on_ready: Callable[[], None],
    *,
    client_seconds: float = _CLIENT_SECONDS,
    max_connections: int = _MAX_CONNECTIONS,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: The application.
        bound: A bound socket.
        on_ready: Called when the socket accepts connections.
        client_seconds: Time of a client to read an answer, or to end a body that nobody reads.
        max_connections: Number of connections beyond which idle ones are closed.
    """
    protocol = partial(
        TimeoutProtocol,
        client_seconds=client_seconds,
        max_connections=_allowed_connections(max_connections),
    )
    options: dict[str, Any] = {
        "http": protocol,
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": _SHUTDOWN_SECONDS,
    }
    server = _Server(uvicorn.Config(app, **options), on_ready)
    asyncio.run(server.serve(sockets=[bound]))
