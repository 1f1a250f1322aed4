"""JSON messages of the API: bodies as types, the decoding of requests, and errors.

OpenAPI describes the messages by their types. The schema's columns are validated separately.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct

from hemix.data.clock import EARLIEST_MS, LATEST_MS
from hemix.errors import HemixError, RequestError
from hemix.serving.loaded_models import ModelDescription

__all__ = [
    "MAX_EVENTS",
    "MAX_FIELDS_BYTES",
    "AliveResponse",
    "ApiError",
    "ErrorResponse",
    "EventMessage",
    "HistoryMessage",
    "ItemMessage",
    "ModelsResponse",
    "PastEvent",
    "RankMessage",
    "ReadyResponse",
    "check_size",
    "decode",
    "fields_problem",
    "strip_bom",
    "validation_error",
]

MAX_EVENTS = 10_000
"""Maximum events in one body"""
MAX_FIELDS_BYTES = 64 * 2**10
"""Maximum JSON of the fields of one event, item or context, in bytes"""
_MAX_FIELDS = 256
_MAX_NAME = 256
_MAX_OBJECTS, _MAX_KEYS = 100_000, 600_000
_INT64 = 2**63 - 1
_RETRY_AFTER_SECONDS = 1

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Time = Annotated[
    int,
    Meta(ge=EARLIEST_MS, le=LATEST_MS, description="Milliseconds UTC, of the years 1990 to 2099"),
]
Integer = Annotated[int, Meta(ge=-_INT64 - 1, le=_INT64)]
Text = Annotated[str, Meta(max_length=4096)]
Scalar = Integer | float | Text | bool | None
Value = Integer | float | Text | bool | None | Annotated[list[Scalar], Meta(max_length=4096)]
Fields = Annotated[
    dict[Annotated[str, Meta(max_length=_MAX_NAME)], Value],
    Meta(
        max_length=_MAX_FIELDS,
        description="Values by column of the schema. An absent column or null is a missing value; "
        f"other columns are ignored. At most {MAX_FIELDS_BYTES // 2**10} KiB",
    ),
]
Action = Annotated[str, Meta(max_length=256)]


class ErrorDetails(TypedDict):
    """What was wrong with a request."""

    code: str
    message: str
    field: str | None
    request_id: str


class ErrorResponse(TypedDict):
    """The answer to a request that failed."""

    error: ErrorDetails


class ModelsResponse(TypedDict):
    """The models in service."""

    models: list[ModelDescription]


class AliveResponse(TypedDict):
    """The server runs."""

    status: Literal["alive"]


class ReadyResponse(TypedDict):
    """Whether the server can rank, with its checks by name."""

    ready: bool
    checks: dict[str, bool]
    problem: str | None


class ApiError(HemixError):
    """An error that is answered with a status, a code for programs and a message for people."""

    code = "refused"

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        """Describe the error.

        Args:
            status: HTTP status.
            code: The error's code.
            message: One sentence for a person.
            field: Path of the invalid field in the body.
            retry_after: Seconds after which a client may retry.
            close: Close the connection, because the rest of the body is not read.
        """
        super().__init__(message, code=code, field=field)
        self.http_status = status
        self.message = message
        self.retry_after = retry_after
        self.close = close

    @classmethod
    def from_error(
        cls,
        error: HemixError,
        *,
        code: str | None = None,
        message: str | None = None,
        field: str | None = None,
    ) -> ApiError:
        """Return the response to a request that ended with an error.

        Args:
            error: The error; its class sets the status and whether a client may retry.
            code: The code; None: that of the error.
            message: One sentence for a person; None: that of the error.
            field: Path of the invalid field in the request.
        """
        if message is None:
            message = error.problem if isinstance(error, RequestError) else str(error)
        retry_after = _RETRY_AFTER_SECONDS if error.is_retryable else None
        return cls(
            error.http_status, code or error.code, message, field=field, retry_after=retry_after
        )

    def headers(self) -> dict[str, str]:
        """Return the headers of the response."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.http_status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.close:
            headers["Connection"] = "close"
        return headers

    def body(self, request_id: str) -> bytes:
        """Return the JSON of the response to the request with this id."""
        details: ErrorDetails = {
            "code": self.code,
            "message": self.message,
            "field": self.field,
            "request_id": request_id,
        }
        return msgspec.json.encode(ErrorResponse(error=details))


class EventMessage(Struct, rename={"kind": "event", "action": "type"}):
    """An event.

    An interaction needs user, an impression user and item, a user event user, an item event item.
    An interaction without an item is an action such as a search.
    """

    kind: Literal["interaction", "impression", "user", "item"]
    id: Annotated[
        Id,
        Meta(
            description="Unique for the event's user, or its item: "
            "a second event of this id is a duplicate"
        ),
    ]
    timestamp: Annotated[
        Time | None, Meta(description="Time of the event; by default the time of its arrival")
    ] = None
    user: Id | None = None
    item: Id | None = None
    action: Annotated[
        Action | None, Meta(description="The user's action: the schema's history.action")
    ] = None
    ranking: Annotated[Id | None, Meta(description="Id of the ranking that it answers")] = None
    fields: Fields = {}


