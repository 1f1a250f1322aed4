"""POST /v1/events without its HTTP: a body to events, each taken or rejected by its index, and what
is said of them.

One wrong event does not spoil its body; a body that is not JSON does. Of several models each reads
the fields that it can: a value is wrong where no model that has its column can read it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hemix.serving.checks import FieldChecks
from hemix.serving.http.messages import (
    EVENTS_MAX,
    FIELDS_BYTES,
    EventMessage,
    check_size,
    decode,
    oversized,
    refused,
    without_mark,
)
from hemix.serving.http.refusal import Refusal
from hemix.serving.http.service import Limits
from hemix.serving.types import Event

__all__ = ["Taken", "read_events"]

_ALL = msgspec.json.Decoder(list[EventMessage])
_EACH = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.json.Decoder(EventMessage)
_VALUES_MAX = 500_000
"""A body with a wrong event is taken apart value by value"""
_NEEDS = {
    "interaction": ("user", "item"),
    "impression": ("user", "item"),
    "user": ("user",),
    "item": ("item",),
}


@dataclass
class Taken:
    """The events of a body that can be stored, and those that cannot."""

    events: list[Event] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    unusable: Counter[str] = field(default_factory=Counter)
    """By model: values that it cannot read and another model can"""

    def reject(self, index: int, code: str, message: str, where: str | None) -> None:
        """Say why an event is left out."""
        self.rejected.append({"index": index, "code": code, "message": message, "field": where})


def read_events(body: bytes, checks: Mapping[str, FieldChecks], limits: Limits) -> Taken:
    """Read a JSON array, one object, or NDJSON.

    Args:
        body: UTF-8.
        checks: Of every model that serves, by its name.
        limits: Of the server.

    Returns:
        What can be stored, and what cannot, each with its index.

    Raises:
        Refusal: 400 where the body is no JSON, 413 for too many events.
    """
    body, taken = without_mark(body), Taken()
    now_ms = int(time.time() * 1000)
    large = len(body) > FIELDS_BYTES
    for index, message in _messages(body, taken):
        problem = oversized(message.fields) if large else None
        if problem is not None:
            taken.reject(index, "invalid", problem, "fields")
            continue
        event = _event(index, message, now_ms, checks, limits, taken)
        if event is not None:
            taken.events.append(event)
    taken.rejected.sort(key=lambda one: int(one["index"]))
    return taken


def _messages(body: bytes, taken: Taken) -> Iterator[tuple[int, EventMessage]]:
    check_size(body)
    if body.lstrip()[:1] == b"[":
        try:
            found = _ALL.decode(body)
        except (msgspec.ValidationError, RecursionError):
            if body.count(b",") > _VALUES_MAX:
                raise _too_many_values() from None
            yield from _each(decode(_EACH, body), taken)
            return
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(400, "malformed_json", f"the body is not JSON: {error}") from error
        _check_count(len(found))
        yield from enumerate(found)
        return
    if body.count(b"\n") + body.count(b"\r") > _VALUES_MAX:
        raise _too_many_values()
    first, *more = body.splitlines() or [b""]
    lines = [
        line for line in (first, *map(without_mark, more)) if line.strip()
    ]  # joined files may each begin with a mark
    if not lines:
        raise Refusal(
            400, "malformed_json", "the body is empty: expected a JSON array, or one object a line"
        )
    try:
        msgspec.json.decode(lines[0], type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        lines = [body]  # one object over several lines
    yield from _each([msgspec.Raw(line) for line in lines], taken)


def _too_many_values() -> Refusal:
    return Refusal(
        413,
        "too_many_values",
        f"more than {_VALUES_MAX:,} values or lines, some wrong; send smaller bodies",
    )


def _each(raw: list[msgspec.Raw], taken: Taken) -> Iterator[tuple[int, EventMessage]]:
    _check_count(len(raw))
    for index, one in enumerate(raw):
        try:
            yield index, _ONE.decode(one)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _check_json(index, one)
            refusal = refused(error, one)
            taken.reject(index, refusal.code, refusal.message, refusal.field)


def _check_json(index: int, one: msgspec.Raw) -> None:
    """What is of the wrong type is found before what is malformed behind it."""
    try:
        msgspec.json.decode(one)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refusal(
            400, "malformed_json", f"event {index}: not JSON: {problem}", field=f"[{index}]"
        ) from error


def _check_count(events: int) -> None:
    if events > EVENTS_MAX:
        raise Refusal(413, "too_many_events", f"{events:,} events; at most {EVENTS_MAX:,} a body")


def _event(
    index: int,
    message: EventMessage,
    now_ms: int,
    checks: Mapping[str, FieldChecks],
    limits: Limits,
    taken: Taken,
) -> Event | None:
    for name in _NEEDS[message.kind]:
        if getattr(message, name) is None:
            taken.reject(index, "invalid", f"an event {message.kind} needs this field", name)
            return None
    time_ms = message.timestamp if message.timestamp is not None else now_ms
    if time_ms > now_ms + limits.future_ms:
        ahead = (time_ms - now_ms) / 1000
        taken.reject(
            index,
            "future_timestamp",
            f"{ahead:,.0f} s ahead of the server's clock: is it in milliseconds?",
            "timestamp",
        )
        return None
    time_ms = min(
        time_ms, now_ms
    )  # what has arrived has happened; else the next ranking would be before it
    level = message.kind if message.kind in ("user", "item") else "event"
    problem = _problem(level, message.fields, checks, taken.unusable)
    if problem is not None:
        taken.reject(index, "invalid", problem[1], f"fields.{problem[0]}")
        return None
    of_user, of_item = message.kind != "item", message.kind != "user"
    return Event(
        id=message.id,
        kind=message.kind,
        time_ms=time_ms,
        user=message.user if of_user else None,
        item=message.item if of_item else None,
        action=message.action if level == "event" else None,
        fields=message.fields,
        ranking=message.ranking,
        received_ms=now_ms,
    )


def _problem(
    level: str, fields: Mapping[str, Any], checks: Mapping[str, FieldChecks], unusable: Counter[str]
) -> tuple[str, str] | None:
    """(column, sentence) of the first value that no model can read whose schema has its column
    (with ``--strict``: of a column that no schema has), or None; then ``unusable`` counts the
    values that some models cannot read."""
    if all(check.problem(level, fields) is None for check in checks.values()):
        return None
    counts = Counter[str]()
    for column, value in fields.items():
        problems = {name: check.problem(level, {column: value}) for name, check in checks.items()}
        readers = [name for name, check in checks.items() if check.reads(level, column)]
        refused_by = [name for name in readers or checks if problems[name] is not None]
        if refused_by and len(refused_by) == len(readers or checks):
            return problems[refused_by[0]]
        counts.update(refused_by)
    unusable.update(counts)
    return None
