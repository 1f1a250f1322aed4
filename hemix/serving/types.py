"""What goes into the server and what comes out of it, as plain values.

Ids are text: an integer column matches its decimal text. Times are milliseconds UTC. Knows neither
HTTP, nor stores, nor models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Because",
    "Cache",
    "Candidate",
    "Event",
    "Features",
    "History",
    "HistoryOverride",
    "Kind",
    "RankRequest",
    "RankedItem",
    "Ranking",
    "Status",
]

Kind = Literal["interaction", "impression", "user", "item"]
Status = Literal["OK", "UNKNOWN_ITEM", "NO_SCORE"]
"""``NO_SCORE``: of an item that is known, but has no score"""
Cache = Literal["hit", "extended", "miss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened: a user did something with an item or was shown it, or a user or an
    item has new features.
    """

    id: str
    """Accepted once for its user, or its item where it is an item's: a second of the same id is a
    duplicate, whatever it says
    """
    kind: Kind
    time_ms: int
    """When it happened; :data:`hemix.data.spec.TIMELESS_MS` where that is not known"""
    user: str | None = None
    """None for an item's features"""
    item: str | None = None
    """None for a user's features"""
    action: str | None = None
    """What the user did, the schema's ``history.action``"""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """JSON values by column: an event's own fields, or features.

    A null says that the value is missing
    """
    ranking: str | None = None
    """The id of the ranking that it answers to"""
    received_ms: int = 0
    """When the server took it"""


@dataclass(frozen=True, slots=True)
class History:
    """A user's newest events, or those that are new since they were last read."""

    revision: int = 0
    """Moves with every write and with expiry, and never comes back for other content; 0: no
    events
    """
    events: tuple[Event, ...] = ()
    """By time, at equal times in the order of their arrival"""
    after: int = 0
    """Not 0: ``events`` are those that arrived after this revision.

    The earlier ones are as they were, but the oldest may be gone
    """
    kept: int = 0
    """With ``after``: how many events there are in all, old and new, the newest by time"""


@dataclass(frozen=True, slots=True)
class Features:
    """What live events said of a user or an item: of every column the value of the newest event (by
    time, then arrival).
    """

    revision: int = 0
    """Moves with every write and never comes back for other content; 0: nothing was said"""
    values: Mapping[str, Any] = field(default_factory=dict)
    since_ms: int = 0
    """The time of the newest event among those that gave the values"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOverride:
    """Both parts of a history, instead of the store's.

    Every event lies before the request; each part by time.
    """

    global_: tuple[Event, ...] = ()
    realtime: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item to rank."""

    id: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """JSON values of item and cross columns, for this request alone"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """Rank these items for this user, now."""

    id: str
    user: str
    time_ms: int
    items: tuple[Candidate, ...]
    context: Mapping[str, Any] = field(default_factory=dict)
    """JSON values of context columns"""
    explain: bool = False
    history: HistoryOverride | None = None


@dataclass(frozen=True, slots=True)
class Because:
    """A past event that drew attention."""

    item: str
    weight: float
    """Its share of the attention, mean over queries, heads and histories: 0 to 1"""
    age_seconds: float | None
    """None for an event without a time"""
    action: str | None = None


@dataclass(slots=True)
class RankedItem:
    """An item with its place in the ranking.

    Not frozen: that takes several times as long to make, and a ranking makes hundreds.
    """

    id: str
    score: float
    """NaN where the item has none: a column of the score expression is missing, or its value is not
    finite"""
    outputs: Mapping[str, float]
    """Probabilities, by the schema's outputs"""
    status: Status = "OK"
    because: tuple[Because, ...] = ()
    position: int = 0
    """Where it stood in the request"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer to a request."""

    id: str
    model: str
    version: str
    items: tuple[RankedItem, ...]
    """By falling score; equal scores in the order of the request, items without a score last"""
    degraded: tuple[str, ...] = ()
    """What it had to do without: ``history`` and ``features`` that the store did not give;
    ``early_history``, of a request so far in the past that its user's newest events, which are
    read, mostly lie after it
    """
    took_ms: float
    history_revision: int
    cuts: tuple[int, int, int]
    """Positions among the history's events: where the global part begins, where real time begins,
    where it ends
    """
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    """Where the time went: ``store``, ``encode``, ``user``, ``score``"""
    cache: Cache = "miss"
    """Whether the user's state was there already, was there but for new events, or was made"""
    user_known: bool = True
    newest_event_ms: int | None = None
    """The time of the newest event that it saw"""
