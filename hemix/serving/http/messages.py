"""The bodies of requests as types: decoded straight into them, and described by them in OpenAPI.

Knows shapes and ranges; what the schema's columns hold is checked in checks.py.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from hemix.data.clock import EARLIEST_MS, LATEST_MS
from hemix.serving.http.refusal import Refusal

__all__ = [
    "EVENTS_MAX",
    "FIELDS_BYTES",
    "EventMessage",
    "HistoryMessage",
    "ItemMessage",
    "PastEvent",
    "RankMessage",
    "check_size",
    "decode",
    "oversized",
    "refused",
    "without_mark",
]

EVENTS_MAX = 10_000
"""Of one body"""
FIELDS_MAX, FIELDS_BYTES = 256, 64 * 2**10
"""Of one event, item or context, as JSON"""
_NAME_MAX = 256
_INT64 = 2**63 - 1

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Time = Annotated[
    int,
    Meta(ge=EARLIEST_MS, le=LATEST_MS, description="Milliseconds UTC, of the years 1990 to 2099"),
]
Whole = Annotated[int, Meta(ge=-_INT64 - 1, le=_INT64)]
Text = Annotated[str, Meta(max_length=4096)]
Part = Whole | float | Text | bool | None
Value = Whole | float | Text | bool | None | Annotated[list[Part], Meta(max_length=4096)]
Fields = Annotated[
    dict[Annotated[str, Meta(max_length=_NAME_MAX)], Value],
    Meta(
        max_length=FIELDS_MAX,
        description="Values by column of the schema. "
        "A column that is not there, or null, is missing; "
        "other columns are left aside. "
        f"At most {FIELDS_BYTES // 2**10} KiB",
    ),
]


class EventMessage(Struct, rename={"kind": "event", "action": "type"}):
    """Something that happened.

    An interaction or impression needs user and item, a user event user, an item event item.
    """

    kind: Literal["interaction", "impression", "user", "item"]
    id: Annotated[
        Id,
        Meta(
            description="Accepted once for its user, or its item: "
            "a second event of this id is a duplicate"
        ),
    ]
    timestamp: Annotated[
        Time | None, Meta(description="When it happened; by default the moment of its arrival")
    ] = None
    user: Id | None = None
    item: Id | None = None
    action: Annotated[
        Annotated[str, Meta(max_length=256)] | None,
        Meta(description="What the user did: the schema's history.action"),
    ] = None
    ranking: Annotated[Id | None, Meta(description="Id of the ranking that it answers to")] = None
    fields: Fields = {}


class ItemMessage(Struct):
    """A candidate. Its fields go before what the server knows of the item."""

    id: Id
    fields: Fields = {}


class PastEvent(Struct, rename={"action": "type"}):
    """An event of a history that comes with the request."""

    item: Id
    timestamp: Time
    action: Annotated[str, Meta(max_length=256)] | None = None
    fields: Fields = {}


class HistoryMessage(Struct, rename={"global_": "global"}):
    """Both parts of a history, each sorted by time, all before the request."""

    global_: Annotated[list[PastEvent], Meta(max_length=20_000)] = []
    realtime: Annotated[list[PastEvent], Meta(max_length=20_000)] = []


class RankMessage(Struct):
    """Rank these items for this user."""

    user: Id
    items: Annotated[list[ItemMessage], Meta(min_length=1)]
    id: Annotated[Id | None, Meta(description="Of the ranking; by default the request's id")] = None
    model: Annotated[Id | None, Meta(description="By default the only or first model")] = None
    timestamp: Annotated[Time | None, Meta(description="Of the request; by default now")] = None
    context: Fields = {}
    explain: Annotated[
        bool, Meta(description="Say which past events drew attention, the newest in any case")
    ] = False
    history: Annotated[
        HistoryMessage | None, Meta(description="Goes before the store's history")
    ] = None


T = TypeVar("T")

_LOOSE = msgspec.json.Decoder(float_hook=float)
"""Anything; a number too large for a float is infinite"""

_OBJECTS_MAX, _KEYS_MAX = 100_000, 600_000


def without_mark(body: bytes) -> bytes:
    """The body without the mark (BOM) that some programs begin UTF-8 with."""
    return body.removeprefix(codecs.BOM_UTF8)


def check_size(body: bytes) -> None:
    """Raises Refusal (413) for a body whose few bytes would become very many values: more objects
    or keys than any request within the limits has.
    """
    if body.count(b"{") > _OBJECTS_MAX or body.count(b":") > _KEYS_MAX:
        raise Refusal(
            413,
            "too_many_values",
            f"more than {_OBJECTS_MAX:,} objects or {_KEYS_MAX:,} keys; send smaller bodies",
        )


def oversized(fields: Mapping[str, Any]) -> str | None:
    """What is wrong with fields of more than 64 KiB of JSON, else None."""
    size = len(msgspec.json.encode(fields))
    return f"{size:,} bytes of JSON; at most {FIELDS_BYTES:,}" if size > FIELDS_BYTES else None


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type.

    Raises Refusal: 400 where it is no JSON, 422 naming the field where it is something else.
    """
    if not body.strip():
        raise Refusal(400, "malformed_json", "the body is empty: expected JSON")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise refused(error, body) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, "malformed_json", f"the body is not JSON: {problem}") from error


def refused(error: Exception, body: bytes | msgspec.Raw) -> Refusal:
    """``Expected `str`, got `null` - at `$.user` `` as a 422 about the field ``user`` of the
    body.
    """
    message, _, place = str(error).partition(" - at ")
    field = place.replace("`", "").removeprefix("key in ").removeprefix("$").removeprefix(".")
    missing = re.search(r"missing required field `([^`]+)`", message)
    if missing is not None:
        field, message = f"{field}.{missing[1]}".removeprefix("."), "this field is required"
    elif place.startswith("`key`") or "[...]" in field:
        field, message = _column(field.partition("[...]")[0], message, body)
    return Refusal(422, "invalid", message.replace("`", ""), field=field or None)


def _column(fields: str, message: str, body: bytes | msgspec.Raw) -> tuple[str, str]:
    """Field and message where msgspec says which fields hold a wrong value or name, and not whose
    it is.
    """
    try:
        found = _LOOSE.decode(body)
        for step in re.findall(r"[^.\[\]]+", fields):
            found = found[int(step) if isinstance(found, list) else step]
        columns = list(found.items())
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
    ):
        return fields, message  # nested too deep, malformed further on, or named twice
    for name, value in columns:
        if len(name) > _NAME_MAX:
            return (
                fields,
                f"expected columns' names of at most {_NAME_MAX} characters, "
                f"found {name[:40]!r}...",
            )
        if (
            math.inf in (parts := value if isinstance(value, list) else [value])
            or -math.inf in parts
        ):
            return f"{fields}.{name}", message
        try:
            msgspec.convert(value, Value)
        except msgspec.ValidationError as error:
            problem, _, within = str(error).partition(" - at `$")
            return f"{fields}.{name}{within.strip('`')}", problem
    return fields, message
