"""Bodies of events: each event is parsed and validated; invalid ones are rejected by their index.

One invalid event does not fail its body; a body that is not JSON does. Of several models each reads
the fields that it can; a value is invalid where no model with its column can read it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import msgspec

from hemix.serving.field_validation import FieldValidator
from hemix.serving.http.messages import (
    MAX_EVENTS,
    MAX_FIELDS_BYTES,
    ApiError,
    EventMessage,
    check_size,
    decode,
    fields_problem,
    strip_bom,
    validation_error,
)
from hemix.serving.http.service import RequestLimits
from hemix.serving.types import Event

__all__ = ["EventsResponse", "ParsedEvents", "read_events"]

_ALL_DECODER = msgspec.json.Decoder(list[EventMessage])
_RAW_DECODER = msgspec.json.Decoder(list[msgspec.Raw])
_EVENT_DECODER = msgspec.json.Decoder(EventMessage)
_MAX_VALUES = 500_000
"""Maximum values of a body with an invalid event, which is decoded event by event"""
_REQUIRED = {
    "interaction": ("user",),
    "impression": ("user", "item"),
    "user": ("user",),
    "item": ("item",),
}


class RejectedEvent(TypedDict):
    """An event that was not stored, by its index in the body."""

    index: int
    code: str
    message: str
    field: str | None


class EventsResponse(TypedDict):
    """How many events of a body were new and known, and those that were rejected."""

    accepted: int
    duplicate: int
    rejected: list[RejectedEvent]
    took_ms: float


@dataclass
class ParsedEvents:
    """The valid events of a body, and the rejected ones."""

    events: list[Event] = field(default_factory=list)
    rejected: list[RejectedEvent] = field(default_factory=list)
    unusable: Counter[str] = field(default_factory=Counter)
    """By model: values that it cannot read and another model can."""

    def reject(self, index: int, code: str, message: str, field: str | None) -> None:
        """Reject an event.

        Args:
            index: Index of the event in the body.
            code: Code of the problem.
            message: One sentence for a person.
            field: Path of the invalid field in the event.
        """
        self.rejected.append({"index": index, "code": code, "message": message, "field": field})


class _EventError(Exception):
    """An invalid event."""

    def __init__(self, code: str, message: str, field: str | None) -> None:
        super().__init__(message)
        self.code, self.message, self.field = code, message, field


def read_events(
    body: bytes, checks: Mapping[str, FieldValidator], limits: RequestLimits
) -> ParsedEvents:
    """Read a JSON array, one object, or NDJSON.

    Args:
        body: UTF-8.
        checks: Validation of every model's fields, by the model's name.
        limits: Limits of the server.

    Returns:
        Valid events, and rejected ones with their indexes.

    Raises:
        ApiError: 400 where the body is not JSON, 413 for too many events.
    """
    body, parsed = strip_bom(body), ParsedEvents()
    now_ms = int(time.time() * 1000)
    large = len(body) > MAX_FIELDS_BYTES
    for index, message in _messages(body, parsed):
        try:
            problem = fields_problem(message.fields) if large else None
            if problem is not None:
                raise _EventError("invalid", problem, "fields")
            event = _to_event(message, now_ms, limits)
            unusable = _check_fields(message, checks)
            if unusable:
                parsed.unusable.update(unusable)
            parsed.events.append(event)
        except _EventError as error:
            parsed.reject(index, error.code, error.message, error.field)
    parsed.rejected.sort(key=lambda rejected: rejected["index"])
    return parsed


def _messages(body: bytes, parsed: ParsedEvents) -> Iterator[tuple[int, EventMessage]]:
    """Yield index and message of each event that can be decoded; reject the others."""
    check_size(body)
    if body.lstrip()[:1] != b"[":
        yield from _decode_each(_lines(body), parsed)
        return
    try:
        messages = _ALL_DECODER.decode(body)
    except (msgspec.ValidationError, RecursionError):
        if body.count(b",") > _MAX_VALUES:
            raise _too_many_values() from None
        yield from _decode_each(decode(_RAW_DECODER, body), parsed)
        return
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "malformed_json", f"the body is not JSON: {error}") from error
    _check_count(len(messages))
    yield from enumerate(messages)


def _lines(body: bytes) -> list[msgspec.Raw]:
    """Split NDJSON into its lines; an object over several lines is one."""
    if body.count(b"\n") + body.count(b"\r") > _MAX_VALUES:
        raise _too_many_values()
    first, *others = body.splitlines() or [b""]
    # concatenated files may each begin with a byte order mark
    lines = [line for line in (first, *map(strip_bom, others)) if line.strip()]
    if not lines:
        raise ApiError(
            400, "malformed_json", "the body is empty: expected a JSON array, or one object a line"
        )
    try:
        msgspec.json.decode(lines[0], type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        lines = [body]
    return [msgspec.Raw(line) for line in lines]


def _too_many_values() -> ApiError:
    return ApiError(
        413,
        "too_many_values",
        f"more than {_MAX_VALUES:,} values or lines, some invalid; send smaller bodies",
    )


def _decode_each(
    raw_events: list[msgspec.Raw], parsed: ParsedEvents
) -> Iterator[tuple[int, EventMessage]]:
    _check_count(len(raw_events))
    for index, raw in enumerate(raw_events):
        try:
            yield index, _EVENT_DECODER.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _check_json(index, raw)
            invalid = validation_error(error, raw)
            parsed.reject(index, invalid.code, invalid.message, invalid.field)


def _check_json(index: int, raw: msgspec.Raw) -> None:
    """Refuse malformed JSON, which the typed decoder may miss behind a value of a wrong type."""
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
        message = f"event {index}: not JSON: {problem}"
        raise ApiError(400, "malformed_json", message, field=f"[{index}]") from error


def _check_count(events: int) -> None:
    if events > MAX_EVENTS:
        raise ApiError(413, "too_many_events", f"{events:,} events; at most {MAX_EVENTS:,} a body")


def _to_event(message: EventMessage, now_ms: int, limits: RequestLimits) -> Event:
    for name in _REQUIRED[message.kind]:
        if getattr(message, name) is None:
            raise _EventError("invalid", f"an event {message.kind} needs this field", name)
    time_ms = message.timestamp if message.timestamp is not None else now_ms
    if time_ms > now_ms + limits.future_ms:
        lead = (time_ms - now_ms) / 1000
        raise _EventError(
            "future_timestamp",
            f"{lead:,.0f} s ahead of the server's clock: is it in milliseconds?",
            "timestamp",
        )
    return Event(
        id=message.id,
        kind=message.kind,
        # not after its arrival, or the next ranking would not see it
        time_ms=min(time_ms, now_ms),
        user=message.user if message.kind != "item" else None,
        item=message.item if message.kind != "user" else None,
        action=message.action if message.kind in ("interaction", "impression") else None,
        fields=message.fields,
        ranking=message.ranking,
        received_ms=now_ms,
    )


def _check_fields(message: EventMessage, checks: Mapping[str, FieldValidator]) -> Mapping[str, int]:
    """Validate an event's fields.

    Returns:
        By model, the number of values that it cannot read and another model can.

    Raises:
        _EventError: No model with a column of this name can read its value. In strict mode also: no
            model has such a column.
    """
    level = message.kind if message.kind in ("user", "item") else "event"
    if all(check.problem(level, message.fields) is None for check in checks.values()):
        return {}
    unusable = Counter[str]()
    for column, value in message.fields.items():
        problems = {name: check.problem(level, {column: value}) for name, check in checks.items()}
        with_column = [name for name, check in checks.items() if check.reads(level, column)]
        readers = with_column or list(checks)
        failed = {name: problems[name] for name in readers if problems[name] is not None}
        if failed and len(failed) == len(readers):
            _, problem = next(each for each in failed.values() if each is not None)
            raise _EventError("invalid", problem, f"fields.{column}")
        unusable.update(failed.keys())
    return unusable
