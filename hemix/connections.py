"""HTTP connections that stay open, on the standard library alone."""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
import urllib.request
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit

__all__ = ["Connections", "Response"]


@dataclass(frozen=True)
class Response:
    """The response to a request."""

    status: int
    reason: str
    headers: Message
    content: bytes


class Connections:
    """Open connections to one server, which requests reuse. Safe from many threads.

    A proxy of the environment is used, but not for a server on this machine. The connections close
    when the object is no longer referenced.
    """

    def __init__(self, url: str) -> None:
        """Take the address of a server; connects with the first request.

        Args:
            url: ``http://HOST:PORT`` or ``https://HOST:PORT``, with or without a path.

        Raises:
            ValueError: ``url`` is not an address.
        """
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
            raise ValueError("not an address")
        self._host, self._is_https = address.netloc, address.scheme == "https"
        self._proxy = None if _is_loopback(address.hostname) else _environment_proxy(url)
        by_proxy = self._proxy is not None and not self._is_https
        self._base = url if by_proxy else address.path
        self._headers = _proxy_headers(self._proxy) if by_proxy else {}
        self._idle: deque[HTTPConnection] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_seconds: float = 10.0,
    ) -> Response:
        """Send a request; a connection that the server has closed while idle is replaced.

        Args:
            method: The method, such as ``POST``.
            path: The path, appended to the URL.
            content: The body.
            headers: Headers.
            timeout_seconds: Of connecting, and of every read.

        Raises:
            OSError, http.client.HTTPException: There is no response.
        """
        all_headers = {**(headers or {}), **self._headers}
        while True:
            connection, is_reused = self._take(timeout_seconds)
            try:
                connection.request(method, self._base + path, content, all_headers)
                response = connection.getresponse()
                body = response.read()
            except BaseException as error:
                connection.close()
                if is_reused and isinstance(error, ConnectionError):
                    continue
                raise
            self._idle.append(connection)
            return Response(response.status, response.reason, response.headers, body)

    def _take(self, timeout_seconds: float) -> tuple[HTTPConnection, bool]:
        """Return an idle or a new connection, and whether it was idle."""
        try:
            connection, is_reused = self._idle.pop(), True
        except IndexError:
            connection, is_reused = self._connection(), False
        connection.timeout = timeout_seconds
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        return connection, is_reused

    def _connection(self) -> HTTPConnection:
        kind = HTTPSConnection if self._is_https else HTTPConnection
        if self._proxy is None:
            return kind(self._host)
        connection = kind(self._proxy.hostname or "", self._proxy.port)
        if self._is_https:
            connection.set_tunnel(self._host, headers=_proxy_headers(self._proxy))
        return connection


def _close_all(connections: deque[HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def _environment_proxy(url: str) -> SplitResult | None:
    """Return the proxy that the environment names for a server, or None."""
    address = urlsplit(url)
    proxy = urllib.request.getproxies().get(address.scheme)
    if not proxy or urllib.request.proxy_bypass(address.netloc):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _proxy_headers(proxy: SplitResult | None) -> dict[str, str]:
    """Return the headers that a proxy with user and password needs."""
    if proxy is None or proxy.username is None:
        return {}
    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def _is_loopback(hostname: str) -> bool:
    """Whether a host is this machine, which no proxy reaches."""
    host = hostname.removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if re.fullmatch(r"[0-9a-fx.]+", host):
            return _is_short_loopback(host)
        return host == "localhost" or host.endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _is_short_loopback(host: str) -> bool:
    """Whether a shortened IPv4 address, such as 127.1, is this machine's."""
    try:
        address = ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return False
    return address.is_loopback or address.is_unspecified
