"""Request bodies: read while they are counted, unpacked while they are counted, within a time.

No more than the limit (and one piece from the socket) is ever held of one body, packed or unpacked,
and no more than a budget of all together. Knows nothing of JSON.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from hemix.serving.http.refusal import Refusal

__all__ = ["Budget", "body_of"]


class Budget:
    """Bytes of bodies that a server holds at a time. One event loop uses it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, count: int) -> None:
        """Raises Refusal (503) where there is no room."""
        if self.held + count > self._most:
            raise Refusal(
                503,
                "overloaded",
                f"bodies of {self._most:,} bytes are held; try again",
                retry_after=1,
                close=True,
            )
        self.held += count

    def give(self, count: int) -> None:
        """So many are held no more."""
        self.held -= count


@asynccontextmanager
async def body_of(
    request: Request, *, limit: int, seconds: float, budget: Budget
) -> AsyncIterator[bytes]:
    """The whole body, at most ``limit`` bytes unpacked, counted in ``budget`` for as long as the
    block. Raises Refusal: 413 for more, 400 for another encoding than gzip, damaged gzip or a body
    that takes longer than ``seconds``, 503 where the budget is used up. Starlette raises
    ClientDisconnect where the client is gone.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise Refusal(
            400,
            "unknown_encoding",
            f"content-encoding {encoding[:40]!r}: expected gzip or none",
            close=True,
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    unpack = _Gunzip(limit) if encoding == "gzip" else _Plain(limit)
    counted = 0
    try:
        try:
            async with asyncio.timeout(seconds):
                async for piece in request.stream():
                    unpack.take(piece)
                    budget.take(unpack.held - counted)
                    counted = unpack.held
        except TimeoutError as late:
            raise Refusal(
                400, "slow_body", f"the body took longer than {seconds:g} s", close=True
            ) from late
        yield unpack.whole()
    finally:
        budget.give(counted)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"the body is larger than {limit:,} bytes", close=True)


class _Plain:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()

    @property
    def held(self) -> int:
        return len(self._held)

    def take(self, piece: bytes) -> None:
        if len(self._held) + len(piece) > self._limit:
            raise _too_large(self._limit)
        self._held += piece

    def whole(self) -> bytes:
        return bytes(self._held)


class _Gunzip(_Plain):
    """Unpacks as pieces arrive, never more than a byte beyond the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._begin()

    def _begin(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def take(self, piece: bytes) -> None:
        try:
            while piece:
                if self._stream.eof:  # a file of several members is their texts in a row
                    self._begin()
                super().take(self._stream.decompress(piece, self._limit - len(self._held) + 1))
                piece = (
                    self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
                )
        except zlib.error as damage:
            raise Refusal(
                400, "damaged_gzip", f"the body is not gzip: {damage}", close=True
            ) from damage

    def whole(self) -> bytes:
        if not self._stream.eof:
            raise Refusal(400, "damaged_gzip", "the body is not gzip: it ends too early")
        return super().whole()
