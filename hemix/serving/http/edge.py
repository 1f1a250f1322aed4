"""Around every route: request ids, logs, metrics, errors as JSON, and a bound on the requests in
work.

Plain ASGI. Knows no route.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemix.serving.http.gate import ClientGone
from hemix.serving.http.logs import say
from hemix.serving.http.metrics import Metrics
from hemix.serving.http.refusal import Refusal, error_body
from hemix.serving.quiet import Quiet

__all__ = ["Edge", "handlers"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_PROBES = ("/healthz", "/readyz", "/metrics")
"""Seldom logged, and always let in: a server that is busy is not dead"""


class Edge:
    """The outermost layer of the server: at most ``most`` requests at a time, probes apart; the
    rest is refused with 503. HEAD is answered as GET, without the body."""

    def __init__(self, app: ASGIApp, metrics: Metrics, most: int, inside: Quiet) -> None:
        self._app = app
        self._metrics = metrics
        self._most = most
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, method = time.perf_counter(), scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["facts"] = {}
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        counts = scope["path"] not in _PROBES
        if counts:
            self._inside.begin()
        try:
            await (self._full if counts and self._inside.working > self._most else self._app)(
                scope, receive, answer
            )
        except Exception:
            if status == 0:
                raise
            # answered with 500 and logged already; Starlette raises it once more
        finally:
            try:
                self._told(scope, method, status, (time.perf_counter() - began) * 1000)
            finally:
                if counts:
                    self._inside.end()

    async def _full(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"{self._most:,} requests are in work; try again"
        refusal = Refusal(503, "overloaded", message, retry_after=1, close=True)
        await (await _refused(Request(scope), refusal))(scope, receive, send)

    def _told(self, scope: Scope, method: str, status: int, took_ms: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(took_ms / 1000)
        facts = scope["state"]["facts"]
        if "code" in facts:
            self._metrics.refused.labels(facts["code"]).inc()
        say(
            "request",
            level=logging.DEBUG if route in _PROBES and status == 200 else logging.INFO,
            request_id=scope["state"]["request_id"],
            method=method,
            path=scope["path"][:256],
            status=status,
            took_ms=round(took_ms, 2),
            **facts,
        )


def handlers() -> dict[Any, Any]:
    """Exceptions to answers, for the app."""
    return {
        Refusal: _refused,
        HTTPException: _http,
        ClientGone: _gone,
        ClientDisconnect: _gone,
        Exception: _defect,
    }


def _answer(
    request: Any, status: int, code: str, message: str, field: str | None, headers: dict[str, str]
) -> Response:
    request.state.facts |= {"code": code} | ({"field": field[:200]} if field else {})
    body = error_body(code, message, field, request.state.request_id)
    return Response(body, status, headers, media_type="application/json")


async def _refused(request: Any, refusal: Refusal) -> Response:
    return _answer(
        request, refusal.status, refusal.code, refusal.message, refusal.field, refusal.headers()
    )


async def _http(request: Any, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    return _answer(
        request, error.status_code, code, str(error.detail), None, dict(error.headers or {})
    )


async def _gone(request: Any, _error: Exception) -> Response:
    request.state.facts["gone"] = True
    return Response(status_code=499)  # nobody reads it; the log and the metrics do


async def _defect(request: Any, error: Exception) -> Response:
    say("defect", level=logging.ERROR, error=error, request_id=request.state.request_id)
    return _answer(
        request, 500, "internal", "the server has a defect; its log has the details", None, {}
    )
