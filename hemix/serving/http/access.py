"""Tokens: who may ask, and who may change what serves.

Compared in constant time, never logged, kept only as digests.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from hemix.errors import UsageError
from hemix.serving.http.refusal import Refusal

__all__ = ["Access", "check_host", "read_token"]


def read_token(path: Path, flag: str) -> str:
    """The token in a file.

    Raises UsageError naming the flag where there is none of at least 16 characters in one line.
    """
    try:
        token = path.read_text(
            encoding="utf-8-sig"
        ).strip()  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{flag} {path}: cannot be read: {getattr(error, 'strerror', None) or 'not text'}"
        ) from error
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{flag} {path}: expected one line of at least 16 ASCII characters without spaces"
        )
    return token


def check_host(host: str, *, token: bool) -> None:
    """Raises UsageError where a server without a token would be bound to more than this machine."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not token:
        raise UsageError(
            f"--host {host}: is reached from other machines: give a --token-file, or bind to "
            "127.0.0.1"
        )


class Access:
    """What the two tokens open."""

    def __init__(self, token: str | None = None, admin_token: str | None = None) -> None:
        self._user = _digest(token) if token is not None else None
        self._admin = _digest(admin_token) if admin_token is not None else None

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Raises Refusal 403 where a page of another site asks through a browser on this machine,
        whose only protection is that nobody else reaches it. Where there is a token, no other page
        knows it.
        """
        if self._user is None and origin is not None and _site(origin) != (host or None):
            raise Refusal(
                403,
                "cross_origin",
                "a page of another site asks; a server without a token answers its own pages alone",
            )

    def check(self, authorization: str | None, *, admin: bool = False) -> None:
        """Raises Refusal 401 unless ``Authorization: Bearer TOKEN`` opens it.

        The admin's token opens all; without a token set all but the admin's doors are open.
        """
        if admin and self._admin is None:
            raise Refusal(
                401, "no_admin", "this server has no admin token: start it with --admin-token-file"
            )
        if not admin and self._user is None:
            return
        kind, _, given = (authorization or "").partition(" ")
        digest = _digest(given.strip()) if kind.lower() == "bearer" else b""
        as_admin = hmac.compare_digest(digest, self._admin or b"-")
        as_user = hmac.compare_digest(digest, self._user or b"-")
        if not (as_admin or (as_user and not admin)):
            raise Refusal(
                401,
                "unauthorized",
                "expected a header Authorization: Bearer TOKEN with a token of this server",
            )


def _site(origin: str) -> str:
    """Host and port of a header ``Origin``; empty where it names none (``null``) or is no URL,
    which is no site of this server."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
