"""Which events answered to which ranking, and what they say of its candidates.

An event answers to a ranking of its user that has its ranking id and its item: to the newest one
at the event's time. Two users may choose one id, and a client may send a request again with its
id. Reads tables of a log, writes none.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa

from hemix.schema import Schema
from hemix.serving.checks import position_of
from hemix.serving.served.columns import ServedColumns

__all__ = ["Outcome", "Outcomes"]

Key: TypeAlias = tuple[str, str, str]
"""Ranking id, user and item"""

_AHEAD_MS = 1
"""A ranking without a time of its own lies a millisecond after its request"""


@dataclass(slots=True)
class _Answer:
    """What one event says of a candidate."""

    time_ms: int | None
    action: str | None
    position: Any
    """As its fields have it; None where they do not"""


@dataclass(slots=True)
class Outcome:
    """What is known of one candidate of one ranking."""

    first_ms: dict[str, int | None] = field(default_factory=dict)
    """Positive label -> when it was known first"""
    position: int | None = None


@dataclass(slots=True)
class _Rankings:
    """The rankings of one key, by time."""

    times_ms: list[int] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def add(self, time_ms: int, request: str) -> None:
        """An item may be twice in one request, which is one ranking; at equal times the later file
        follows."""
        if request not in self.requests:
            at = bisect_right(self.times_ms, time_ms)
            self.times_ms.insert(at, time_ms)
            self.requests.insert(at, request)

    def answered(self, time_ms: int | None) -> str:
        """The newest ranking at a time; the first where all are later."""
        at = (
            len(self.times_ms)
            if time_ms is None
            else bisect_right(self.times_ms, time_ms + _AHEAD_MS)
        )
        return self.requests[max(at - 1, 0)]


class Outcomes:
    """First takes in all events, then all rankings; then says what is known of a candidate."""

    def __init__(self, schema: Schema) -> None:
        columns = ServedColumns(schema)
        self._schema, self._bias, self._request = schema, schema.roles.bias, columns.request_id
        self._clock, self._action, self._ranked = columns.clock, columns.action, schema.clock.column
        key = ["served_ranking", schema.user, schema.item]
        self.event_columns = [
            *key,
            self._clock,
            self._action,
            "served_event",
            "served_kind",
            "served_fields",
        ]
        """The columns of a log's events that say what became of a ranking"""
        self.ranking_columns = [*key, self._ranked, self._request]
        """The columns of a log's rankings that say which one an event answers to"""
        self._answers: dict[Key, dict[str, _Answer]] = {}
        self._rankings: dict[Key, _Rankings] = {}
        self._types: dict[str, list[str]] = {}
        for name, label in schema.labels.items():
            for kind in {name, label.column or name}:
                self._types.setdefault(kind, []).append(name)
        self._without_position: set[tuple[Key, str]] = set()

    @property
    def positions_left_out(self) -> int:
        """Events of the candidates asked for whose position is no whole number of at least 0."""
        return len(self._without_position)

    def learn(self, events: pa.Table) -> None:
        """Take in a table of events. An event that lies in several logs counts once."""
        columns = [_values(events, name) for name in self.event_columns]
        for ranking, user, item, time_ms, action, event, kind, fields in zip(*columns, strict=True):
            if ranking is not None and kind in ("interaction", "impression"):
                of_event = self._answers.setdefault((ranking, user, item), {})
                of_event.setdefault(event, _Answer(time_ms, action, self._position(fields)))

    def _position(self, fields: str | None) -> Any:
        if self._bias is None or not fields:
            return None
        return json.loads(fields).get(self._bias.column)

    def see(self, rankings: pa.Table) -> None:
        """Take in a table of rankings, of which those count that an event names. Tables come in the
        order of their files."""
        for key, time_ms, request in self._rows(rankings):
            if key in self._answers:
                self._rankings.setdefault(key, _Rankings()).add(time_ms, request)

    def of(self, rankings: pa.Table) -> list[Outcome | None]:
        """For every row of a table of rankings: what is known of it, None where no event
        answered."""
        return [self._outcome(key, request) for key, _, request in self._rows(rankings)]

    def _rows(self, rankings: pa.Table) -> Iterator[tuple[Key, int, str]]:
        columns = [_values(rankings, name) for name in self.ranking_columns]
        for ranking, user, item, time_ms, request in zip(*columns, strict=True):
            yield (ranking, user, item), time_ms, request

    def _outcome(self, key: Key, request: str) -> Outcome | None:
        rankings = self._rankings.get(key)
        if rankings is None:
            return None
        answers = [
            (event, one)
            for event, one in self._answers[key].items()
            if rankings.answered(one.time_ms) == request
        ]
        if not answers:
            return None
        outcome = Outcome()
        for event, one in answers:
            position = position_of(one.position)
            if position is not None and outcome.position is None:
                outcome.position = position
            if one.position is not None and position is None:
                self._without_position.add((key, event))
            for label in self._types.get(one.action or "", ()):
                self._positive(outcome, label, one.time_ms)
        return outcome

    def _positive(self, outcome: Outcome, label: str | None, time_ms: int | None) -> None:
        """A label and all that it depends on: whoever ordered has clicked, by then at the
        latest."""
        while label is not None:
            before = outcome.first_ms.get(label)
            outcome.first_ms[label] = min(
                (t for t in (before, time_ms) if t is not None), default=None
            )
            label = self._schema.labels[label].given


def _values(table: pa.Table, name: str) -> list[Any]:
    column = table[name]
    values: list[Any] = (
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    ).to_pylist()
    return values
