"""A client of the ranking server, on the standard library alone.

    client = hemix.Client("http://127.0.0.1:8080") client.events([{"event": "interaction", "id":
    "e1", "user": "u1", "item": "i9", "type": "click"}]) client.rank("u1", ["i1",
    "i2"])["items"][0]["id"]

Bodies and answers are those of docs/serving.md. Knows no model.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from hemix.errors import ServerError, UsageError

__all__ = ["Client", "server_error"]

_RETRY_AFTER_MAX = 5.0


class Client:
    """One server. Safe from many threads; every call is a connection of its own. A proxy that the
    environment names is not used for a server on this machine."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        token: str | None = None,
        timeout_seconds: float = 10.0,
    ) -> None:
        if not url.lower().startswith(("http://", "https://")):
            raise UsageError(f"url {url!r}: expected http://HOST:PORT or https://HOST:PORT")
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = timeout_seconds
        try:
            proxies = [urllib.request.ProxyHandler({})] if _is_loopback(self.url) else []
        except ValueError as error:
            raise UsageError(
                f"url {url!r}: expected http://HOST:PORT or https://HOST:PORT: {error}"
            ) from error
        self._opener = urllib.request.build_opener(*proxies)

    def rank(
        self,
        user: str,
        items: Iterable[str | Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        model: str | None = None,
        timestamp: int | None = None,
        id: str | None = None,
        explain: bool = False,
        history: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> dict[str, Any]:
        """Items (ids, or ``{"id", "fields"}``) ranked for a user: POST /v1/rank.

        ``timestamp`` in ms UTC, by default now; ``history`` (``{"global", "realtime"}``) goes
        before the store's. Raises ServerError, and UsageError for what is not JSON, such as NaN.
        """
        body: dict[str, Any] = {
            "user": user,
            "items": [{"id": item} if isinstance(item, str) else dict(item) for item in items],
        }
        optional = {
            "context": context,
            "model": model,
            "timestamp": timestamp,
            "id": id,
            "history": history,
        }
        body |= {key: value for key, value in optional.items() if value is not None}
        if explain:
            body["explain"] = True
        return self._call("POST", "/v1/rank", body)

    def events(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Tell what happened: POST /v1/events.

        Returns how many were accepted and duplicates, and which were rejected, why. Raises
        ServerError; then none was taken, or, where the answer was lost, all; sending them again is
        safe.
        """
        return self._call("POST", "/v1/events", list(events))

    def models(self) -> list[dict[str, Any]]:
        """The models that serve. Raises ServerError."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/models")["models"]
        return found

    def load(self, name: str, version: str, *, timeout_seconds: float = 600.0) -> dict[str, Any]:
        """Let a version of the server's registry serve, which takes as long as reading and warming
        it up; needs the admin's token. Raises ServerError.
        """
        path = f"/v1/models/{quote(name, safe='')}/versions/{quote(version, safe='')}:load"
        return Client(self.url, token=self._token, timeout_seconds=timeout_seconds)._call(
            "POST", path, {}
        )

    def ready(self) -> bool:
        """Whether the server is reachable, has its models and reaches its store."""
        try:
            return bool(self._call("GET", "/readyz", again=False)["ready"])
        except ServerError:
            return False

    def _call(
        self, method: str, path: str, body: Any = None, *, again: bool = True
    ) -> dict[str, Any]:
        try:
            data = (
                None
                if body is None
                else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise UsageError(f"{path}: the body cannot be JSON: {error}") from error
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except urllib.error.HTTPError as error:
            with error:
                refusal = server_error(path, error)
            if error.code == 503 and again:
                time.sleep(min(refusal.retry_after or 1.0, _RETRY_AFTER_MAX))
                return self._call(method, path, body, again=False)
            raise refusal from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ServerError(f"{self.url}{path}: no answer: {reason}") from error


def _is_loopback(url: str) -> bool:
    """Whether a URL names this machine, which no proxy reaches."""
    host = (urlsplit(url).hostname or "").removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if re.fullmatch(r"[0-9a-fx.]+", host):
            return _is_short_loopback(host)
        return host == "localhost" or host.endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _is_short_loopback(host: str) -> bool:
    """Of an address in one of its shorter forms, such as 127.1, that names are resolved from
    too.
    """
    try:
        address = ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return False
    return address.is_loopback or address.is_unspecified


def server_error(path: str, error: urllib.error.HTTPError) -> ServerError:
    """What the server said of a request that it refused, as the error to raise."""
    try:
        found = json.load(error)["error"]
        code, message, field, request_id = (
            found.get(key) for key in ("code", "message", "field", "request_id")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        code, message, field, request_id = None, error.reason, None, None
    waits = error.headers.get("Retry-After", "")
    return ServerError(
        f"{path}: {error.code} {code or ''}: {f'{field}: ' if field else ''}{message} (request "
        f"{request_id})",
        status=error.code,
        code=code,
        field=field,
        request_id=request_id,
        retry_after=float(waits) if waits.isdecimal() else None,
    )
