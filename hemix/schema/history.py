"""The behaviour history: where events come from, their fields, and which events a request sees."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from hemix.features import Categorical
from hemix.features.base import SchemaSection
from hemix.features.match_counts import MatchCounts
from hemix.moments import DurationMs, WindowMs
from hemix.schema.columns import Feature

__all__ = ["History"]

_MAX_EVENTS = 2**31 - 1


def _section_or_off(value: Any) -> Any:
    """Take ``true`` for a section of defaults and ``false`` for none."""
    return ({} if value else None) if isinstance(value, bool) else value


class History(SchemaSection):
    """A user's behaviour history.

    A request sees the events that lie strictly before its time minus the delay.
    """

    source: Literal["events", "impressions"] | None = None
    """By default the events table if the schema names one, else the impressions themselves."""
    clock_column: str | None = None
    """The clock column of the events table. By default it is that of the impressions.

    An event without a time is timeless: every request sees it, before all other events.
    """
    item_features: tuple[str, ...] | None = None
    """Item features that an event carries. They share the embedding tables of the candidates.

    By default all features that are categorical with one value, or numeric in buckets.
    """
    action: Categorical | None = None
    """The column with the user's action.

    Impressions as events take the name of their deepest positive label, or ``impression``.
    """
    fields: dict[str, Feature] = {}
    """Further fields of an event: columns of the events table, or calendar fields of its time."""
    global_length: Annotated[int, Field(ge=1, le=_MAX_EVENTS)] = 1000
    realtime_length: Annotated[int, Field(ge=1, le=_MAX_EVENTS)] = 100
    realtime_window_ms: Annotated[WindowMs, Field(alias="realtime_window")] = "day"
    """``day``: since the local day began. Or a duration."""
    delay_ms: Annotated[DurationMs, Field(alias="delay")] = 0
    """How long an event takes to reach the server in production. Training hides newer events; a
    server shows every event that it has.
    """
    counts: bool = False
    """Adds context numbers: how many events a request sees today and before, and how many of each
    action.
    """
    match_counts: Annotated[
        MatchCounts | None,
        BeforeValidator(_section_or_off, json_schema_input_type=MatchCounts | bool | None),
    ] = MatchCounts()
    """Adds cross numbers: how many events share a value with a candidate. None (``false``): off."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
