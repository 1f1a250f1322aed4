"""The OpenAPI description of the server: msgspec describes the types of its messages.

The table below adds what types do not say: summaries, statuses and access.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hemix.serving.field_validation import FieldValidator
from hemix.serving.http.events import EventsResponse
from hemix.serving.http.messages import (
    MAX_EVENTS,
    AliveResponse,
    ErrorResponse,
    EventMessage,
    ModelsResponse,
    RankMessage,
    ReadyResponse,
)
from hemix.serving.http.rank import RankResponse
from hemix.serving.http.service import RequestLimits
from hemix.serving.loaded_models import ModelDescription
from hemix.serving.playground import Suggestions, UserHistory

__all__ = ["openapi_json"]

_JSON, _TEXT = "application/json", "text/plain"
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
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}

_Events = Annotated[list[EventMessage], Meta(max_length=MAX_EVENTS)]
_Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=128)]
_Model = Annotated[str, Meta(description="By default the first model")]

Security = tuple[dict[str, list[str]], ...]
_OPEN: Security = ()
_USER: Security = ({"token": []}, {})
"""Needs the token, if the server has one"""
_ADMIN: Security = ({"token": []},)


@dataclass(frozen=True, kw_only=True)
class _Operation:
    """A method of a path; every message is a type that msgspec describes."""

    summary: str
    response: Any
    media_type: str = _JSON
    bodies: Mapping[str, Any] = field(default_factory=dict)
    """Request bodies by media type."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Those that the path does not name are in the query."""
    errors: tuple[int, ...] = ()
    security: Security = _OPEN

    @property
    def types(self) -> list[Any]:
        return [self.response, *self.bodies.values(), *self.parameters.values()]


_PATHS: dict[str, dict[str, _Operation]] = {
    "/v1/rank": {
        "post": _Operation(
            summary="Rank items for a user",
            response=RankResponse,
            bodies={_JSON: RankMessage},
            errors=(400, 401, 403, 404, 413, 422, 503, 504),
            security=_USER,
        )
    },
    "/v1/events": {
        "post": _Operation(
            summary="Send events; one invalid event does not fail its body",
            response=EventsResponse,
            bodies={_JSON: _Events, "application/x-ndjson": str},
            errors=(400, 401, 403, 413, 422, 503, 504),
            security=_USER,
        )
    },
    "/v1/models": {
        "get": _Operation(
            summary="The served models", response=ModelsResponse, errors=(401,), security=_USER
        )
    },
    "/v1/models/{name}/versions/{version}:load": {
        "post": _Operation(
            summary="Load a version from the registry, warm it up and serve it",
            response=ModelDescription,
            parameters={"name": _Name, "version": _Name},
            errors=(401, 404, 422, 429, 503, 504),
            security=_ADMIN,
        )
    },
    "/v1/users/{user}/history": {
        "get": _Operation(
            summary="A user's history as a ranking would use it now",
            response=UserHistory,
            parameters={"user": str, "model": _Model},
            errors=(401, 404, 503, 504),
            security=_USER,
        )
    },
    "/v1/playground": {
        "get": _Operation(
            summary="Ids and values for the playground",
            response=Suggestions,
            parameters={"model": _Model},
            errors=(401, 404, 503, 504),
            security=_USER,
        )
    },
    "/healthz": {
        "get": _Operation(summary="Alive; never touches the store", response=AliveResponse)
    },
    "/readyz": {
        "get": _Operation(summary="Loaded, warmed up, store reachable", response=ReadyResponse)
    },
    "/metrics": {"get": _Operation(summary="Prometheus", response=str, media_type=_TEXT)},
}

_COLUMNS = (
    ("RankMessage", "context", ("context",)),
    ("ItemMessage", "fields", ("candidate",)),
    ("PastEvent", "fields", ("event",)),
    ("EventMessage", "fields", ("event", "user", "item")),
)
"""Message, its field, and the schema levels whose columns the field has"""


def openapi_json(limits: RequestLimits, checks: Sequence[FieldValidator] = ()) -> bytes:
    """Return the description of this server as JSON.

    Args:
        limits: Limits on requests.
        checks: The columns of every model.
    """
    operations = [one for methods in _PATHS.values() for one in methods.values()]
    types = list(dict.fromkeys(type_ for one in operations for type_ in one.types))
    schemas, components = msgspec.json.schema_components(
        [*types, ErrorResponse], ref_template="#/components/schemas/{name}"
    )
    _add_limits_and_columns(components, limits, checks)
    described = dict(zip([*types, ErrorResponse], schemas, strict=True))
    paths = {
        path: {method: _describe(path, one, described) for method, one in methods.items()}
        for path, methods in _PATHS.items()
    }
    ready = paths["/readyz"]["get"]["responses"]
    ready["503"] = {**ready["200"], "description": "Not ready"}
    description = {
        "openapi": "3.1.0",
        "info": {
            "title": "hemix",
            "version": version("hemix"),
            "description": "Live events in, ranked candidates out.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    return msgspec.json.encode(description)


def _add_limits_and_columns(
    components: dict[str, Any], limits: RequestLimits, checks: Sequence[FieldValidator]
) -> None:
    """Add what the types of the request bodies do not know: this server's limits and columns."""
    components["RankMessage"]["properties"]["items"]["maxItems"] = limits.items
    for message, name, levels in _COLUMNS:
        columns = {
            column: schema
            for model_checks in checks
            for level in levels
            for column, schema in model_checks.shapes[level].items()
        }
        components[message]["properties"][name]["properties"] = columns


def _describe(path: str, operation: _Operation, described: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the OpenAPI object of one operation."""
    in_path = re.findall(r"{(\w+)}", path)
    content = {operation.media_type: {"schema": described[operation.response]}}
    error = {_JSON: {"schema": described[ErrorResponse]}}
    errors = {
        str(status): {
            "description": _ERRORS[status],
            "content": error,
            "headers": _RETRY_AFTER if status in (429, 503) else {},
        }
        for status in operation.errors
    }
    result: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {"200": {"description": "Done", "content": content}, **errors},
        "security": operation.security,
        "parameters": [
            {
                "name": name,
                "in": "path" if name in in_path else "query",
                "required": name in in_path,
                "schema": described[type_],
            }
            for name, type_ in operation.parameters.items()
        ],
    }
    if operation.bodies:
        bodies = {media: {"schema": described[body]} for media, body in operation.bodies.items()}
        result["requestBody"] = {"required": True, "content": bodies}
    return result
