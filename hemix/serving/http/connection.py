"""One caller's connection: how long it may take for a head, for an answer, for a body that nobody
reads, and when it makes room.

Knows HTTP's states and the socket's buffer, no route.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hemix.serving.http.logs import say

__all__ = ["Patient"]

_HEAD_SECONDS = 10.0


class Patient(H11Protocol):
    """Hangs up on a caller whose request's head does not arrive within 10 s; who does not take an
    answer within ``patience`` seconds from the moment that the socket's buffers were full; who goes
    on for so long with the body of a request that was answered without it. Past ``most``
    connections the one that is longest without a request in work makes room for a new one.
    """

    def __init__(self, *args: Any, patience: float, most: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._patience, self._most = patience, most
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(
            high=0
        )  # so that pause_writing says: not all was taken, and resume_writing: now it is
        self._watch()
        if len(self.connections) > self._most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._start("body", self._patience)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start("answer", self._patience)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop("answer")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for what in list(self._timers):
            self._stop(what)

    def _watch(self) -> None:
        """Whatever arrives ends uvicorn's wait for the next request, so what arrives in drops needs
        a wait of its own.
        """
        if self.conn.their_state is not h11.SEND_BODY:
            self._stop("body")
        if self.conn.their_state is h11.IDLE:
            self._start("head", _HEAD_SECONDS)
        else:
            self._stop("head")

    def _start(self, what: str, seconds: float) -> None:
        if what not in self._timers:
            self._timers[what] = self.loop.call_later(seconds, self._hang_up, what)

    def _stop(self, what: str) -> None:
        timer = self._timers.pop(what, None)
        if timer is not None:
            timer.cancel()

    def _hang_up(self, why: str) -> None:
        say("hung up", why=why)
        self.transport.abort()  # close() would wait for the buffer

    def _make_room(self) -> None:
        idle = [
            other
            for other in self.connections
            if isinstance(other, Patient) and other is not self and other.idle
        ]
        if idle:
            min(idle, key=lambda other: other._idle_since)._hang_up("room")

    @property
    def idle(self) -> bool:
        """No request is in work."""
        return self.cycle is None or self.cycle.response_complete
