"""The bodies of requests as types: decoded straight into them, and described by them in OpenAPI.

Knows shapes and ranges; what the schema's columns hold is checked in checks.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from hemix.data.clock import EARLIEST_MS, LATEST_MS
from hemix.serving.http.refusal import Refusal

__all__ = [
    "EVENTS_MAX",
    "EventMessage",
    "HistoryMessage",
    "ItemMessage",
    "PastEvent",
    "RankMessage",
    "check_size",
    "decode",
    "refused",
]

EVENTS_MAX = 10_000
"""Of one body"""
_INT64 = 2**63 - 1

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Time = Annotated[int, Meta(ge=EARLIEST_MS, le=LATEST_MS, description="Milliseconds UTC, of the years 1990 to 2099")]
Whole = Annotated[int, Meta(ge=-_INT64, le=_INT64)]
Text = Annotated[str, Meta(max_length=4096)]
Part = Whole | float | Text | bool | None
Value = Whole | float | Text | bool | None | Annotated[list[Part], Meta(max_length=4096)]
Fields = Annotated[
    dict[Annotated[str, Meta(max_length=256)], Value],
    Meta(
        description="Values by column of the schema. A column that is not there, or null, is missing; other columns are left aside"
    ),
]


class EventMessage(Struct, rename={"kind": "event", "action": "type"}):
    """Something that happened. An interaction or impression needs user and item, a user event user, an item event item."""

    kind: Literal["interaction", "impression", "user", "item"]
    id: Annotated[Id, Meta(description="Accepted once for its user, or its item: a second event of this id is a duplicate")]
    timestamp: Annotated[Time | None, Meta(description="When it happened; by default the moment of its arrival")] = None
    user: Id | None = None
    item: Id | None = None
    action: Annotated[
        Annotated[str, Meta(max_length=256)] | None, Meta(description="What the user did: the schema's history.action")
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
    explain: Annotated[bool, Meta(description="Say which past events drew attention")] = False
    history: Annotated[HistoryMessage | None, Meta(description="Goes before the store's history")] = None


T = TypeVar("T")

_OBJECTS_MAX, _KEYS_MAX = 100_000, 600_000


def check_size(body: bytes) -> None:
    """Raises Refusal (413) for a body whose few bytes would become very many values: more objects or keys than any request within the
    limits has."""
    if body.count(b"{") > _OBJECTS_MAX or body.count(b":") > _KEYS_MAX:
        raise Refusal(413, "too_many_values", f"more than {_OBJECTS_MAX:,} objects or {_KEYS_MAX:,} keys; send smaller bodies")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type. Raises Refusal: 400 where it is no JSON, 422 naming the field where it is something else."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise refused(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, "malformed_json", f"the body is not JSON: {problem}") from error


def refused(error: Exception) -> Refusal:
    """``Expected `str`, got `null` - at `$.user` `` as a 422 about the field ``user``."""
    message, _, place = str(error).partition(" - at ")
    field = place.strip("`").removeprefix("$").removeprefix(".").removeprefix("key in ")
    missing = re.search(r"missing required field `([^`]+)`", message)
    if missing is not None:
        field, message = f"{field}.{missing[1]}".removeprefix("."), "this field is required"
    return Refusal(422, "invalid", message.replace("`", ""), field=field or None)
