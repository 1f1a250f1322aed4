"""The client of the ranking server with connections that stay open, one a thread: thousands of
small rankings in a row.
"""

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

__all__ = ["SteadyClient"]


class SteadyClient(Client):
    """As :class:`hemix.client.Client`; a server that says 503 is not asked again here, that is the
    caller's to decide.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout_seconds: float = 10.0
    ) -> None:
        super().__init__(url, token=token, timeout_seconds=timeout_seconds)
        self._parts = urlsplit(self.url)
        self._own = threading.local()

    def _call(
        self, method: str, path: str, body: Any = None, *, retry: bool = True
    ) -> dict[str, Any]:
        data = (
            None
            if body is None
            else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        )
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        fresh = connection is None
        if connection is None:
            kind = (
                http.client.HTTPSConnection
                if self._parts.scheme == "https"
                else http.client.HTTPConnection
            )
            connection = self._own.connection = kind(self._parts.netloc, timeout=self._timeout)
        try:
            connection.request(method, self._parts.path + path, body=data, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status < 300:
                found: dict[str, Any] = json.loads(content)
                return found
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            self._own.connection = None
            if (
                not fresh and retry and not isinstance(error, TimeoutError)
            ):  # the server had closed what was kept open
                return self._call(method, path, body, retry=False)
            raise ServerError(f"{self.url}{path}: no answer: {error}") from error
        refused = urllib.error.HTTPError(
            self.url + path, answer.status, answer.reason, answer.headers, io.BytesIO(content)
        )
        with refused:
            raise server_error(path, refused)
