"""The routes. Each reads, asks for work in a thread, and answers; the work itself is elsewhere."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from hemix.errors import RunError, StoreError, UsageError
from hemix.serving.http.body import body_of
from hemix.serving.http.edge import Edge, handlers
from hemix.serving.http.events import read_events
from hemix.serving.http.openapi import describe
from hemix.serving.http.playground import add_playground
from hemix.serving.http.ranking import answer, rank, read_request
from hemix.serving.http.refusal import Refusal
from hemix.serving.http.service import Service
from hemix.serving.types import Ranking

__all__ = ["make_app"]


def make_app(service: Service) -> ASGIApp:
    """The whole server as an ASGI application; it closes ``service`` when it shuts down."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="hemix",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        exception_handlers=handlers(),
        redirect_slashes=False,
    )
    _add_ranking(app, service)
    _add_models(app, service)
    _add_health(app, service)
    add_playground(app, service)
    return Edge(app, service.metrics, service.limits.requests, service.quiet)


def gone(request: Request) -> Callable[[], Awaitable[None]]:
    """Returns when the client has hung up. Only after the body was read."""

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return wait


def _body(request: Request, service: Service) -> AbstractAsyncContextManager[bytes]:
    service.access.check(request.headers.get("authorization"))
    service.access.check_origin(request.headers.get("origin"), request.headers.get("host"))
    limits = service.limits
    return body_of(request, limit=limits.body_bytes, seconds=limits.body_seconds, budget=service.bodies)


def _json(content: bytes, **headers: str) -> Response:
    return Response(content, headers=headers, media_type="application/json")


def _timed(content: bytes, stages_ms: Mapping[str, float]) -> Response:
    timing = ", ".join(f"{name};dur={took:.2f}" for name, took in stages_ms.items())
    return _json(content, **{"Server-Timing": timing})


def _add_ranking(app: FastAPI, service: Service) -> None:
    limits, metrics = service.limits, service.metrics

    @app.post("/v1/rank")
    async def _rank(request: Request) -> Response:
        began = time.perf_counter()
        async with _body(request, service) as body:
            return await ranked(request, body, (time.perf_counter() - began) * 1000)

    async def ranked(request: Request, body: bytes, read_ms: float) -> Response:
        request_id = request.state.request_id
        stages: dict[str, float] = {}

        def work() -> tuple[Ranking, bytes]:
            at = time.perf_counter()
            message = read_request(body, limits)
            stages["decode"] = (time.perf_counter() - at) * 1000
            ranking = rank(message, service.models, limits, request_id)
            at = time.perf_counter()
            written = answer(ranking, explain=message.explain)
            stages["answer"] = (time.perf_counter() - at) * 1000
            return ranking, written

        done = await service.rank_gate.run(work, gone(request))
        ranking, written = done.value
        metrics.ranked(ranking, done.waited_ms)
        request.state.facts |= {"ranking": ranking.id, "items": len(ranking.items), "model": ranking.model}
        if ranking.degraded:
            request.state.facts["degraded"] = ranking.degraded
        stages = {"body": read_ms, **stages, "queue": done.waited_ms, **ranking.stages_ms}
        return _timed(written, stages)

    @app.post("/v1/events")
    async def _events(request: Request) -> Response:
        began = time.perf_counter()
        async with _body(request, service) as body:
            return await stored(request, body, began)

    async def stored(request: Request, body: bytes, began: float) -> Response:
        stages = {"body": (time.perf_counter() - began) * 1000}

        def work() -> bytes:
            at = time.perf_counter()
            taken = read_events(body, service.models.checks(), limits)
            stages["decode"] = (time.perf_counter() - at) * 1000
            at = time.perf_counter()
            try:
                new = service.store.append(taken.events) if taken.events else []
            except StoreError as error:
                metrics.store_errors.labels("events").inc()
                message = f"the store did not confirm that it took them; send them again: {error}"
                raise Refusal(503, "store_unavailable", message, retry_after=1) from error
            stages["store"] = (time.perf_counter() - at) * 1000
            accepted = sum(new)
            newest_ms = max((event.time_ms for event, fresh in zip(taken.events, new, strict=True) if fresh), default=0)
            metrics.accepted(newest_ms, accepted, len(new) - accepted, len(taken.rejected))
            metrics.unusable(taken.unusable)
            request.state.facts |= {"accepted": accepted, "rejected": len(taken.rejected)}
            took_ms = round((time.perf_counter() - began) * 1000, 3)
            content = {"accepted": accepted, "duplicate": len(new) - accepted, "rejected": taken.rejected, "took_ms": took_ms}
            return msgspec.json.encode(content)

        done = await service.store_gate.run(work, gone(request))
        return _timed(done.value, {**stages, "queue": done.waited_ms})


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def _models(request: Request) -> Response:
        service.access.check(request.headers.get("authorization"))
        return _json(msgspec.json.encode({"models": service.models.facts()}))

    @app.post("/v1/models/{name}/versions/{version}:load")
    async def _load(request: Request, name: str, version: str) -> Response:
        service.access.check(request.headers.get("authorization"), admin=True)

        def work() -> bytes | None:
            facts = service.models.load(name, version)
            return msgspec.json.encode(facts) if facts is not None else None

        try:
            loaded = (await service.admin_gate.run(work)).value
        except UsageError as error:
            named = str(error).partition(":")[0]  # which of the two cannot be one; neither where there is no registry
            raise Refusal(422, "invalid", str(error), field=named if named in ("name", "version") else None) from error
        except RunError as error:
            missing = "no such version" in str(error)
            status, code = (404, "unknown_version") if missing else (422, "broken_version")
            raise Refusal(status, code, str(error), field="version") from error
        if loaded is None:
            raise Refusal(429, "busy_loading", "another version is being loaded", retry_after=5)
        return _json(loaded)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def _alive() -> Response:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz")
    async def _ready() -> Response:
        checks: dict[str, Any] = {"models": len(service.models.facts()) > 0, "warm": True}
        try:
            problem = (await service.probe_gate.run(service.ping_store)).value
        except Refusal as slow:
            problem = slow.message
        checks["store"] = problem is None
        ready = all(checks.values())
        content = {"ready": ready, "checks": checks, "problem": problem}
        return JSONResponse(content, 200 if ready else 503, {} if ready else {"Retry-After": "1"})

    @app.get("/metrics")
    async def _metrics() -> Response:
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json")
    async def _openapi() -> Response:
        return _json(describe(service.limits, list(service.models.checks().values())))
