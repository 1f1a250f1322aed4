"""The routes of the server: each one reads its request, runs its work in a thread and responds."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from importlib.resources import files
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from hemix.errors import RequestError, RunError, StoreError, UnknownVersion, UsageError
from hemix.serving.http.admission import read_body
from hemix.serving.http.events import ParsedEvents, read_events
from hemix.serving.http.messages import ApiError
from hemix.serving.http.middleware import RequestMiddleware, exception_handlers
from hemix.serving.http.openapi import openapi_json
from hemix.serving.http.rank import encode_ranking, rank, read_request
from hemix.serving.http.service import Service
from hemix.serving.playground import suggestions, user_history
from hemix.serving.types import Event, Ranking

__all__ = ["make_app"]

_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


def make_app(service: Service) -> ASGIApp:
    """Return the server as an ASGI application, which closes ``service`` at shutdown."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="hemix",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers=exception_handlers(),
        redirect_slashes=False,
    )
    _add_ranking(app, service)
    _add_events(app, service)
    _add_models(app, service)
    _add_health(app, service)
    _add_pages(app, service)
    return RequestMiddleware(app, service.metrics, service.limits.requests, service.idle)


class _Stages:
    """Times of a request's stages, for the header ``Server-Timing``."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.ms: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.ms[stage] = (time.perf_counter() - started) * 1000

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.started) * 1000

    def header(self, **more_ms: float) -> dict[str, str]:
        stages = {**self.ms, **more_ms}
        return {"Server-Timing": ", ".join(f"{name};dur={ms:.2f}" for name, ms in stages.items())}


def _client_gone(request: Request) -> Callable[[], Awaitable[None]]:
    """Return a function that waits until the client has closed; call it after the body is read."""

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return wait


def _check_token(request: Request, service: Service, *, admin: bool = False) -> None:
    service.access.check(request.headers.get("authorization"), admin=admin)


def _body(request: Request, service: Service) -> AbstractAsyncContextManager[bytes]:
    _check_token(request, service)
    service.access.check_origin(request.headers.get("origin"), request.headers.get("host"))
    limits = service.limits
    return read_body(
        request, limit=limits.body_bytes, seconds=limits.body_seconds, budget=service.bodies
    )


def _json(content: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, headers=headers, media_type="application/json")


def _add_ranking(app: FastAPI, service: Service) -> None:
    @app.post("/v1/rank")
    async def _rank(request: Request) -> Response:
        stages = _Stages()
        async with _body(request, service) as body:
            stages.ms["body"] = stages.elapsed_ms()
            request_id = request.state.request_id
            work = partial(_rank_body, service, body, request_id, stages)
            done = await service.rank_executor.run(work, _client_gone(request))
        ranking, content = done.value
        service.metrics.count_ranking(ranking, done.waited_ms)
        request.state.facts |= {
            "ranking": ranking.id,
            "items": len(ranking.items),
            "model": ranking.model,
        }
        if ranking.degraded:
            request.state.facts["degraded"] = ranking.degraded
        return _json(content, stages.header(queue=done.waited_ms, **ranking.stages_ms))


def _rank_body(
    service: Service, body: bytes, request_id: str, stages: _Stages
) -> tuple[Ranking, bytes]:
    with stages.measure("decode"):
        message = read_request(body, service.limits)
    ranking = rank(message, service.models, service.limits, request_id)
    with stages.measure("answer"):
        content = encode_ranking(ranking, explain=message.explain)
    return ranking, content


def _add_events(app: FastAPI, service: Service) -> None:
    @app.post("/v1/events")
    async def _events(request: Request) -> Response:
        stages = _Stages()
        async with _body(request, service) as body:
            stages.ms["body"] = stages.elapsed_ms()
            work = partial(_store_body, service, body, request.state.facts, stages)
            done = await service.store_executor.run(work, _client_gone(request))
        return _json(done.value, stages.header(queue=done.waited_ms))


def _store_body(service: Service, body: bytes, facts: dict[str, Any], stages: _Stages) -> bytes:
    with stages.measure("decode"):
        parsed = read_events(body, service.models.checks(), service.limits)
    with stages.measure("store"):
        is_new = _append(service, parsed.events)
    _count_events(service, parsed, is_new)
    accepted = sum(is_new)
    facts |= {"accepted": accepted, "rejected": len(parsed.rejected)}
    content = {
        "accepted": accepted,
        "duplicate": len(is_new) - accepted,
        "rejected": parsed.rejected,
        "took_ms": round(stages.elapsed_ms(), 3),
    }
    return msgspec.json.encode(content)


def _append(service: Service, events: Sequence[Event]) -> Sequence[bool]:
    """Store events; return which are new."""
    try:
        return service.store.append(events) if events else []
    except StoreError as error:
        service.metrics.store_errors.labels("events").inc()
        message = f"the store did not confirm the events; send them again: {error}"
        raise ApiError.from_error(error, code=StoreError.code, message=message) from error


def _count_events(service: Service, parsed: ParsedEvents, is_new: Sequence[bool]) -> None:
    times = (event.time_ms for event, new in zip(parsed.events, is_new, strict=True) if new)
    accepted = sum(is_new)
    outcomes = {
        "accepted": accepted,
        "duplicate": len(is_new) - accepted,
        "rejected": len(parsed.rejected),
    }
    service.metrics.count_events(max(times, default=0), outcomes)
    service.metrics.count_unusable(parsed.unusable)


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def _models(request: Request) -> Response:
        _check_token(request, service)
        return _json(msgspec.json.encode({"models": service.models.descriptions()}))

    @app.post("/v1/models/{name}/versions/{version}:load")
    async def _load(request: Request, name: str, version: str) -> Response:
        _check_token(request, service, admin=True)
        done = await service.admin_executor.run(partial(_load_version, service, name, version))
        return _json(done.value)


def _load_version(service: Service, name: str, version: str) -> bytes:
    try:
        description = service.models.load(name, version)
    except RequestError as error:
        raise ApiError.from_error(error, field=error.field) from error
    except UsageError as error:
        raise ApiError.from_error(error, code=RequestError.code) from error
    except UnknownVersion as error:
        raise ApiError.from_error(error, field="version") from error
    except RunError as error:
        raise ApiError.from_error(error, code="broken_version", field="version") from error
    if description is None:
        raise ApiError(429, "busy_loading", "another version is being loaded", retry_after=5)
    return msgspec.json.encode(description)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def _healthz() -> Response:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz")
    async def _readyz() -> Response:
        try:
            problem = (await service.probe_executor.run(service.ping_store)).value
        except ApiError as error:  # the store is slow
            problem = error.message
        checks = {
            "models": len(service.models.descriptions()) > 0,
            "warm": True,
            "store": problem is None,
        }
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
        return _json(openapi_json(service.limits, list(service.models.checks().values())))


def _add_pages(app: FastAPI, service: Service) -> None:
    """Add ``/``, ``/docs`` and the two routes that the playground calls."""
    playground, docs = (
        files("hemix.serving.http").joinpath("pages", name).read_bytes()
        for name in ("playground.html", "docs.html")
    )

    @app.get("/")
    async def _playground() -> Response:
        return Response(playground, headers=_PAGE_HEADERS, media_type="text/html")

    @app.get("/docs")
    async def _docs() -> Response:
        return Response(docs, headers=_PAGE_HEADERS, media_type="text/html")

    @app.get("/v1/playground")
    async def _suggestions(request: Request) -> Response:
        _check_token(request, service)
        model = request.query_params.get("model")
        done = await service.store_executor.run(partial(_suggest, service, model))
        return _json(done.value)

    @app.get("/v1/users/{user:path}/history")  # an id may contain a slash
    async def _history(request: Request, user: str) -> Response:
        _check_token(request, service)
        model = request.query_params.get("model")
        done = await service.store_executor.run(partial(_user_history, service, model, user))
        return _json(done.value)


def _unknown_model(model: str | None) -> ApiError:
    message = f"no model {model!r}; GET /v1/models lists them"
    return ApiError(404, "unknown_model", message, field="model")


def _suggest(service: Service, name: str | None) -> bytes:
    with service.models.lease(name) as model:
        if model is None:
            raise _unknown_model(name)
        return msgspec.json.encode(suggestions(model))


def _user_history(service: Service, name: str | None, user: str) -> bytes:
    with service.models.lease(name) as model:
        if model is None:
            raise _unknown_model(name)
        schema = model.engine.schema
    try:
        return msgspec.json.encode(user_history(service.store, schema, user))
    except StoreError as error:
        raise ApiError.from_error(error, code=StoreError.code) from error
