"""The routes of the server: each one reads its request, runs its work in a thread and responds."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from importlib.resources import files
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hemix.errors import RequestError, RunError, StoreError, UnknownVersion, UsageError
from hemix.serving.http.admission import read_body
from hemix.serving.http.events import EventsResponse, ParsedEvents, read_events
from hemix.serving.http.messages import AliveResponse, ApiError, ModelsResponse, ReadyResponse
from hemix.serving.http.middleware import RequestMiddleware, exception_handlers
from hemix.serving.http.openapi import openapi_json
from hemix.serving.http.rank import encode_ranking, lease_model, rank, read_request
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
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    app = Starlette(
        routes=_Endpoints(service).routes(),
        lifespan=lifespan,
        exception_handlers=exception_handlers(),
    )
    app.router.redirect_slashes = False
    return RequestMiddleware(app, service.metrics, service.limits.requests, service.idle)


class _Endpoints:
    """What answers the requests of each route."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        playground, docs = (
            files("hemix.serving.http").joinpath("pages", name).read_bytes()
            for name in ("playground.html", "docs.html")
        )
        return [
            Route("/v1/rank", self.rank, methods=["POST"]),
            Route("/v1/events", self.events, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}/versions/{version}:load", self.load, methods=["POST"]),
            Route("/v1/playground", self.suggestions),
            Route("/v1/users/{user:path}/history", self.history),  # an id may contain a slash
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/", _page(playground)),
            Route("/docs", _page(docs)),
        ]

    async def rank(self, request: Request) -> Response:
        service, stages = self._service, _Stages()
        async with self._body(request) as body:
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
        return _json(content, headers=stages.header(queue=done.waited_ms, **ranking.stages_ms))

    async def events(self, request: Request) -> Response:
        service, stages = self._service, _Stages()
        async with self._body(request) as body:
            stages.ms["body"] = stages.elapsed_ms()
            work = partial(_store_body, service, body, request.state.facts, stages)
            done = await service.store_executor.run(work, _client_gone(request))
        return _json(done.value, headers=stages.header(queue=done.waited_ms))

    async def models(self, request: Request) -> Response:
        self._check_token(request)
        content: ModelsResponse = {"models": self._service.models.descriptions()}
        return _json(msgspec.json.encode(content))

    async def load(self, request: Request) -> Response:
        self._check_token(request, admin=True)
        name, version = request.path_params["name"], request.path_params["version"]
        work = partial(_load_version, self._service, name, version)
        return _json((await self._service.admin_executor.run(work)).value)

    async def suggestions(self, request: Request) -> Response:
        self._check_token(request)
        work = partial(_suggest, self._service, request.query_params.get("model"))
        return _json((await self._service.store_executor.run(work)).value)

    async def history(self, request: Request) -> Response:
        self._check_token(request)
        model, user = request.query_params.get("model"), request.path_params["user"]
        work = partial(_user_history, self._service, model, user)
        return _json((await self._service.store_executor.run(work)).value)

    async def healthz(self, _request: Request) -> Response:
        return _json(msgspec.json.encode(AliveResponse(status="alive")))

    async def readyz(self, _request: Request) -> Response:
        service = self._service
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
        content: ReadyResponse = {"ready": ready, "checks": checks, "problem": problem}
        status, headers = (200, {}) if ready else (503, {"Retry-After": "1"})
        return _json(msgspec.json.encode(content), status, headers)

    async def metrics(self, _request: Request) -> Response:
        page = self._service.metrics.page()
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _request: Request) -> Response:
        checks = list(self._service.models.checks().values())
        return _json(openapi_json(self._service.limits, checks))

    def _check_token(self, request: Request, *, admin: bool = False) -> None:
        self._service.access.check(request.headers.get("authorization"), admin=admin)

    def _body(self, request: Request) -> AbstractAsyncContextManager[bytes]:
        self._check_token(request)
        service, limits = self._service, self._service.limits
        service.access.check_origin(request.headers.get("origin"), request.headers.get("host"))
        return read_body(
            request, limit=limits.body_bytes, seconds=limits.body_seconds, budget=service.bodies
        )


def _page(content: bytes) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a page."""

    async def page(_request: Request) -> Response:
        return Response(content, headers=_PAGE_HEADERS, media_type="text/html")

    return page


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


def _json(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, headers, media_type="application/json")


def _rank_body(
    service: Service, body: bytes, request_id: str, stages: _Stages
) -> tuple[Ranking, bytes]:
    with stages.measure("decode"):
        message = read_request(body, service.limits)
    ranking = rank(message, service.models, service.limits, request_id)
    with stages.measure("answer"):
        content = encode_ranking(ranking, explain=message.explain)
    return ranking, content


def _store_body(service: Service, body: bytes, facts: dict[str, Any], stages: _Stages) -> bytes:
    with stages.measure("decode"):
        parsed = read_events(body, service.models.checks(), service.limits)
    with stages.measure("store"):
        is_new = _append(service, parsed.events)
    _count_events(service, parsed, is_new)
    accepted = sum(is_new)
    facts |= {"accepted": accepted, "rejected": len(parsed.rejected)}
    content: EventsResponse = {
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


def _suggest(service: Service, name: str | None) -> bytes:
    with lease_model(service.models, name) as model:
        return msgspec.json.encode(suggestions(model))


def _user_history(service: Service, name: str | None, user: str) -> bytes:
    with lease_model(service.models, name) as model:
        schema = model.engine.schema
    try:
        return msgspec.json.encode(user_history(service.store, schema, user))
    except StoreError as error:
        raise ApiError.from_error(error, code=StoreError.code) from error
