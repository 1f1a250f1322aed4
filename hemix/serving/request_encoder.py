"""Encoding of raw users, events and requests, with the encoders and statistics of training.

The user's side (features and events) depends on the request's time only by the version of the
user's row. The request's side has history ranges, context, candidates and their cross features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.encode import Encoders
from hemix.data.entities import EntityTable, MatchColumns, coordinates_features, history_numbers
from hemix.data.history import find_history_ranges
from hemix.data.keys import distinct, keys_of_texts
from hemix.data.versions import NO_ITEM_ROW
from hemix.errors import RequestError
from hemix.features.match_index import MatchIndex, MatchKeys
from hemix.features.seen_events import SeenEvents
from hemix.features.statistics import Statistics
from hemix.serving.column_parser import ColumnParser, OnInvalid, columns_of
from hemix.serving.encoded import RequestSide, UserSide
from hemix.serving.entity_encoder import EntityEncoder, EntityRows
from hemix.serving.field_validation import FieldValidator
from hemix.serving.statistics_encoder import StatisticsEncoder, StatisticsInputs
from hemix.serving.types import Candidate, Event, LiveFeatures, RankRequest

__all__ = ["RequestEncoder"]

Array = npt.NDArray[Any]

_NOTHING = LiveFeatures()
_SLACK = 128
"""Events read beyond a request's histories, because some may be later than the request"""


