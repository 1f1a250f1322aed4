"""The OpenAPI description of the server.

Request bodies come from the types that decode them; responses and errors are written here. FastAPI
cannot generate it, because the routes take raw bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, get_args

import msgspec

from hemix.serving.field_validation import FieldValidator
from hemix.serving.http.messages import MAX_EVENTS, EventMessage, RankMessage
from hemix.serving.http.service import RequestLimits
from hemix.serving.types import Status

__all__ = ["openapi_json"]

_STRING, _NUMBER, _INTEGER, _BOOLEAN = (
    {"type": "string"},
    {"type": "number"},
    {"type": "integer"},
    {"type": "boolean"},
)
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*$", "maxLength": 128}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_RESPONSES: dict[str, dict[str, Any]] = {
    "Error": _object(
        {
            "error": _object(
                {
                    "code": _STRING,
                    "message": _STRING,
                    "field": _nullable(_STRING),
                    "request_id": _STRING,
                }
            )
        },
    ),
    "EventsAnswer": _object(
        {
            "accepted": _INTEGER,
            "duplicate": _INTEGER,
            "rejected": _array(
                _object(
                    {
                        "index": _INTEGER,
                        "code": _STRING,
                        "message": _STRING,
                        "field": _nullable(_STRING),
                    }
                )
            ),
            "took_ms": _NUMBER,
        }
    ),
    "Ranking": _object(
        {
            "id": _STRING,
            "model": _STRING,
            "version": _STRING,
            "took_ms": _NUMBER,
            "degraded": _array(
                {
                    "type": "string",
                    "description": "Inputs that it lacked: history, features, early_history",
                }
            ),
            "user_status": {"type": "string", "enum": ["OK", "UNKNOWN_USER"]},
            "items": _array(
                _object(
                    {
                        "id": _STRING,
                        "score": _nullable(
                            {"type": "number", "description": "null without a score"}
                        ),
                        "outputs": {"type": "object", "additionalProperties": _NUMBER},
                        "status": {"type": "string", "enum": list(get_args(Status))},
                    },
                    because=_array(
                        _object(
                            {
                                "item": _STRING,
                                "weight": _NUMBER,
                                "age_seconds": _nullable(_NUMBER),
                                "type": _nullable(_STRING),
                            }
                        )
                    ),
                )
            ),
        }
    ),
    "Model": _object(
        {
            "name": _STRING,
            "version": _STRING,
            "state": {"type": "string", "enum": ["ready"]},
            "schema": _STRING,
            "sha256": _nullable(
                {
                    "type": "string",
                    "description": "Of the run's run.json, which lists the digests of its weights",
                }
            ),
            "outputs": _array(_STRING),
            "test": {"type": "object", "additionalProperties": {"type": "object"}},
        }
    ),
    "Ready": _object(
        {
            "ready": _BOOLEAN,
            "checks": {"type": "object", "additionalProperties": _BOOLEAN},
            "problem": _nullable(_STRING),
        }
    ),
    "Playground": _object(
        {
            "model": _STRING,
            "version": _STRING,
            "outputs": _array(_STRING),
            "score": _STRING,
            "users": _array(_STRING),
            "items": _array(_STRING),
            "actions": _array(_STRING),
            "labels": {"type": "object", "additionalProperties": _STRING},
            "context": {"type": "object"},
        }
    ),
    "UserHistory": _object(
        {
            "user": _STRING,
            "revision": _INTEGER,
            "now": _INTEGER,
            "events": _array(
                _object(
                    {
                        "id": _STRING,
                        "item": _nullable(_STRING),
                        "type": _nullable(_STRING),
                        "timestamp": _nullable(_INTEGER),
                        "part": {"type": "string", "enum": ["global", "realtime"]},
                        "fields": {"type": "object"},
                    }
                )
            ),
        }
    ),
}

_ERRORS = {
    400: "The body is not JSON, has an unknown encoding, or arrived too slowly",
    401: "No token, or a wrong one",
    403: "A page of another site called a server without a token",
    404: "No such model or version",
    413: "The body is too large, or has too many items or events",
    422: "A field is missing, of a wrong type, out of range, or does not fit the schema; the error "
    "names it",
    429: "Another version is being loaded",
    503: "Too many requests in work, or the store cannot be reached; Retry-After gives the time "
    "until the next attempt",
    504: "Not done within the deadline",
}
_COLUMNS = (
    ("RankMessage", "context", ("context",)),
    ("ItemMessage", "fields", ("candidate",)),
    ("PastEvent", "fields", ("event",)),
    ("EventMessage", "fields", ("event", "user", "item")),
)
"""Message, its field, and the schema levels whose columns the field has"""
_MODEL = {
    "name": "model",
    "in": "query",
    "required": False,
    "schema": _STRING,
    "description": "By default the first model",
}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _route(
    summary: str,
    response: str | dict[str, Any],
    *errors: int,
    body: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    schema = _reference(response) if isinstance(response, str) else response
    responses: dict[str, Any] = {
        "200": {"description": "Done", "content": {"application/json": {"schema": schema}}}
    }
    for status in errors:
        headers = (
            {"Retry-After": {"schema": _INTEGER, "description": "Seconds"}}
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


def openapi_json(limits: RequestLimits, checks: Sequence[FieldValidator] = ()) -> bytes:
    """Return the description of this server as JSON.

    Args:
        limits: Limits on requests.
        checks: The columns of every model.
    """
    components = {
        "schemas": {**_messages(limits, checks), **_RESPONSES},
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


def _messages(limits: RequestLimits, checks: Sequence[FieldValidator]) -> dict[str, Any]:
    """Return the schemas of the request bodies, with the limits and columns of this server."""
    template = "#/components/schemas/{name}"
    _, bodies = msgspec.json.schema_components([RankMessage, EventMessage], ref_template=template)
    bodies["RankMessage"]["properties"]["items"]["maxItems"] = limits.items
    for message, field, levels in _COLUMNS:
        columns = {
            name: shape
            for model_checks in checks
            for level in levels
            for name, shape in model_checks.shapes[level].items()
        }
        properties = bodies[message]["properties"]
        properties[field] = {**properties[field], "properties": columns}
    return bodies


_USER: list[dict[str, list[str]]] = [{"token": []}, {}]
"""Routes that need the token, if the server has one"""
_ADMIN: list[dict[str, list[str]]] = [{"token": []}]


def _ranking_paths() -> dict[str, Any]:
    """Return the routes of rankings and events."""
    events = {"type": "array", "items": _reference("EventMessage"), "maxItems": MAX_EVENTS}
    rank = _route(
        "Rank items for a user",
        "Ranking",
        *(400, 401, 403, 404, 413, 422, 503, 504),
        body={"application/json": {"schema": _reference("RankMessage")}},
        security=_USER,
    )
    store = _route(
        "Send events; one invalid event does not fail its body",
        "EventsAnswer",
        *(400, 401, 403, 413, 422, 503, 504),
        body={"application/json": {"schema": events}, "application/x-ndjson": {"schema": _STRING}},
        security=_USER,
    )
    return {"/v1/rank": {"post": rank}, "/v1/events": {"post": store}}


def _model_paths() -> dict[str, Any]:
    """Return the routes of models."""
    models = _object({"models": _array(_reference("Model"))})
    named = [
        {"name": parameter, "in": "path", "required": True, "schema": _NAME}
        for parameter in ("name", "version")
    ]
    load = _route(
        "Load a version from the registry, warm it up and serve it",
        "Model",
        *(401, 404, 422, 429, 503, 504),
        parameters=named,
        security=_ADMIN,
    )
    return {
        "/v1/models": {"get": _route("The served models", models, 401, security=_USER)},
        "/v1/models/{name}/versions/{version}:load": {"post": load},
    }


def _state_paths() -> dict[str, Any]:
    """Return the routes of user histories, playground and health."""
    user = {"name": "user", "in": "path", "required": True, "schema": _STRING}
    history = _route(
        "A user's history as a ranking would use it now",
        "UserHistory",
        *(401, 404, 503, 504),
        parameters=[user, _MODEL],
        security=_USER,
    )
    errors = (401, 404, 503, 504)
    playground = _route(
        "Ids and values for the playground",
        "Playground",
        *errors,
        parameters=[_MODEL],
        security=_USER,
    )
    ready = _route("Loaded, warmed up, store reachable", "Ready")
    ready["responses"]["503"] = {**ready["responses"]["200"], "description": "Not ready"}
    metrics = {"description": "Metrics", "content": {"text/plain": {"schema": _STRING}}}
    alive = _route("Alive; never touches the store", _object({"status": _STRING}))
    return {
        "/v1/users/{user}/history": {"get": history},
        "/v1/playground": {"get": playground},
        "/healthz": {"get": alive},
        "/readyz": {"get": ready},
        "/metrics": {"get": {"summary": "Prometheus", "responses": {"200": metrics}}},
    }
