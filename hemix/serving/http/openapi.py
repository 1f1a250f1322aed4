"""The OpenAPI description: bodies from the very types that decode them, answers and errors written
out beside their routes.

Knows no data; FastAPI's own description is not used, because the routes take raw bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, get_args

import msgspec

from hemix.serving.checks import FieldChecks
from hemix.serving.http.messages import EVENTS_MAX, EventMessage, RankMessage
from hemix.serving.http.service import Limits
from hemix.serving.types import Status

__all__ = ["describe"]

_TEXT, _NUMBER, _WHOLE, _FLAG = (
    {"type": "string"},
    {"type": "number"},
    {"type": "integer"},
    {"type": "boolean"},
)
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*$", "maxLength": 128}


def _maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_ANSWERS: dict[str, dict[str, Any]] = {
    "Error": _object(
        {
            "error": _object(
                {"code": _TEXT, "message": _TEXT, "field": _maybe(_TEXT), "request_id": _TEXT}
            )
        },
    ),
    "EventsAnswer": _object(
        {
            "accepted": _WHOLE,
            "duplicate": _WHOLE,
            "rejected": _array(
                _object({"index": _WHOLE, "code": _TEXT, "message": _TEXT, "field": _maybe(_TEXT)})
            ),
            "took_ms": _NUMBER,
        }
    ),
    "Ranking": _object(
        {
            "id": _TEXT,
            "model": _TEXT,
            "version": _TEXT,
            "took_ms": _NUMBER,
            "degraded": _array(
                {
                    "type": "string",
                    "description": "What it had to do without: history, features, early_history",
                }
            ),
            "user_status": {"type": "string", "enum": ["OK", "UNKNOWN_USER"]},
            "items": _array(
                _object(
                    {
                        "id": _TEXT,
                        "score": _maybe(
                            {"type": "number", "description": "null where it has none"}
                        ),
                        "outputs": {"type": "object", "additionalProperties": _NUMBER},
                        "status": {"type": "string", "enum": list(get_args(Status))},
                    },
                    because=_array(
                        _object(
                            {
                                "item": _TEXT,
                                "weight": _NUMBER,
                                "age_seconds": _maybe(_NUMBER),
                                "type": _maybe(_TEXT),
                            }
                        )
                    ),
                )
            ),
        }
    ),
    "Model": _object(
        {
            "name": _TEXT,
            "version": _TEXT,
            "state": {"type": "string", "enum": ["ready"]},
            "schema": _TEXT,
            "sha256": _maybe(
                {
                    "type": "string",
                    "description": "Of the run's run.json, which lists the digests of its weights",
                }
            ),
            "outputs": _array(_TEXT),
            "test": {"type": "object", "additionalProperties": {"type": "object"}},
        }
    ),
    "Ready": _object(
        {
            "ready": _FLAG,
            "checks": {"type": "object", "additionalProperties": _FLAG},
            "problem": _maybe(_TEXT),
        }
    ),
    "Playground": _object(
        {
            "model": _TEXT,
            "version": _TEXT,
            "outputs": _array(_TEXT),
            "score": _TEXT,
            "users": _array(_TEXT),
            "items": _array(_TEXT),
            "actions": _array(_TEXT),
            "labels": {"type": "object", "additionalProperties": _TEXT},
            "context": {"type": "object"},
        }
    ),
    "UserHistory": _object(
        {
            "user": _TEXT,
            "revision": _WHOLE,
            "now": _WHOLE,
            "events": _array(
                _object(
                    {
                        "id": _TEXT,
                        "item": _maybe(_TEXT),
                        "type": _maybe(_TEXT),
                        "timestamp": _maybe(_WHOLE),
                        "part": {"type": "string", "enum": ["global", "realtime"]},
                        "fields": {"type": "object"},
                    }
                )
            ),
        }
    ),
}

_ERRORS = {
    400: "The body is not JSON, is packed in an unknown way, or came too slowly",
    401: "No token, or another one",
    403: "A page of another site asks a server without a token",
    404: "No such model or version",
    413: "The body is too large, or holds too many items or events",
    422: "A field is missing, of another type, out of its range, or does not fit the schema; the "
    "error names it",
    429: "Another version is being loaded",
    503: "Too many requests in work, or the store is not reachable; Retry-After says when to try "
    "again",
    504: "Not done within the deadline",
}
_COLUMNS = (
    ("RankMessage", "context", ("context",)),
    ("ItemMessage", "fields", ("candidate",)),
    ("PastEvent", "fields", ("event",)),
    ("EventMessage", "fields", ("event", "user", "item")),
)
"""Message, its field, and the levels of the schema whose columns are read there"""
_MODEL = {
    "name": "model",
    "in": "query",
    "required": False,
    "schema": _TEXT,
    "description": "By default the first model",
}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _route(
    summary: str,
    answer: str | dict[str, Any],
    *errors: int,
    body: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    schema = _reference(answer) if isinstance(answer, str) else answer
    responses: dict[str, Any] = {
        "200": {"description": "Done", "content": {"application/json": {"schema": schema}}}
    }
    for status in errors:
        headers = (
            {"Retry-After": {"schema": _WHOLE, "description": "Seconds"}}
            if status in (429, 503)
            else {}
        )
        content = {"application/json": {"schema": _reference("Error")}}
        responses[str(status)] = {
            "description": _ERRORS[status],
            "content": content,
            "headers": headers,
        }
    request = {"requestBody": {"required": True, "content": body}} if body is not None else {}
    return {"summary": summary, "responses": responses, **request, **more}


def describe(limits: Limits, checks: Sequence[FieldChecks] = ()) -> bytes:
    """Describe this server's interface as JSON.

    Args:
        limits: The limits of its requests.
        checks: The columns of every model that it serves.
    """
    components = {
        "schemas": {**_messages(limits, checks), **_ANSWERS},
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    information = {
        "title": "hemix",
        "version": version("hemix"),
        "description": "Live events in, ranked candidates out.",
    }
    description = {
        "openapi": "3.1.0",
        "info": information,
        "paths": {**_ranking_paths(), **_model_paths(), **_state_paths()},
        "components": components,
    }
    return msgspec.json.encode(description)


def _messages(limits: Limits, checks: Sequence[FieldChecks]) -> dict[str, Any]:
    """The schemas of the bodies, with the limits and columns of this server."""
    template = "#/components/schemas/{name}"
    _, bodies = msgspec.json.schema_components([RankMessage, EventMessage], ref_template=template)
    bodies["RankMessage"]["properties"]["items"]["maxItems"] = limits.items
    for message, field, levels in _COLUMNS:
        columns = {
            name: shape
            for one in checks
            for level in levels
            for name, shape in one.shapes[level].items()
        }
        properties = bodies[message]["properties"]
        properties[field] = {**properties[field], "properties": columns}
    return bodies


_USER: list[dict[str, list[str]]] = [{"token": []}, {}]
"""Routes that need the token where the server has one"""
_ADMIN: list[dict[str, list[str]]] = [{"token": []}]


def _ranking_paths() -> dict[str, Any]:
    """Rankings and events."""
    events = {"type": "array", "items": _reference("EventMessage"), "maxItems": EVENTS_MAX}
    rank = _route(
        "Rank items for a user",
        "Ranking",
        *(400, 401, 403, 404, 413, 422, 503, 504),
        body={"application/json": {"schema": _reference("RankMessage")}},
        security=_USER,
    )
    store = _route(
        "Tell what happened; one wrong event does not spoil its body",
        "EventsAnswer",
        *(400, 401, 403, 413, 422, 503, 504),
        body={"application/json": {"schema": events}, "application/x-ndjson": {"schema": _TEXT}},
        security=_USER,
    )
    return {"/v1/rank": {"post": rank}, "/v1/events": {"post": store}}


def _model_paths() -> dict[str, Any]:
    """The models that serve, and loading another one."""
    models = _object({"models": _array(_reference("Model"))})
    named = [
        {"name": part, "in": "path", "required": True, "schema": _NAME}
        for part in ("name", "version")
    ]
    load = _route(
        "Load a version of the registry, warm it up and let it serve",
        "Model",
        *(401, 404, 422, 429, 503, 504),
        parameters=named,
        security=_ADMIN,
    )
    return {
        "/v1/models": {"get": _route("The models that serve", models, 401, security=_USER)},
        "/v1/models/{name}/versions/{version}:load": {"post": load},
    }


def _state_paths() -> dict[str, Any]:
    """What the server knows of a user, what to try, and how it is."""
    user = {"name": "user", "in": "path", "required": True, "schema": _TEXT}
    history = _route(
        "A user's history as a ranking sees it now",
        "UserHistory",
        *(401, 404, 503, 504),
        parameters=[user, _MODEL],
        security=_USER,
    )
    errors = (401, 404, 503, 504)
    playground = _route("Names to try", "Playground", *errors, parameters=[_MODEL], security=_USER)
    ready = _route("Loaded, warmed up, store reachable", "Ready")
    ready["responses"]["503"] = {**ready["responses"]["200"], "description": "Not ready"}
    metrics = {"description": "Metrics", "content": {"text/plain": {"schema": _TEXT}}}
    alive = _route("Alive; never touches the store", _object({"status": _TEXT}))
    return {
        "/v1/users/{user}/history": {"get": history},
        "/v1/playground": {"get": playground},
        "/healthz": {"get": alive},
        "/readyz": {"get": ready},
        "/metrics": {"get": {"summary": "Prometheus", "responses": {"200": metrics}}},
    }
