"""A client of the ranking server, on the standard library alone.

Requests and responses are those of docs/reference/serving-api.md::

    client = hemix.Client("http://127.0.0.1:8080")
    client.rank("u1", ["i1", "i2"])["items"][0]["id"]
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from hemix.connections import Connections, Response
from hemix.errors import ServerError, UsageError

__all__ = ["Client", "RankOptions"]

_MAX_RETRY_AFTER_SECONDS = 5.0


class RankOptions(TypedDict, total=False):
    """Optional fields of a ranking request; None leaves a field out."""

    context: Mapping[str, Any] | None
    """Values of the context columns."""
    model: str | None
    """Name of the model; by default the server's default model."""
    timestamp: int | None
    """Time of the request, ms UTC; by default now."""
    id: str | None
    """Id of the ranking; by default the server makes one."""
    explain: bool
    """Whether the response explains the scores."""
    history: Mapping[str, Sequence[Mapping[str, Any]]] | None
    """``{"global", "realtime"}`` events in place of the store's."""


class Client:
    """One server. Safe from many threads; calls reuse open :class:`Connections`.

    A call that a busy server refuses (503) is sent a second time, after its ``Retry-After``.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        token: str | None = None,
        timeout_seconds: float = 10.0,
    ) -> None:
        """Take the address of a server; connects with the first call.

        Args:
            url: ``http://HOST:PORT`` or ``https://HOST:PORT``.
            token: Bearer token, for a server that needs one.
            timeout_seconds: Of every call.

        Raises:
            UsageError: ``url`` is not an address.
        """
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = timeout_seconds
        try:
            self._connections = Connections(self.url)
        except ValueError as error:
            raise UsageError(
                f"url {url!r}: expected http://HOST:PORT or https://HOST:PORT: {error}",
                field="url",
            ) from error

    def rank(
        self,
        user: str,
        items: Iterable[str | Mapping[str, Any]],
        **options: Unpack[RankOptions],
    ) -> dict[str, Any]:
        """Rank items for a user: POST /v1/rank.

        Args:
            user: The user's id.
            items: Ids of the candidates, or ``{"id", "fields"}``.
            **options: Fields of :class:`RankOptions`.

        Returns:
            The response: ``items`` with ``id`` and ``score``, the best first.

        Raises:
            ServerError: The server refused the request, or did not answer.
            UsageError: A value is not JSON, such as NaN.
            TypeError: An option that :class:`RankOptions` does not have.
        """
        unknown = sorted(options.keys() - RankOptions.__annotations__.keys())
        if unknown:
            raise TypeError(f"Client.rank() got an unexpected keyword argument {unknown[0]!r}")
        body: dict[str, Any] = {
            "user": user,
            "items": [{"id": item} if isinstance(item, str) else dict(item) for item in items],
        }
        body |= {name: value for name, value in options.items() if value is not None}
        if not body.get("explain"):
            body.pop("explain", None)
        return self._call("POST", "/v1/rank", body)

    def events(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Send events: POST /v1/events.

        Sending events again is safe. After an error the server stored none of them, or all where
        the response was lost.

        Returns:
            How many events were accepted and duplicates, and which were rejected, with the reason.

        Raises:
            ServerError: The server refused the request, or did not answer.
        """
        return self._call("POST", "/v1/events", list(events))

    def models(self) -> list[dict[str, Any]]:
        """The loaded models. Raises ServerError."""
        models: list[dict[str, Any]] = self._call("GET", "/v1/models")["models"]
        return models

    def load(self, name: str, version: str, *, timeout_seconds: float = 600.0) -> dict[str, Any]:
        """Load a version of a model from the server's registry and serve it.

        Args:
            name: Name of the model.
            version: Version in the registry.
            timeout_seconds: Of the call, which lasts until the model is loaded and warm.

        Returns:
            The response.

        Raises:
            ServerError: The server refused the request (the token must be the admin's), or did not
                answer.
        """
        path = f"/v1/models/{quote(name, safe='')}/versions/{quote(version, safe='')}:load"
        return self._call("POST", path, {}, timeout_seconds=timeout_seconds)

    def ready(self) -> bool:
        """Whether the server is reachable, has its models and reaches its store."""
        try:
            return bool(self._call("GET", "/readyz", retry=False)["ready"])
        except ServerError:
            return False

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        retry: bool = True,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Send a request, once more where the server is busy and ``retry`` is set."""
        try:
            data = (
                None
                if body is None
                else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise UsageError(f"{path}: the body cannot be JSON: {error}", field="body") from error
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            response = self._connections.send(
                method, path, data, headers, timeout_seconds=timeout_seconds or self._timeout
            )
            if response.status < 300:
                content: dict[str, Any] = json.loads(response.content)
                return content
        except (OSError, HTTPException, ValueError) as error:
            raise ServerError(f"{self.url}{path}: no answer: {error}", code="no_answer") from error
        failure = _server_error(path, response)
        if response.status == 503 and retry:
            time.sleep(min(failure.retry_after or 1.0, _MAX_RETRY_AFTER_SECONDS))
            return self._call(method, path, body, retry=False, timeout_seconds=timeout_seconds)
        raise failure


def _server_error(path: str, response: Response) -> ServerError:
    """Convert the response of a refused request to the error to raise, with the server's fields."""
    try:
        details = json.loads(response.content)["error"]
        code, message, field, request_id = (
            details.get(key) for key in ("code", "message", "field", "request_id")
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        code, message, field, request_id = None, response.reason, None, None
    retry_after = response.headers.get("Retry-After", "")
    return ServerError(
        f"{path}: {response.status} {code or ''}: {f'{field}: ' if field else ''}{message} "
        f"(request {request_id})",
        status=response.status,
        code=code,
        field=field,
        request_id=request_id,
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )
