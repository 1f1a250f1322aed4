"""Admission of requests: tokens, origins, and bodies that are read within limits of size and time.

A body, compressed or not, never takes more memory than its limit and one chunk of the socket; all
bodies together never take more than a budget.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from starlette.requests import Request

from hemix.errors import UsageError
from hemix.serving.http.messages import ApiError

__all__ = ["Access", "BodyBudget", "check_host", "read_body"]


def check_host(host: str, *, token: bool) -> None:
    """Refuse an address that other machines can reach, unless the server has a token.

    Args:
        host: Address to listen on.
        token: Whether the server has a token.

    Raises:
        UsageError: Other machines can reach the address, and there is no token.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not token:
        raise UsageError(
            f"--host {host}: other machines can reach it: give a --token-file, or listen on "
            "127.0.0.1",
            field="--host",
        )


class Access:
    """Access by token.

    Tokens are compared in constant time, never logged, and stored as digests only. The admin token
    opens every route; without a user token all routes except the admin's are open.
    """

    def __init__(self, token: str | None = None, admin_token: str | None = None) -> None:
        """Set the tokens.

        Args:
            token: Token of users; None: none is needed.
            admin_token: Token for loading versions; None: nobody may.
        """
        self._user = _digest(token) if token is not None else None
        self._admin = _digest(admin_token) if admin_token is not None else None

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Refuse pages of other sites where the server has no token.

        Such a server relies on being reachable from its own machine only, which a browser on this
        machine bypasses. Where there is a token, other pages do not know it.

        Args:
            origin: Header ``Origin``.
            host: Header ``Host``.

        Raises:
            ApiError: 403.
        """
        if self._user is None and origin is not None and _site(origin) != (host or None):
            raise ApiError(
                403,
                "cross_origin",
                "a page of another site sent this; a server without a token answers its own pages "
                "only",
            )

    def check(self, authorization: str | None, *, admin: bool = False) -> None:
        """Require a token.

        Args:
            authorization: Header ``Authorization``: ``Bearer TOKEN``.
            admin: Whether the route needs the admin token.

        Raises:
            ApiError: 401.
        """
        if admin and self._admin is None:
            raise ApiError(
                401, "no_admin", "this server has no admin token: start it with --admin-token-file"
            )
        if not admin and self._user is None:
            return
        scheme, _, token = (authorization or "").partition(" ")
        digest = _digest(token.strip()) if scheme.lower() == "bearer" else b""
        is_admin = hmac.compare_digest(digest, self._admin or b"-")
        is_user = hmac.compare_digest(digest, self._user or b"-")
        if not (is_admin or (is_user and not admin)):
            raise ApiError(
                401,
                "unauthorized",
                "expected a header Authorization: Bearer TOKEN with a token of this server",
            )


def _site(origin: str) -> str:
    """Return host and port of an ``Origin``; empty for ``null`` and for what is no URL."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class BodyBudget:
    """Memory for the bodies of all requests in work. For one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used_bytes = 0

    def acquire(self, count: int) -> None:
        """Take ``count`` bytes.

        Raises:
            ApiError: 503; the budget is exhausted.
        """
        if self.used_bytes + count > self._max_bytes:
            raise ApiError(
                503,
                "overloaded",
                f"bodies of {self._max_bytes:,} bytes are in work; try again",
                retry_after=1,
                close=True,
            )
        self.used_bytes += count

    def release(self, count: int) -> None:
        """Return ``count`` bytes."""
        self.used_bytes -= count


@asynccontextmanager
async def read_body(
    request: Request, *, limit: int, seconds: float, budget: BodyBudget
) -> AsyncIterator[bytes]:
    """Read the whole body, decompressed; the budget counts it until the block ends.

    Args:
        request: The request.
        limit: Maximum decompressed bytes.
        seconds: Maximum time for the body to arrive.
        budget: Memory of all bodies.

    Raises:
        ApiError: 413 for a larger body; 400 for an encoding other than gzip, damaged gzip or a
            slow body; 503 where the budget is exhausted.
        starlette.requests.ClientDisconnect: The client has closed the connection.
    """
    decoder = _decoder(request, limit)
    counted = 0
    try:
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    decoder.add(chunk)
                    budget.acquire(decoder.size - counted)
                    counted = decoder.size
        except TimeoutError as timeout:
            message = f"the body took longer than {seconds:g} s"
            raise ApiError(400, "slow_body", message, close=True) from timeout
        yield decoder.finish()
    finally:
        budget.release(counted)


def _decoder(request: Request, limit: int) -> _PlainBody:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        message = f"content-encoding {encoding[:40]!r}: expected gzip or none"
        raise ApiError(400, "unknown_encoding", message, close=True)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    return _GzipBody(limit) if encoding == "gzip" else _PlainBody(limit)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "too_large", f"the body is larger than {limit:,} bytes", close=True)


class _PlainBody:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._content = bytearray()

    @property
    def size(self) -> int:
        return len(self._content)

    def add(self, chunk: bytes) -> None:
        if len(self._content) + len(chunk) > self._limit:
            raise _too_large(self._limit)
        self._content += chunk

    def finish(self) -> bytes:
        return bytes(self._content)


class _GzipBody(_PlainBody):
    """Decompresses each chunk as it arrives, at most one byte beyond the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._stream = _gzip_stream()

    def add(self, chunk: bytes) -> None:
        try:
            while chunk:
                if self._stream.eof:  # gzip members may be concatenated
                    self._stream = _gzip_stream()
                room = self._limit - len(self._content) + 1
                super().add(self._stream.decompress(chunk, room))
                stream = self._stream
                chunk = stream.unused_data if stream.eof else stream.unconsumed_tail
        except zlib.error as error:
            message = f"the body is not gzip: {error}"
            raise ApiError(400, "damaged_gzip", message, close=True) from error

    def finish(self) -> bytes:
        if not self._stream.eof:
            raise ApiError(400, "damaged_gzip", "the body is not gzip: it ends too early")
        return super().finish()


def _gzip_stream() -> zlib._Decompress:
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
