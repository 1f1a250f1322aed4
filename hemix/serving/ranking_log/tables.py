"""Rankings and events as Arrow tables.

The columns are those that ``hemix prepare`` reads by the schema, and for replays columns whose
names begin with ``served_``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.jagged_array import range_positions
from hemix.data.spec import TIMELESS_MS
from hemix.schema import Schema
from hemix.serving.ranking_log.columns import RawColumns
from hemix.serving.stores import StoreLimits
from hemix.serving.types import Candidate, Event, LiveFeatures, RankedItem, Ranking, RankRequest

__all__ = ["TIME", "LogTables", "LoggedRanking"]

TIME = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRanking:
    """A ranking with its inputs, except the history, which the store keeps by revision."""

    request: RankRequest
    ranking: Ranking
    user: LiveFeatures
    """Features that events set for the user."""
    items: Mapping[str, LiveFeatures]
    """Features that events set for candidates and for the items of the history."""
    events: int = 0
    """Number of events in the history."""


class _CandidateRows:
    """One row per candidate of several rankings, in each ranking's order."""

    def __init__(self, rankings: Sequence[LoggedRanking]) -> None:
        self.rankings = rankings
        counts = np.array([len(logged.ranking.items) for logged in rankings])
        self.items: list[RankedItem] = [
            item for logged in rankings for item in logged.ranking.items
        ]
        self.candidates: list[Candidate] = [
            logged.request.items[item.position]
            for logged in rankings
            for item in logged.ranking.items
        ]
        self.rank = range_positions(np.zeros(len(counts), np.int64), counts)
        """int64 [rows]: the candidate's index in its ranking"""
        self._ranking_index = pa.array(np.repeat(np.arange(len(rankings)), counts))
        self._have_fields = any(candidate.fields for candidate in self.candidates)

    def repeat(self, values: Sequence[Any], type_: pa.DataType) -> pa.Array:
        """Repeat one value per ranking for each of its candidates.

        Args:
            values: One value per ranking.
            type_: Arrow type.
        """
        return pa.array(values, type_).take(self._ranking_index)

    def per_ranking(self, value: Callable[[LoggedRanking], Any], type_: pa.DataType) -> pa.Array:
        """Compute one value per ranking and repeat it for each of its candidates.

        Args:
            value: Returns a ranking's value.
            type_: Arrow type.
        """
        return self.repeat([value(logged) for logged in self.rankings], type_)

    def per_item(self, value: Callable[[RankedItem], Any], type_: pa.DataType) -> pa.Array:
        """Compute one value per ranked item; NaN becomes null.

        Args:
            value: Returns an item's value.
            type_: Arrow type.
        """
        return pa.array([value(item) for item in self.items], type_, from_pandas=True)

    def from_fields(
        self, value: Callable[[Mapping[str, Any]], Any], type_: pa.DataType
    ) -> pa.Array:
        """Compute one value per candidate from its fields; null where no candidate has any.

        Args:
            value: Returns the value for a candidate's fields.
            type_: Arrow type.
        """
        if not self._have_fields:
            return pa.nulls(len(self.candidates), type_)
        return pa.array([value(candidate.fields) for candidate in self.candidates], type_)


