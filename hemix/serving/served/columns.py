"""Rankings and events as Arrow tables: the columns that the run's schema names, as `hemix prepare`
reads them, and beside them what a replay needs, under names that begin with ``served_``.

A ranking gives a row per candidate. Its labels are unknown (null) when it is served; what came of
it stands in the events. Values of context and cross columns are those of the request. Knows no
file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from hemix.data.levels import level_features
from hemix.data.spec import TIMELESS_MS
from hemix.data.texts import text_of
from hemix.schema import Schema
from hemix.serving.checks import FieldChecks
from hemix.serving.served.split import SplitTime
from hemix.serving.stores import StoreLimits
from hemix.serving.types import Event, Features, Ranking, RankRequest

__all__ = ["TIME", "Served", "ServedColumns"]

TIME = pa.timestamp("ms", tz="UTC")

_id_of, _fields_of = attrgetter("id"), attrgetter("fields")
_position_of, _score_of, _outputs_of, _status_of = map(
    attrgetter, ("position", "score", "outputs", "status")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A ranking with all that it was made of but the history, which the store keeps by revision."""

    request: RankRequest
    ranking: Ranking
    user: Features
    """What events had said of the user"""
    items: Mapping[str, Features]
    """What events had said of candidates and of the items of events"""
    events: int = 0
    """How many of the history's it read"""


