"""The playground's page, the page of the API, and the two answers that only they need."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from hemix.data.history import find_history_ranges
from hemix.data.spec import TIMELESS_MS
from hemix.errors import StoreError
from hemix.serving.http.refusal import Refusal
from hemix.serving.http.service import Service
from hemix.serving.known import known

__all__ = ["add_playground"]

_SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src "
    "'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


def add_playground(app: FastAPI, service: Service) -> None:
    """``/``, ``/docs``, ``/v1/playground`` and ``/v1/users/{user}/history``."""
    pages = {
        name: files("hemix.serving.http").joinpath("pages", name).read_bytes()
        for name in ("playground.html", "docs.html")
    }

    @app.get("/")
    async def _page() -> Response:
        return Response(pages["playground.html"], headers=_SAFE, media_type="text/html")

    @app.get("/docs")
    async def _docs() -> Response:
        return Response(pages["docs.html"], headers=_SAFE, media_type="text/html")

    @app.get("/v1/playground")
    async def _suggestions(request: Request) -> Response:
        service.access.check(request.headers.get("authorization"))
        model = request.query_params.get("model")
        return Response(
            (await service.store_gate.run(lambda: _suggest(service, model))).value,
            media_type="application/json",
        )

    @app.get("/v1/users/{user:path}/history")  # an id may hold a slash
    async def _history(request: Request, user: str) -> Response:
        service.access.check(request.headers.get("authorization"))
        model = request.query_params.get("model")
        return Response(
            (await service.store_gate.run(lambda: _read(service, model, user))).value,
            media_type="application/json",
        )


def _unknown(model: str | None) -> Refusal:
    return Refusal(
        404, "unknown_model", f"no model {model!r}; GET /v1/models lists them", field="model"
    )


def _suggest(service: Service, model: str | None) -> bytes:
    with service.models.lease(model) as served:
        if served is None:
            raise _unknown(model)
        schema = served.ranker.schema
        content: dict[str, Any] = {
            "model": served.name,
            "version": served.version,
            "outputs": schema.outputs,
            "score": schema.score_expression.text,
            **known(served.folder, schema),
        }
        return msgspec.json.encode(content)


def _read(service: Service, model: str | None, user: str) -> bytes:
    """A user's history as a ranking at this moment would see it."""
    with service.models.lease(model) as served:
        if served is None:
            raise _unknown(model)
        schema = served.ranker.schema
    lengths = schema.history
    try:
        history = service.store.history(user, limit=lengths.global_length + lengths.realtime_length)
    except StoreError as error:
        raise Refusal(503, "store_unavailable", str(error), retry_after=1) from error
    times = np.array([event.time_ms for event in history.events], dtype=np.int64)
    now_ms = int(time.time() * 1000) + 1  # as a ranking's
    first, last, now = (np.array([value], dtype=np.int64) for value in (0, len(times), now_ms))
    [[begin, realtime, end]] = find_history_ranges(
        times, first, last, now, lengths, schema.clock.timezone, delay_ms=0
    ).tolist()
    events = [
        {
            "id": event.id,
            "item": event.item,
            "type": event.action,
            "timestamp": event.time_ms if event.time_ms != TIMELESS_MS else None,
            "part": "realtime" if i >= realtime else "global",
            "fields": event.fields,
        }
        for i, event in enumerate(history.events)
        if begin <= i < end
    ]
    return msgspec.json.encode(
        {"user": user, "revision": history.revision, "now": now_ms, "events": events}
    )
