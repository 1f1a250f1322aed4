"""The routes. Each reads, asks for work in a thread, and answers; the work itself is elsewhere."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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
from hemix.serving.http.events import Taken, read_events
from hemix.serving.http.openapi import describe
from hemix.serving.http.playground import add_playground
from hemix.serving.http.ranking import answer, rank, read_request
from hemix.serving.http.refusal import Refusal
from hemix.serving.http.service import Service
from hemix.serving.types import Event, Ranking

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
    _add_events(app, service)
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
    return body_of(
        request, limit=limits.body_bytes, seconds=limits.body_seconds, budget=service.bodies
    )


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
        facts = {"ranking": ranking.id, "items": len(ranking.items), "model": ranking.model}
        request.state.facts |= facts
        if ranking.degraded:
            request.state.facts["degraded"] = ranking.degraded
        timing = {"body": read_ms, **stages, "queue": done.waited_ms, **ranking.stages_ms}
        return _timed(written, timing)


def _add_events(app: FastAPI, service: Service) -> None:
    @app.post("/v1/events")
    async def _events(request: Request) -> Response:
        began = time.perf_counter()
        async with _body(request, service) as body:
            return await stored(request, body, began)

    async def stored(request: Request, body: bytes, began: float) -> Response:
        stages = {"body": (time.perf_counter() - began) * 1000}

        def work() -> bytes:
            at = time.perf_counter()
            taken = read_events(body, service.models.checks(), service.limits)
            stages["decode"] = (time.perf_counter() - at) * 1000
            at = time.perf_counter()
            new = _append(service, taken.events)
            stages["store"] = (time.perf_counter() - at) * 1000
            _count_events(service, taken, new)
            accepted = sum(new)
            request.state.facts |= {"accepted": accepted, "rejected": len(taken.rejected)}
            content = {
                "accepted": accepted,
                "duplicate": len(new) - accepted,
                "rejected": taken.rejected,
                "took_ms": round((time.perf_counter() - began) * 1000, 3),
            }
            return msgspec.json.encode(content)

        done = await service.store_gate.run(work, gone(request))
        return _timed(done.value, {**stages, "queue": done.waited_ms})


def _append(service: Service, events: Sequence[Event]) -> Sequence[bool]:
    """Store events; returns which are new. Raises Refusal where the store did not confirm them."""
    try:
        return service.store.append(events) if events else []
    except StoreError as error:
        service.metrics.store_errors.labels("events").inc()
        message = f"the store did not confirm that it took them; send them again: {error}"
        raise Refusal(503, "store_unavailable", message, retry_after=1) from error


def _count_events(service: Service, taken: Taken, new: Sequence[bool]) -> None:
    """Count accepted, duplicate and rejected events, and the age of the newest."""
    times = (event.time_ms for event, fresh in zip(taken.events, new, strict=True) if fresh)
    accepted = sum(new)
    newest_ms = max(times, default=0)
    service.metrics.accepted(newest_ms, accepted, len(new) - accepted, len(taken.rejected))
    service.metrics.unusable(taken.unusable)


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
            named = str(error).partition(":")[
                0
            ]  # which of the two cannot be one; neither where there is no registry
            raise Refusal(
                422, "invalid", str(error), field=named if named in ("name", "version") else None
            ) from error
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
        return Response(
            service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @app.get("/openapi.json")
    async def _openapi() -> Response:
        return _json(describe(service.limits, list(service.models.checks().values())))
