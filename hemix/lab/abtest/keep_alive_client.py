"""A client of the ranking server that keeps one connection open per thread."""

from __future__ import annotations

import http.client
import io
import json
import threading
import urllib.error
from typing import Any
from urllib.parse import urlsplit

from hemix.client import Client, server_error
from hemix.errors import ServerError

__all__ = ["KeepAliveClient"]


class KeepAliveClient(Client):
    """Call a server as :class:`hemix.client.Client` does, but reuse connections.

    It does not retry after a status of 503; that is left to the caller.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout_seconds: float = 10.0
    ) -> None:
        super().__init__(url, token=token, timeout_seconds=timeout_seconds)
        self._url_fields = urlsplit(self.url)
        self._thread = threading.local()

    def _call(
        self, method: str, path: str, body: Any = None, *, retry: bool = True
    ) -> dict[str, Any]:
        data = _encode(body)
        is_reused = getattr(self._thread, "connection", None) is not None
        connection = self._connection()
        try:
            url_path = self._url_fields.path + path
            connection.request(method, url_path, body=data, headers=self._headers(body))
            response = connection.getresponse()
            content = response.read()
            if response.status < 300:
                answer: dict[str, Any] = json.loads(content)
                return answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            self._thread.connection = None
            # the server may have closed a connection that was idle
            if is_reused and retry and not isinstance(error, TimeoutError):
                return self._call(method, path, body, retry=False)
            raise ServerError(f"{self.url}{path}: no answer: {error}", code="no_answer") from error
        http_error = urllib.error.HTTPError(
            self.url + path,
            response.status,
            response.reason,
            response.headers,
            io.BytesIO(content),
        )
        with http_error:
            raise server_error(path, http_error)

    def _connection(self) -> http.client.HTTPConnection:
        """The open connection of this thread, or a new one."""
        connection: http.client.HTTPConnection | None = getattr(self._thread, "connection", None)
        if connection is None:
            is_https = self._url_fields.scheme == "https"
            kind = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
            connection = kind(self._url_fields.netloc, timeout=self._timeout)
            self._thread.connection = connection
        return connection

    def _headers(self, body: Any) -> dict[str, str]:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers


def _encode(body: Any) -> bytes | None:
    if body is None:
        return None
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