class ItemMessage(Struct):
    """A candidate. Its fields override the server's features of the item."""

    id: Id
    fields: Fields = {}


class PastEvent(Struct, rename={"action": "type"}):
    """An event of a history in the request."""

    timestamp: Time
    item: Id | None = None
    action: Action | None = None
    fields: Fields = {}


class HistoryMessage(Struct, rename={"global_": "global"}):
    """Both histories, each sorted by time, all events before the request."""

    global_: Annotated[list[PastEvent], Meta(max_length=20_000)] = []
    realtime: Annotated[list[PastEvent], Meta(max_length=20_000)] = []


class RankMessage(Struct):
    """A request to rank items for a user."""

    user: Id
    items: Annotated[list[ItemMessage], Meta(min_length=1)]
    id: Annotated[Id | None, Meta(description="Id of the ranking; by default the request's id")] = (
        None
    )
    model: Annotated[Id | None, Meta(description="By default the only or first model")] = None
    timestamp: Annotated[Time | None, Meta(description="Time of the request; by default now")] = (
        None
    )
    context: Fields = {}
    explain: Annotated[
        bool,
        Meta(description="Return the past events that drew most attention, and the newest event"),
    ] = False
    history: Annotated[HistoryMessage | None, Meta(description="Replaces the store's history")] = (
        None
    )


T = TypeVar("T")

_UNTYPED = msgspec.json.Decoder(float_hook=float)
"""Decodes any JSON; numbers too large for a float become infinite"""


def strip_bom(body: bytes) -> bytes:
    """Return the body without the byte order mark that some programs write before UTF-8."""
    return body.removeprefix(codecs.BOM_UTF8)


def check_size(body: bytes) -> None:
    """Refuse a body whose few bytes would decode to very many objects or keys.

    Raises:
        ApiError: 413; no request within the limits has so many.
    """
    if body.count(b"{") > _MAX_OBJECTS or body.count(b":") > _MAX_KEYS:
        raise ApiError(
            413,
            "too_many_values",
            f"more than {_MAX_OBJECTS:,} objects or {_MAX_KEYS:,} keys; send smaller bodies",
        )


def fields_problem(fields: Mapping[str, Any]) -> str | None:
    """Return a message for fields of more than 64 KiB of JSON, else None."""
    size = len(msgspec.json.encode(fields))
    if size <= MAX_FIELDS_BYTES:
        return None
    return f"{size:,} bytes of JSON; at most {MAX_FIELDS_BYTES:,}"


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a body to the decoder's type.

    Args:
        decoder: The decoder.
        body: JSON in UTF-8.

    Raises:
        ApiError: 400 where the body is not JSON; 422 with the field where it has another type.
    """
    if not body.strip():
        raise ApiError(400, "malformed_json", "the body is empty: expected JSON")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise validation_error(error, body) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, "malformed_json", f"the body is not JSON: {problem}") from error


def validation_error(error: Exception, body: bytes | msgspec.Raw) -> ApiError:
    """Convert msgspec's ``Expected `str`, got `null` - at `$.user` `` to a 422 with the field.

    Args:
        error: The error.
        body: The JSON that was decoded.
    """
    message, _, path = str(error).partition(" - at ")
    field = path.replace("`", "").removeprefix("key in ").removeprefix("$").removeprefix(".")
    missing = re.search(r"missing required field `([^`]+)`", message)
    if missing is not None:
        field, message = f"{field}.{missing[1]}".removeprefix("."), "this field is required"
    elif path.startswith("`key`") or "[...]" in field:
        field, message = _invalid_column(field.partition("[...]")[0], message, body)
    return ApiError(422, "invalid", message.replace("`", ""), field=field or None)


def _invalid_column(fields: str, message: str, body: bytes | msgspec.Raw) -> tuple[str, str]:
    """Return field and message of the first invalid column, which msgspec's error omits."""
    try:
        value = _UNTYPED.decode(body)
        for step in re.findall(r"[^.\[\]]+", fields):
            value = value[int(step) if isinstance(value, list) else step]
        columns = list(value.items())
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
    ):
        return fields, message  # nested too deep, malformed later, or a repeated key
    for name, value in columns:
        if len(name) > _MAX_NAME:
            expected = f"expected columns' names of at most {_MAX_NAME} characters"
            return fields, f"{expected}, found {name[:40]!r}..."
        scalars = value if isinstance(value, list) else [value]
        if math.inf in scalars or -math.inf in scalars:
            return f"{fields}.{name}", message
        try:
            msgspec.convert(value, Value)
        except msgspec.ValidationError as error:
            problem, _, within = str(error).partition(" - at `$")
            return f"{fields}.{name}{within.strip('`')}", problem
    return fields, message
