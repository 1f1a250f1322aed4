"""Middleware around every route: request ids, logs, metrics, errors as JSON, and a bound on the
number of requests in work.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemix.serving.http.messages import ApiError
from hemix.serving.http.service import ClientGone
from hemix.serving.idle_maintenance import IdleMaintenance
from hemix.serving.json_logging import log_record
from hemix.serving.metrics import Metrics

__all__ = ["RequestMiddleware", "exception_handlers"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_PROBES = ("/healthz", "/readyz", "/metrics")
"""Always admitted, so that a busy server does not look dead; logged at level debug"""
_CLIENT_CLOSED_REQUEST = 499


class RequestMiddleware:
    """The outermost layer of the server, in plain ASGI.

    It admits a bounded number of requests, probes apart, and answers others with 503. It answers
    HEAD as GET without the body.
    """

    def __init__(
        self, app: Starlette, metrics: Metrics, max_requests: int, idle: IdleMaintenance
    ) -> None:
        """Wrap an application.

        Args:
            app: The application, with its routes.
            metrics: Counts requests.
            max_requests: Maximum requests in work.
            idle: Counts requests in work.
        """
        self._app = app
        self._paths: dict[Any, str] = {
            route.endpoint: route.path for route in app.routes if isinstance(route, Route)
        }
        self._metrics = metrics
        self._max_requests = max_requests
        self._idle = idle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in _PROBES:
            await self._handle(self._app, scope, receive, send)
            return
        self._idle.request_started()
        try:
            full = self._idle.active_requests > self._max_requests
            await self._handle(self._refuse if full else self._app, scope, receive, send)
        finally:
            self._idle.request_finished()

    async def _handle(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        started, method = time.perf_counter(), scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        given_id = Headers(scope=scope).get("x-request-id", "")
        request_id = given_id if _REQUEST_ID.fullmatch(given_id) else uuid.uuid4().hex
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["facts"] = {}
        status = 0

        async def send_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            await app(scope, receive, send_response)
        except Exception:
            if status == 0:
                raise
            # Starlette raises what _handle_defect has answered and logged
        finally:
            self._record(scope, method, status, (time.perf_counter() - started) * 1000)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"{self._max_requests:,} requests are in work; try again"
        error = ApiError(503, "overloaded", message, retry_after=1, close=True)
        response = await _handle_api_error(Request(scope), error)
        await response(scope, receive, send)

    def _record(self, scope: Scope, method: str, status: int, took_ms: float) -> None:
        route = self._paths.get(scope.get("endpoint"), "unknown")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(took_ms / 1000)
        facts = scope["state"]["facts"]
        if "code" in facts:
            self._metrics.refused.labels(facts["code"]).inc()
        log_record(
            "request",
            level=logging.DEBUG if route in _PROBES and status == 200 else logging.INFO,
            request_id=scope["state"]["request_id"],
            method=method,
            path=scope["path"][:256],
            status=status,
            took_ms=round(took_ms, 2),
            **facts,
        )


def exception_handlers() -> dict[Any, Any]:
    """Return the handler of every exception class, for the application."""
    return {
        ApiError: _handle_api_error,
        HTTPException: _handle_http_exception,
        ClientGone: _handle_client_gone,
        ClientDisconnect: _handle_client_gone,
        Exception: _handle_defect,
    }


async def _handle_api_error(request: Request, error: ApiError) -> Response:
    request.state.facts |= {"code": error.code}
    if error.field:
        request.state.facts |= {"field": error.field[:200]}
    return Response(
        error.body(request.state.request_id),
        error.http_status,
        error.headers(),
        media_type="application/json",
    )


async def _handle_http_exception(request: Request, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    api_error = ApiError(error.status_code, code, str(error.detail))
    response = await _handle_api_error(request, api_error)
    response.headers.update(error.headers or {})
    return response


async def _handle_client_gone(request: Request, _error: Exception) -> Response:
    request.state.facts["gone"] = True
    return Response(status_code=_CLIENT_CLOSED_REQUEST)  # for the log and the metrics


async def _handle_defect(request: Request, error: Exception) -> Response:
    log_record("defect", level=logging.ERROR, error=error, request_id=request.state.request_id)
    message = "the server has a defect; its log has the details"
    return await _handle_api_error(request, ApiError(500, "internal", message))