class RequestEncoder:
    """Encodes users, events and requests for one run."""

    def __init__(
        self,
        encoders: Encoders,
        statistics: Statistics,
        users: EntityTable,
        items: EntityTable,
        validator: FieldValidator,
    ) -> None:
        """Set up the encoders of every level.

        Args:
            encoders: Encoders of the run.
            statistics: Statistics of the run.
            users: The run's users.
            items: The run's items.
            validator: Validates JSON values.
        """
        self.schema = schema = encoders.schema
        self._encoders = encoders
        self.users = EntityEncoder(encoders, users, validator)
        self.items = EntityEncoder(encoders, items, validator)
        self._event = ColumnParser(schema, "event", validator)
        self._context = ColumnParser(schema, "context", validator)
        self._cross = ColumnParser(schema, "cross", validator)
        (self._action,) = schema.event_fields["action"].columns("action")
        self._context_coordinates = coordinates_features(schema, "context")
        self._needs_coordinates = any(f.inputs() for _, _, f in schema.features)
        self._versioned = schema.valid_from is not None
        self._history_numbers = history_numbers(
            schema,
            len(encoders.actions),
            encoders.match_actions,
            encoders.match_windows_ms,
        )
        self._match_columns = MatchColumns.of(schema)
        self._statistics = StatisticsEncoder(
            encoders, statistics, self.users.key_names, self.items.key_names
        )
        history = schema.history
        self.most = history.global_length + history.realtime_length
        """Maximum events in a request's histories"""
        self.limit = self.most + _SLACK
        """Number of a user's newest events to read"""
        self.event_columns = frozenset(
            c
            for n in (*schema.event_item_features, *schema.match_columns)
            for c in schema.features.item[n].columns(n)
        )
        """The item columns that events carry, or in which they match candidates"""

    # -- the user's side ---------------------------------------------------------------------------

    def user_row(self, user: str, time_ms: int) -> int:
        """Return the version of a user's row at a time; -1 for a user that the run does not know.

        Args:
            user: The user's id.
            time_ms: UTC.
        """
        number = self.users.numbers(pa.array([user]))
        return int(self.users.rows_at(number, np.array([time_ms]))[0])

    def user_side(
        self,
        user: str,
        row: int,
        live_values: Mapping[str, Any],
        events: Sequence[Event],
        items: Mapping[str, LiveFeatures],
    ) -> UserSide:
        """Encode a user and their events.

        Args:
            user: The user's id.
            row: Version of the user's row; -1: none.
            live_values: JSON values that events set for the user, by raw column.
            events: The history, by time.
            items: Features that events set for items.
        """
        time_ms = np.fromiter((e.time_ms for e in events), dtype=np.int64, count=len(events))
        item_ids = pa.array([e.item or "" for e in events], pa.string())
        actions = [_action(e) for e in events]

        def column(name: str) -> Sequence[Any]:
            return actions if name == self._action else [e.fields.get(name) for e in events]

        raw = self._event.parse(len(events), column)
        encoded, index = self._event_items(item_ids, time_ms, items)
        ids = self._encoders.block("event", raw, len(events), time_ms=time_ms).ids
        return UserSide(
            id=user,
            row=row,
            user=self.users.encode([user], np.array([row]), [live_values]),
            items=encoded.block,
            item_index=index,
            time_ms=time_ms,
            ids=ids,
            item_ids=item_ids,
            actions=pa.array(actions, pa.string()),
            matches=self._match_index(self._match_keys(encoded), index, ids),
        )

    def _match_keys(self, items: EntityRows) -> MatchKeys:
        return self._match_columns.select(items.keys, items.block.jagged)

    def _match_index(
        self, item_keys: MatchKeys, event_item: Array, ids: Array
    ) -> MatchIndex | None:
        counter = self._history_numbers.matches
        if counter is None:
            return None
        return counter.index(item_keys, event_item, counter.groups(ids[:, 0]))

    def extended(self, side: UserSide, new: UserSide, most: int) -> tuple[UserSide, Array]:
        """Extend a user by new events.

        Args:
            side: The user with the earlier events.
            new: The user with the new events.
            most: Number of events to keep; the newest by time stay.

        Returns:
            The user, without the items of events; and int64 [E]: the indices of the kept events in
            the earlier events followed by the new ones.
        """
        time_ms = np.concatenate([side.time_ms, new.time_ms])
        order = np.argsort(time_ms, kind="stable")[-most:]  # at equal times new events follow
        ids, matches = np.concatenate([side.ids, new.ids])[order], None
        if side.matches is not None and new.matches is not None:
            keys = MatchKeys.concatenate([m.event_keys() for m in (side.matches, new.matches)])
            matches = self._match_index(keys, order, ids)
        extended = replace(
            side.without_items(),
            time_ms=time_ms[order],
            ids=ids,
            matches=matches,
            item_ids=pa.concat_arrays([side.item_ids, new.item_ids]).take(pa.array(order)),
            actions=pa.concat_arrays([side.actions, new.actions]).take(pa.array(order)),
        )
        return extended, order

    def _event_items(
        self, ids: pa.Array, time_ms: Array, live: Mapping[str, LiveFeatures]
    ) -> tuple[EntityRows, Array]:
        """Encode the items of events as they were at the events' times.

        Args:
            ids: string [E]: the item of every event; empty for none.
            time_ms: int64 [E]: the time of every event.
            live: Features that events set for items.

        Returns:
            The distinct versions of items, and int64 [E]: each event's index among them.
        """
        distinct_ids, codes = distinct(ids)
        names = distinct_ids.to_pylist()
        rows = self.items.rows_at(self.items.numbers(distinct_ids)[codes], time_ms)
        if "" in names:
            rows[codes == names.index("")] = NO_ITEM_ROW
        features = [live.get(name, _NOTHING) for name in names]
        applies = np.array([f.revision > 0 for f in features], dtype=bool)[codes]
        if self._versioned:  # features that were set after an event do not apply to it
            since_ms = np.array([f.since_ms for f in features], dtype=np.int64)[codes]
            applies &= (time_ms >= since_ms) | (rows < 0)
        keys = _version_keys(codes, rows, applies)
        _, first, index = np.unique(keys, return_index=True, return_inverse=True)
        versions = [names[codes[i]] for i in first]
        overrides = [features[codes[i]].values if applies[i] else {} for i in first]
        return self.items.encode(versions, rows[first], overrides), index.astype(np.int64)

    # -- the request's side ------------------------------------------------------------------------

    def history_ranges(self, request: RankRequest, time_ms: Array) -> Array:
        """Return int64 [1, 3]: the ranges of a user's events, or of the request's own history.

        Args:
            request: The request.
            time_ms: int64 [E]: times of the events, ascending.
        """
        history = self.schema.history
        if request.history is None:
            first, last = np.zeros(1, np.int64), np.full(1, len(time_ms))
            now = np.array([request.time_ms])
            return find_history_ranges(
                time_ms, first, last, now, history, self.schema.clock.timezone, delay_ms=0
            )
        end = len(time_ms)
        middle = max(len(request.history.global_), end - history.realtime_length)
        return np.array([[max(0, middle - history.global_length), middle, end]])

    def request_side(
        self, request: RankRequest, user: UserSide, items: Mapping[str, LiveFeatures]
    ) -> RequestSide:
        """Encode a request.

        Args:
            request: The request.
            user: Its encoded user.
            items: Features that events set for the candidates.

        Raises:
            RequestError: A value cannot be used; names its field.
        """
        rows, time_ms = len(request.items), np.array([request.time_ms])
        context = self._context.parse(1, columns_of([request.context]), _refuse("context"))
        cross = self._cross.parse(
            rows, columns_of([c.fields for c in request.items]), _refuse_candidate
        )
        ids = keys_of_texts(c.id for c in request.items)
        candidates, known = self._candidates(request.items, ids, request.time_ms, items)
        needs_coordinates = self._needs_coordinates
        coordinates = self._coordinates(user, context, candidates) if needs_coordinates else {}
        context_block = self._encoders.block("context", context, 1, time_ms=time_ms)
        cross_block = self._encoders.block(
            "cross", cross, rows, time_ms=np.repeat(time_ms, rows), coordinates=coordinates
        )
        inputs = StatisticsInputs(
            user=request.user,
            time_ms=request.time_ms,
            user_keys=user.user.keys,
            item_ids=ids,
            item_keys=candidates.keys,
            context=context,
            cross=cross,
            coordinates=coordinates,
        )
        seen = SeenEvents(
            event_ids=user.ids,
            time_ms=user.time_ms,
            history_ranges=self.history_ranges(request, user.time_ms),
            request_time_ms=time_ms,
        )
        context_numbers = self._history_numbers.context(seen, user.matches)
        candidate_keys, request_index = self._match_keys(candidates), np.zeros(rows, int)
        cross_numbers = self._history_numbers.cross(
            seen, user.matches, candidate_keys, request_index
        )
        return RequestSide(
            request=request,
            history_ranges=seen.history_ranges,
            context=context_block.with_numbers(
                self._statistics.numbers("context", inputs), context_numbers
            ),
            items=candidates.block,
            cross=cross_block.with_numbers(
                self._statistics.numbers("cross", inputs), cross_numbers
            ),
            raw=candidates.raw,
            known=known,
        )

    def _candidates(
        self,
        items: Sequence[Candidate],
        keys: Array,
        time_ms: int,
        live: Mapping[str, LiveFeatures],
    ) -> tuple[EntityRows, Array]:
        """Encode candidates.

        Args:
            items: The candidates [N].
            keys: uint64 [N]: keys of their ids.
            time_ms: Time of the request.
            live: Features that events set for items.

        Returns:
            The candidates, and bool [N]: whether the run or an event knows the item.
        """
        rows = self.items.rows_at(self.items.numbers_of(keys), np.full(len(items), time_ms))
        live_features = [live.get(candidate.id, _NOTHING) for candidate in items]
        overrides = [
            self._overrides(candidate, features)
            for candidate, features in zip(items, live_features, strict=True)
        ]
        known = (rows >= 0) | np.array([f.revision > 0 for f in live_features], dtype=bool)
        ids = [candidate.id for candidate in items]
        return self.items.encode(ids, rows, overrides, self._refuse_own_fields(items)), known

    def _overrides(self, candidate: Candidate, live: LiveFeatures) -> Mapping[str, Any]:
        """Return live features, overridden by the request's fields."""
        if not candidate.fields:
            return live.values
        columns = self.items.columns
        own = {name: value for name, value in candidate.fields.items() if name in columns}
        return {**live.values, **own}

    def _refuse_own_fields(self, items: Sequence[Candidate]) -> OnInvalid:
        """Refuse invalid fields of the request; invalid live features count as missing."""

        def refuse(row: int, column: str, problem: str) -> None:
            if column in items[row].fields:
                _refuse_candidate(row, column, problem)

        return refuse

    def _coordinates(
        self, user: UserSide, context: Mapping[str, Any], items: EntityRows
    ) -> dict[str, Array]:
        """Return ``level.feature`` -> float64 [N, 2]: both ends of distances."""
        rows = len(items.coordinates)
        coordinates = {
            f"context.{name}": np.repeat(context[name], rows, axis=0)
            for name in self._context_coordinates
        }
        for i, name in enumerate(self.users.coordinates_names):
            of_user = user.user.coordinates[:, 2 * i : 2 * i + 2]
            coordinates[name] = np.repeat(of_user, rows, axis=0)
        for i, name in enumerate(self.items.coordinates_names):
            coordinates[name] = items.coordinates[:, 2 * i : 2 * i + 2]
        return coordinates


def _version_keys(codes: Array, rows: Array, applies: Array) -> Array:
    """Return int64 [E]: one key per item, row of the table and use of live features.

    Args:
        codes: int [E]: the event's item.
        rows: int64 [E]: its row of the table; -1: none.
        applies: bool [E]: whether live features apply.
    """
    shape = (int(codes.max(initial=0)) + 1, int(rows.max(initial=-1)) + 2, 2)
    return np.ravel_multi_index((codes.astype(np.int64), rows + 1, applies.astype(np.int64)), shape)


def _action(event: Event) -> str | None:
    return "impression" if event.action is None and event.kind == "impression" else event.action


def _refuse(where: str) -> OnInvalid:
    def refuse(_row: int, column: str, problem: str) -> None:
        raise RequestError(f"{where}.{column}", problem)

    return refuse


def _refuse_candidate(row: int, column: str, problem: str) -> None:
    raise RequestError(f"items[{row}].fields.{column}", problem)
