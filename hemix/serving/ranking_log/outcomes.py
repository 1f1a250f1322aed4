"""The outcomes of logged rankings: which events answer which ranking, and with which labels.

An event answers a ranking of its user with the event's ranking id and item; of several, the newest
at the event's time. Ranking ids may repeat: two users may choose one id, and a client may repeat a
request.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa

from hemix.schema import Schema
from hemix.serving.field_validation import position_of
from hemix.serving.ranking_log.tables import LogTables

__all__ = ["Outcome", "Outcomes"]

CandidateKey: TypeAlias = tuple[str, str, str]
"""Ranking id, user and item"""

_TOLERANCE_MS = 1
"""A ranking without a time of its own is logged a millisecond after its request"""


@dataclass(slots=True)
class _Answer:
    """An event that answers a ranking."""

    time_ms: int | None
    action: str | None
    position: Any
    """JSON value of its fields; None without one"""


@dataclass(slots=True)
class Outcome:
    """The outcome of one candidate of one ranking."""

    first_ms: dict[str, int | None] = field(default_factory=dict)
    """Positive label -> time when it became known."""
    position: int | None = None


@dataclass(slots=True)
class _RankingsOfKey:
    """The rankings of one key, by time."""

    times_ms: list[int] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)

    def add(self, time_ms: int, request_id: str) -> None:
        """Add a ranking once, although an item may occur twice in it.

        Args:
            time_ms: Time of its request; at equal times the ranking of the later file follows.
            request_id: Unique id of the ranking.
        """
        if request_id not in self.request_ids:
            index = bisect_right(self.times_ms, time_ms)
            self.times_ms.insert(index, time_ms)
            self.request_ids.insert(index, request_id)

    def answered_by(self, time_ms: int | None) -> str:
        """Return the newest ranking at a time; the first where all are later."""
        if time_ms is None:
            return self.request_ids[-1]
        index = bisect_right(self.times_ms, time_ms + _TOLERANCE_MS)
        return self.request_ids[max(index - 1, 0)]


class Outcomes:
    """Collects all events, then all rankings; then returns the outcome of each candidate."""

    def __init__(self, schema: Schema) -> None:
        tables = LogTables(schema)
        clock, action = tables.columns.clock, tables.columns.action
        self._labels, self._bias = schema.labels, schema.roles.bias
        key = ["served_ranking", schema.user, schema.item]
        self.event_columns = [
            *key,
            clock,
            action,
            "served_event",
            "served_kind",
            "served_fields",
        ]
        """The columns of logged events that :meth:`add_events` reads"""
        self.ranking_columns = [*key, schema.clock.column, tables.request_id]
        """The columns of logged rankings that :meth:`add_rankings` reads"""
        self._answers: dict[CandidateKey, dict[str, _Answer]] = {}
        self._rankings: dict[CandidateKey, _RankingsOfKey] = {}
        self._labels_of_action: dict[str, list[str]] = {}
        for name, label in schema.labels.items():
            for label_action in {name, label.column or name}:
                self._labels_of_action.setdefault(label_action, []).append(name)
        self._invalid_positions: set[tuple[CandidateKey, str]] = set()

    @property
    def invalid_positions(self) -> int:
        """Number of answering events whose position is no whole number of at least 0."""
        return len(self._invalid_positions)

    def add_events(self, events: pa.Table) -> None:
        """Collect a table of events. An event in several logs counts once."""
        columns = [_values(events, name) for name in self.event_columns]
        for ranking, user, item, time_ms, action, event, kind, fields in zip(*columns, strict=True):
            if ranking is not None and kind in ("interaction", "impression"):
                answers = self._answers.setdefault((ranking, user, item), {})
                answers.setdefault(event, _Answer(time_ms, action, self._position(fields)))

    def _position(self, fields: str | None) -> Any:
        if self._bias is None or not fields:
            return None
        return json.loads(fields).get(self._bias.column)

    def add_rankings(self, rankings: pa.Table) -> None:
        """Collect those rankings of a table that an event answers, in the order of the files."""
        for key, time_ms, request_id in self._ranking_rows(rankings):
            if key in self._answers:
                self._rankings.setdefault(key, _RankingsOfKey()).add(time_ms, request_id)

    def of(self, rankings: pa.Table) -> list[Outcome | None]:
        """Return the outcome of every row of rankings; None where no event answers."""
        rows = self._ranking_rows(rankings)
        return [self._outcome(key, request_id) for key, _, request_id in rows]

    def _ranking_rows(self, rankings: pa.Table) -> Iterator[tuple[CandidateKey, int, str]]:
        columns = [_values(rankings, name) for name in self.ranking_columns]
        for ranking, user, item, time_ms, request_id in zip(*columns, strict=True):
            yield (ranking, user, item), time_ms, request_id

    def _outcome(self, key: CandidateKey, request_id: str) -> Outcome | None:
        rankings = self._rankings.get(key)
        if rankings is None:
            return None
        answers = {
            event: answer
            for event, answer in self._answers[key].items()
            if rankings.answered_by(answer.time_ms) == request_id
        }
        if not answers:
            return None
        outcome = Outcome()
        for event, answer in answers.items():
            position = position_of(answer.position)
            if position is not None and outcome.position is None:
                outcome.position = position
            if answer.position is not None and position is None:
                self._invalid_positions.add((key, event))
            for label in self._labels_of_action.get(answer.action or "", ()):
                self._set_positive(outcome, label, answer.time_ms)
        return outcome

    def _set_positive(self, outcome: Outcome, label: str | None, time_ms: int | None) -> None:
        """Set a label and the labels that it depends on: an order implies an earlier click."""
        while label is not None:
            times = [t for t in (outcome.first_ms.get(label), time_ms) if t is not None]
            outcome.first_ms[label] = min(times, default=None)
            label = self._labels[label].given


def _values(table: pa.Table, name: str) -> list[Any]:
    column = table[name]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values