class ServedColumns:
    """The tables of one schema."""

    def __init__(self, schema: Schema, limits: StoreLimits | None = None) -> None:
        """``limits``: those of the store that the rankings read."""
        self.schema, roles = schema, schema.roles
        self._cap = None if limits is None else limits.cap
        self._ttl_ms = None if limits is None else limits.ttl_ms
        checks = FieldChecks(schema)
        levels = ["context", "cross"] + (
            ["event"] if schema.history_source == "impressions" else []
        )
        self._context = _kinds(schema, "context")
        self._cross = {
            c: k
            for level in levels[1:]
            for c, k in _kinds(schema, level).items()
            if c not in self._context
        }
        self._own = {c for level in ("context", "cross") for c in _kinds(schema, level)}
        self._split_kind = pa.string() if isinstance(schema.split.valid, str) else pa.float64()
        self._split = None if schema.split.column == schema.clock.column else schema.split.column
        if (
            self._split is not None
        ):  # of the kind of its boundaries, or rows beside older logs could not be divided
            level = self._cross if self._split in self._cross else self._context
            level[self._split] = self._split_kind
        self.request_id = roles.request_id or "served_request"
        self._split_time = SplitTime(schema)
        self._fits: dict[str, Callable[[str, Any], bool]] = {
            "context": lambda c, v: checks.problem("context", {c: v}) is None,
            "cross": lambda c, v: checks.problem("candidate", {c: v}) is None,
            "event": lambda c, v: checks.problem("event", {c: v}) is None,
        }
        self.clock = schema.history.clock_column or schema.clock.column
        (self.action,) = schema.event_fields["action"].columns("action")
        self._event = {c: k for c, k in _kinds(schema, "event").items() if c != self.action}

    # -- rankings ----------------------------------------------------------------------------------

    def rankings(self, served: Sequence[Served], ids: Sequence[str]) -> pa.Table:
        """A row per candidate, in the order of each ranking; ``ids`` tell rankings apart whose own
        ids are the same.
        """
        schema, roles = self.schema, self.schema.roles
        counts = np.array([len(one.ranking.items) for one in served])
        of = pa.array(np.repeat(np.arange(len(served)), counts))
        items = [item for one in served for item in one.ranking.items]
        asked = [one.request.items[item.position] for one in served for item in one.ranking.items]
        with_fields = any(map(_fields_of, asked))

        def by_ranking(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
            return pa.array(values, kind).take(of)

        def by_fields(value: Callable[[Mapping[str, Any]], Any], kind: pa.DataType) -> pa.Array:
            """Of the fields that came with candidates, which they seldom do."""
            return (
                pa.array([value(c.fields) for c in asked], kind)
                if with_fields
                else pa.nulls(len(asked), kind)
            )

        columns: dict[str, pa.Array] = {
            schema.user: by_ranking([one.request.user for one in served], pa.string()),
            schema.item: pa.array(list(map(_id_of, asked)), pa.string()),
            schema.clock.column: by_ranking([one.request.time_ms for one in served], TIME),
            self.request_id: by_ranking(ids, pa.string()),
        }
        for column, kind in self._context.items():
            columns[column] = by_ranking(
                [self._of_context(column, kind, one.request) for one in served], kind
            )
        for column, kind in self._cross.items():
            columns[column] = by_fields(partial(self._cross_value, column, kind), kind)
        place = np.arange(len(items)) - np.repeat(np.cumsum(counts) - counts, counts)
        if roles.bias is not None:
            columns[roles.bias.column] = pa.array(place)
        if roles.weight is not None:
            columns[roles.weight] = pa.array(np.ones(len(items)))
        for name, label in schema.labels.items():
            columns[label.column or name] = pa.nulls(len(items), pa.int8())
            if label.available_at is not None:
                columns[label.available_at] = pa.nulls(len(items), TIME)
        outputs = list(map(_outputs_of, items))
        columns |= {
            "served_ranking": by_ranking([one.ranking.id for one in served], pa.string()),
            "served_model": by_ranking([one.ranking.model for one in served], pa.string()),
            "served_version": by_ranking([one.ranking.version for one in served], pa.string()),
            "served_place": pa.array(place),
            "served_candidate": pa.array(list(map(_position_of, items)), pa.int64()),
            "served_score": pa.array(
                list(map(_score_of, items)), pa.float64(), from_pandas=True
            ),  # NaN: null
            **{
                f"served_{n}": pa.array(list(map(itemgetter(n), outputs)), pa.float64())
                for n in schema.outputs
            },
            "served_status": pa.array(list(map(_status_of, items)), pa.string()),
            "served_history_revision": by_ranking(
                [one.ranking.history_revision for one in served], pa.int64()
            ),
            "served_history_events": by_ranking([one.events for one in served], pa.int64()),
            "served_history_cap": by_ranking([self._cap] * len(served), pa.int64()),
            "served_history_ttl_ms": by_ranking([self._ttl_ms] * len(served), pa.int64()),
            "served_cuts": by_ranking(
                [one.ranking.history_ranges for one in served], pa.list_(pa.int64())
            ),
            "served_degraded": by_ranking(
                [one.ranking.degraded for one in served], pa.list_(pa.string())
            ),
            "served_of_user": by_ranking([_features(one.user) for one in served], pa.string()),
            "served_of_items": by_ranking([_items(one) for one in served], pa.string()),
            "served_of_item": pa.concat_arrays([_of_candidates(one) for one in served]),
            "served_fields": by_fields(
                lambda f: _json({n: v for n, v in f.items() if n not in self._own}), pa.string()
            ),
        }
        return pa.table(columns)

    def with_split_kind(self, table: pa.Table) -> pa.Table:
        """Rankings as older servers logged them, with the column that divides the log of the kind
        of its boundaries."""
        if self._split is None or table[self._split].type == self._split_kind:
            return table
        values = [
            None if v is None else _split_value(v, self._split_kind)
            for v in table[self._split].to_pylist()
        ]
        return table.set_column(
            table.column_names.index(self._split), self._split, pa.array(values, self._split_kind)
        )

    # -- events ------------------------------------------------------------------------------------

    def events(self, events: Sequence[Event], revisions: Sequence[int]) -> pa.Table:
        """Interactions and impressions as an event log; ``revisions``: of the history when each was
        in it.
        """
        schema = self.schema
        columns: dict[str, pa.Array] = {
            schema.user: pa.array([e.user for e in events], pa.string()),
            schema.item: pa.array([e.item for e in events], pa.string()),
            self.clock: pa.array(
                [None if e.time_ms == TIMELESS_MS else e.time_ms for e in events], TIME
            ),
            self.action: pa.array([e.action for e in events], pa.string()),
        }
        for column, kind in self._event.items():
            columns[column] = pa.array(
                [self._value("event", column, kind, e.fields.get(column)) for e in events], kind
            )
        columns |= {
            "served_event": pa.array([e.id for e in events], pa.string()),
            "served_kind": pa.array([e.kind for e in events], pa.string()),
            "served_ranking": pa.array([e.ranking for e in events], pa.string()),
            "served_received": pa.array([e.received_ms for e in events], TIME),
            "served_fields": pa.array([_json(e.fields) for e in events], pa.string()),
            "served_revision": pa.array(revisions, pa.int64()),
        }
        return pa.table(columns)

    def features(self, events: Sequence[Event], revisions: Sequence[int]) -> pa.Table:
        """Features of users and items as they arrived, with the store's revision then."""
        return pa.table(
            {
                "kind": pa.array([e.kind for e in events], pa.string()),
                "id": pa.array(
                    [e.item if e.kind == "item" else e.user for e in events], pa.string()
                ),
                "time": pa.array(
                    [None if e.time_ms == TIMELESS_MS else e.time_ms for e in events], TIME
                ),
                "fields": pa.array([_json(e.fields) for e in events], pa.string()),
                "event": pa.array([e.id for e in events], pa.string()),
                "received": pa.array([e.received_ms for e in events], TIME),
                "revision": pa.array(revisions, pa.int64()),
            }
        )

    def _of_context(self, column: str, kind: pa.DataType, request: RankRequest) -> Any:
        value = request.context.get(column)
        if (
            value is None and column == self._split and column not in self._own
        ):  # no feature: the request's time tells it
            return self._split_time.value(request.time_ms)
        return self._value("context", column, kind, value)

    def _cross_value(self, column: str, kind: pa.DataType, fields: dict[str, Any]) -> Any:
        return self._value("cross", column, kind, fields.get(column))

    def _value(self, level: str, column: str, kind: pa.DataType, value: Any) -> Any:
        if value is None or not self._fits[level](column, value):
            return None
        if column == self._split:
            return _split_value(value, kind)
        if pa.types.is_list(kind):
            return [None if v is None else _cast(v, kind.value_type) for v in value]
        return _cast(value, kind)


def _cast(value: Any, kind: pa.DataType) -> Any:
    if not pa.types.is_string(kind):
        return float(value)
    return text_of(value)


def _split_value(value: Any, kind: pa.DataType) -> str | float | None:
    """A value of the column that divides the log; None for one that does not compare with its
    boundaries."""
    if isinstance(value, bool | list):
        return None
    if pa.types.is_string(kind):
        return text_of(value)
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _kinds(schema: Schema, level: str) -> dict[str, pa.DataType]:
    """Arrow types of a level's raw columns; a number where any feature reads one."""
    found: dict[str, pa.DataType] = {}
    for name, feature in level_features(schema, level).items():
        for column in feature.columns(name):
            kind = feature.json_type()
            if column not in found or pa.types.is_float64(kind):
                found[column] = kind
    return found


def _json(content: Mapping[str, Any]) -> str | None:
    return json.dumps(content, ensure_ascii=False, sort_keys=True) if content else None


def _features(features: Features) -> str | None:
    if features.revision == 0:
        return None
    return _json({"since_ms": features.since_ms, "values": dict(features.values)})


def _of_candidates(one: Served) -> pa.Array:
    """What was said of each candidate, in the order of the ranking."""
    items = one.ranking.items
    if not one.items:
        return pa.nulls(len(items), pa.string())
    return pa.array(
        [_features(one.items[item.id]) if item.id in one.items else None for item in items],
        pa.string(),
    )


def _items(one: Served) -> str | None:
    """What was said of items that are no candidates but occur in events."""
    candidates = {c.id for c in one.request.items}
    found = {
        i: {"since_ms": f.since_ms, "values": dict(f.values)}
        for i, f in one.items.items()
        if i not in candidates
    }
    return _json(found)
