"""Inputs and outputs of the server as plain values.

Ids are text: an integer column matches its decimal text. Times are milliseconds UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Attribution",
    "CacheOutcome",
    "Candidate",
    "Event",
    "EventKind",
    "HistoryOverride",
    "LiveFeatures",
    "RankRequest",
    "RankedItem",
    "Ranking",
    "Status",
    "StoredHistory",
]

EventKind = Literal["interaction", "impression", "user", "item"]
Status = Literal["OK", "UNKNOWN_ITEM", "NO_SCORE"]
"""``NO_SCORE``: the item is known but has no score."""
CacheOutcome = Literal["hit", "extended", "miss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A user's action or an impression, or new features of a user or an item."""

    id: str
    """Unique for the event's user, or for the item of an ``item`` event.

    A second event of the same id is a duplicate, whatever its content.
    """
    kind: EventKind
    time_ms: int
    """Time of the event; :data:`hemix.data.spec.TIMELESS_MS` where it is unknown."""
    user: str | None = None
    """None for an item's features."""
    item: str | None = None
    """None for a user's features."""
    action: str | None = None
    """The user's action, a value of the schema's ``history.action``."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """JSON values by column: the event's own fields, or features. Null is a missing value."""
    ranking: str | None = None
    """Id of the ranking that the event answers."""
    received_ms: int = 0
    """When the server received it."""


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """A user's newest events, or the events that are new since the last read."""

    revision: int = 0
    """See :class:`hemix.serving.stores.base.Store`; 0: no events."""
    events: tuple[Event, ...] = ()
    """By event time, at equal times in the order of arrival."""
    after: int = 0
    """Not 0: ``events`` are those that arrived after this revision.

    The earlier events are unchanged, but the cap may have dropped the oldest.
    """
    total_events: int = 0
    """With ``after``: number of stored events, old and new."""


@dataclass(frozen=True, slots=True)
class LiveFeatures:
    """Features that events set for a user or an item: the newest value of every column.

    The newest value is that of the latest event time, then of the latest arrival.
    """

    revision: int = 0
    """See :class:`hemix.serving.stores.base.Store`; 0: no features."""
    values: Mapping[str, Any] = field(default_factory=dict)
    since_ms: int = 0
    """Time of the newest event that set one of the values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOverride:
    """Both histories of a request, which replace the store's.

    Every event precedes the request; each history is sorted by time.
    """

    global_: tuple[Event, ...] = ()
    realtime: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item to rank."""

    id: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """JSON values of item and cross columns, for this request only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """A request to rank items for a user at a time."""

    id: str
    user: str
    time_ms: int
    items: tuple[Candidate, ...]
    context: Mapping[str, Any] = field(default_factory=dict)
    """JSON values of context columns."""
    explain: bool = False
    history: HistoryOverride | None = None


@dataclass(frozen=True, slots=True)
class Attribution:
    """A past event and the attention that it received."""

    item: str | None
    """None for an event without an item."""
    weight: float
    """Fraction of the attention, mean over queries, heads and histories: 0 to 1."""
    age_seconds: float | None
    """None for an event without a time."""
    action: str | None = None


@dataclass(slots=True)
class RankedItem:
    """An item of a ranking.

    Not frozen: a frozen dataclass takes several times as long to construct, and a ranking
    constructs hundreds.
    """

    id: str
    score: float
    """NaN without a score: a column of the score expression is missing, or its value infinite."""
    outputs: Mapping[str, float]
    """Probabilities by the schema's outputs."""
    status: Status = "OK"
    attributions: tuple[Attribution, ...] = ()
    position: int = 0
    """Index in the request's items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer to a request."""

    id: str
    model: str
    version: str
    items: tuple[RankedItem, ...]
    """By descending score; equal scores in the request's order, items without a score last."""
    degraded: tuple[str, ...] = ()
    """Inputs that the ranking lacked.

    ``history`` and ``features``: the store did not return them. ``early_history``: the request is
    so old that most of its user's newest events, which the server reads, are later.
    """
    took_ms: float
    history_revision: int
    history_ranges: tuple[int, int, int]
    """Positions in the history: start of the global range, start and end of the real-time range."""
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    """Time spent in ``store``, ``encode``, ``user`` and ``score``, in ms."""
    cache: CacheOutcome = "miss"
    """Whether the cached user state was used, extended with new events, or computed."""
    user_known: bool = True
    newest_event_ms: int | None = None
    """Time of the newest event in the history ranges."""