class LogTables:
    """Converts rankings and events of one schema to tables."""

    def __init__(self, schema: Schema, limits: StoreLimits | None = None) -> None:
        """Set up the columns.

        Args:
            schema: Schema of the model.
            limits: Limits of the store that the rankings read; None: unknown.
        """
        self.schema = schema
        self.columns = RawColumns(schema)
        self.request_id = schema.roles.request_id or "served_request"
        """The column that identifies a ranking"""
        self._cap = None if limits is None else limits.cap
        self._ttl_ms = None if limits is None else limits.ttl_ms

    # -- rankings ----------------------------------------------------------------------------------

    def rankings(self, rankings: Sequence[LoggedRanking], ids: Sequence[str]) -> pa.Table:
        """Return a row per candidate, in the order of each ranking. Labels are null.

        Args:
            rankings: The rankings.
            ids: Unique ids of the rankings, whose own ids may repeat.
        """
        rows = _CandidateRows(rankings)
        return pa.table(
            self._input_columns(rows, ids)
            | self._label_columns(rows)
            | self._output_columns(rows)
            | self._replay_columns(rows)
        )

    def _input_columns(self, rows: _CandidateRows, ids: Sequence[str]) -> dict[str, pa.Array]:
        schema, raw = self.schema, self.columns
        columns = {
            schema.user: rows.per_ranking(lambda r: r.request.user, pa.string()),
            schema.item: pa.array([candidate.id for candidate in rows.candidates], pa.string()),
            schema.clock.column: rows.per_ranking(lambda r: r.request.time_ms, TIME),
            self.request_id: rows.repeat(ids, pa.string()),
        }
        for column, type_ in raw.context.items():
            values = [raw.context_value(column, logged.request) for logged in rows.rankings]
            columns[column] = rows.repeat(values, type_)
        for column, type_ in raw.cross.items():
            columns[column] = rows.from_fields(partial(raw.cross_value, column), type_)
        row_key = schema.roles.row_key
        if row_key is not None and row_key not in columns:
            of_ranking = pc.cast(columns[self.request_id], pa.string())
            ranks = pc.cast(pa.array(rows.rank), pa.string())
            columns[row_key] = pc.binary_join_element_wise(of_ranking, ranks, ":")
        return columns

    def _label_columns(self, rows: _CandidateRows) -> dict[str, pa.Array]:
        roles, count = self.schema.roles, len(rows.items)
        columns: dict[str, pa.Array] = {}
        if roles.bias is not None:
            columns[roles.bias.column] = pa.array(rows.rank)
        if roles.weight is not None:
            columns[roles.weight] = pa.array(np.ones(count))
        if roles.propensity is not None:
            columns[roles.propensity.column] = pa.array(np.ones(count))
        for name, label in self.schema.labels.items():
            columns[label.column or name] = pa.nulls(count, pa.int8())
            if label.available_at is not None:
                columns[label.available_at] = pa.nulls(count, TIME)
        return columns

    def _output_columns(self, rows: _CandidateRows) -> dict[str, pa.Array]:
        columns = {
            "served_ranking": rows.per_ranking(lambda r: r.ranking.id, pa.string()),
            "served_model": rows.per_ranking(lambda r: r.ranking.model, pa.string()),
            "served_version": rows.per_ranking(lambda r: r.ranking.version, pa.string()),
            "served_rank": pa.array(rows.rank),
            "served_request_index": rows.per_item(lambda item: item.position, pa.int64()),
            "served_score": rows.per_item(lambda item: item.score, pa.float64()),
        }
        for name in self.schema.outputs:
            outputs = [item.outputs[name] for item in rows.items]
            columns[f"served_{name}"] = pa.array(outputs, pa.float64())
        columns["served_status"] = rows.per_item(lambda item: item.status, pa.string())
        return columns

    def _replay_columns(self, rows: _CandidateRows) -> dict[str, pa.Array]:
        int_list, text_list = pa.list_(pa.int64()), pa.list_(pa.string())
        known_columns = self.columns.request_columns

        def other_fields(fields: Mapping[str, Any]) -> str | None:
            return _json({name: v for name, v in fields.items() if name not in known_columns})

        return {
            "served_history_revision": rows.per_ranking(
                lambda r: r.ranking.history_revision, pa.int64()
            ),
            "served_history_events": rows.per_ranking(lambda r: r.events, pa.int64()),
            "served_history_cap": rows.per_ranking(lambda _: self._cap, pa.int64()),
            "served_history_ttl_ms": rows.per_ranking(lambda _: self._ttl_ms, pa.int64()),
            "served_history_ranges": rows.per_ranking(lambda r: r.ranking.history_ranges, int_list),
            "served_degraded": rows.per_ranking(lambda r: r.ranking.degraded, text_list),
            "served_user_features": rows.per_ranking(lambda r: _features_json(r.user), pa.string()),
            "served_history_item_features": rows.per_ranking(_history_items_json, pa.string()),
            "served_item_features": pa.concat_arrays([_candidates_json(r) for r in rows.rankings]),
            "served_fields": rows.from_fields(other_fields, pa.string()),
        }

    # -- events ------------------------------------------------------------------------------------

    def events(self, events: Sequence[Event], revisions: Sequence[int]) -> pa.Table:
        """Return interactions and impressions as an event log.

        Args:
            events: The events.
            revisions: For each event the history's revision that first contains it.
        """
        schema, raw = self.schema, self.columns
        columns: dict[str, pa.Array] = {
            schema.user: pa.array([e.user for e in events], pa.string()),
            schema.item: pa.array([e.item for e in events], pa.string()),
            raw.clock: pa.array([_time_or_none(e) for e in events], TIME),
            raw.action: pa.array([e.action for e in events], pa.string()),
        }
        for column, type_ in raw.event.items():
            columns[column] = pa.array([raw.event_value(column, e.fields) for e in events], type_)
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
        """Return the features of users and items in the order of arrival.

        Args:
            events: ``user`` and ``item`` events.
            revisions: For each event the store's revision after it.
        """
        owners = [e.item if e.kind == "item" else e.user for e in events]
        return pa.table(
            {
                "kind": pa.array([e.kind for e in events], pa.string()),
                "id": pa.array(owners, pa.string()),
                "time": pa.array([_time_or_none(e) for e in events], TIME),
                "fields": pa.array([_json(e.fields) for e in events], pa.string()),
                "event": pa.array([e.id for e in events], pa.string()),
                "received": pa.array([e.received_ms for e in events], TIME),
                "revision": pa.array(revisions, pa.int64()),
            }
        )


def _time_or_none(event: Event) -> int | None:
    return None if event.time_ms == TIMELESS_MS else event.time_ms


def _json(content: Mapping[str, Any]) -> str | None:
    return json.dumps(content, ensure_ascii=False, sort_keys=True) if content else None


def _features_content(features: LiveFeatures) -> dict[str, Any]:
    return {"since_ms": features.since_ms, "values": dict(features.values)}


def _features_json(features: LiveFeatures) -> str | None:
    return None if features.revision == 0 else _json(_features_content(features))


def _candidates_json(logged: LoggedRanking) -> pa.Array:
    """Return the features that events set for each candidate, in the ranking's order."""
    items = logged.ranking.items
    if not logged.items:
        return pa.nulls(len(items), pa.string())
    features = [logged.items.get(item.id) for item in items]
    texts = [None if each is None else _features_json(each) for each in features]
    return pa.array(texts, pa.string())


def _history_items_json(logged: LoggedRanking) -> str | None:
    """Return the features that events set for items of the history that are no candidates."""
    candidates = {candidate.id for candidate in logged.request.items}
    return _json(
        {
            name: _features_content(features)
            for name, features in logged.items.items()
            if name not in candidates
        }
    )
