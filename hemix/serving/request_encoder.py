"""Encoding of raw users, events and requests, with the encoders and statistics of training.

The user's side (features and events) depends on the request's time only by the version of the
user's row. The request's side has history ranges, context, candidates and their cross features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.encode import Encoders
from hemix.data.entities import (
    EntityTable,
    coordinates_features,
    match_counter,
    match_key_columns,
)
from hemix.data.history import find_history_ranges
from hemix.data.keys import distinct, keys_of_texts
from hemix.data.layout import Block
from hemix.errors import RequestError
from hemix.features.history_counts import history_counts
from hemix.features.match_counts import MatchIndex
from hemix.features.statistics import Statistics
from hemix.serving.column_parser import ColumnParser, OnInvalid, columns_of
from hemix.serving.entity_encoder import EntityEncoder, EntityRows
from hemix.serving.field_validation import FieldValidator
from hemix.serving.statistics_encoder import StatisticsEncoder, StatisticsInputs
from hemix.serving.types import Candidate, Event, Features, RankRequest

__all__ = ["RequestEncoder", "RequestSide", "UserSide"]

Array = npt.NDArray[Any]

_NOTHING = Features()
_SLACK = 128
"""Events read beyond a request's histories, because some may be later than the request"""


@dataclass(frozen=True, kw_only=True)
class UserSide:
    """A user and their events, encoded."""

    id: str
    row: int
    """Version of the user's row; -1: the run does not know them"""
    user: EntityRows
    """[1]"""
    items: Block
    """[I]: the distinct items of the events"""
    item_index: Array
    """int64 [E] -> items"""
    time_ms: Array
    """int64 [E], ascending"""
    ids: Array
    """int32 [E, fields]: the action first"""
    item_ids: pa.Array
    """string [E]: raw"""
    actions: pa.Array
    """string [E]: raw"""
    matches: MatchIndex | None
    """What the candidates' matches are counted in; None: the schema has no match counts"""

    @property
    def events(self) -> int:
        """E."""
        return len(self.time_ms)

    def without_items(self) -> UserSide:
        """Return the user without the events' items, which a user state contains."""
        nothing = Block(ids=self.items.ids[:0], numbers=self.items.numbers[:0])
        return replace(self, items=nothing, item_index=self.item_index[:0].copy())


@dataclass(frozen=True, kw_only=True)
class RequestSide:
    """A request and its candidates, encoded; ``history_ranges`` point into the user's events."""

    request: RankRequest
    history_ranges: Array
    """int64 [1, 3]"""
    context: Block
    """[1]"""
    items: Block
    """[N]"""
    cross: Block
    """[N]"""
    raw: Array
    """float64 [N, columns]: the item columns of the score expression"""
    known: Array
    """bool [N]: whether the run or an event knows the item"""


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
        self._match_counter = match_counter(schema, encoders.match_actions)
        self._match_columns = match_key_columns(schema)
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
        """Return the version of a user's row at a time; -1 where the run does not know the user."""
        number = self.users.numbers(pa.array([user]))
        return int(self.users.rows_at(number, np.array([time_ms]))[0])

    def user_side(
        self,
        user: str,
        row: int,
        said: Mapping[str, Any],
        events: Sequence[Event],
        items: Mapping[str, Features],
    ) -> UserSide:
        """A user of whose features events ``said`` something, and their events by time; ``items``:
        what events said of items.
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
            user=self.users.encode([user], np.array([row]), [said]),
            items=encoded.block,
            item_index=index,
            time_ms=time_ms,
            ids=ids,
            item_ids=item_ids,
            actions=pa.array(actions, pa.string()),
            matches=self._match_index(encoded.keys[:, self._match_columns], index, ids),
        )

    def _match_index(self, item_keys: Array, event_item: Array, ids: Array) -> MatchIndex | None:
        counter = self._match_counter
        if counter is None:
            return None
        return counter.index(item_keys, event_item, counter.groups(ids[:, 0]))

    def extended(self, side: UserSide, new: UserSide, most: int) -> tuple[UserSide, Array]:
        """(a user with further events, which are those of ``new``: the newest ``most`` of all by
        time; int64 [E]: which these are, counted over those of ``side`` and then of ``new``). Items
        of events are left out.
        """
        time_ms = np.concatenate([side.time_ms, new.time_ms])
        order = np.argsort(time_ms, kind="stable")[-most:]  # at equal times the new ones follow
        ids, matches = np.concatenate([side.ids, new.ids])[order], None
        if side.matches is not None and new.matches is not None:
            keys = np.concatenate([side.matches.event_keys(), new.matches.event_keys()])
            matches = self._match_index(keys, order, ids)
        return (
            replace(
                side.without_items(),
                time_ms=time_ms[order],
                ids=ids,
                matches=matches,
                item_ids=pa.concat_arrays([side.item_ids, new.item_ids]).take(pa.array(order)),
                actions=pa.concat_arrays([side.actions, new.actions]).take(pa.array(order)),
            ),
            order,
        )

    def _event_items(
        self, ids: pa.Array, time_ms: Array, said: Mapping[str, Features]
    ) -> tuple[EntityRows, Array]:
        """(the items as they were at the events' times, each once; int64 [E]: each event's place
        among them).
        """
        found, codes = distinct(ids)
        texts = found.to_pylist()
        rows = self.items.rows_at(self.items.numbers(found)[codes], time_ms)
        over = [said.get(text, _NOTHING) for text in texts]
        applies = np.array([f.revision > 0 for f in over], dtype=bool)[codes]
        if self._versioned:  # as-of: what was said later than an event does not change the event
            since = np.array([f.since_ms for f in over], dtype=np.int64)[codes]
            applies &= (time_ms >= since) | (rows < 0)
        keys = _version_keys(codes, rows, applies)
        kinds, first, index = np.unique(keys, return_index=True, return_inverse=True)
        patches = [over[codes[i]].values if applies[i] else _NOTHING.values for i in first]
        encoded = self.items.encode([texts[codes[i]] for i in first], rows[first], patches)
        assert len(kinds) == len(first)
        return encoded, index.astype(np.int64)

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
        self, request: RankRequest, user: UserSide, items: Mapping[str, Features]
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
        history_ranges = self.history_ranges(request, user.time_ms)
        context = self._context.parse(1, columns_of([request.context]), _refuse("context"))
        cross = self._cross.parse(
            rows, columns_of([c.fields for c in request.items]), _refuse_candidate
        )
        ids = keys_of_texts(c.id for c in request.items)
        candidates, known = self._candidates(request.items, ids, request.time_ms, items)
        coordinates = (
            self._coordinates(user, context, candidates) if self._needs_coordinates else {}
        )

        context_block = self._encoders.block("context", context, 1, time_ms=time_ms)
        times_ms = np.repeat(time_ms, rows)
        cross_block = self._encoders.block(
            "cross", cross, rows, time_ms=times_ms, coordinates=coordinates
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
        context_block = _with_numbers(context_block, self._statistics.numbers("context", inputs))
        cross_block = _with_numbers(cross_block, self._statistics.numbers("cross", inputs))
        if self.schema.history.counts:
            counts = history_counts(history_ranges, user.ids[:, 0], len(self._encoders.actions))
            context_block = context_block.with_numbers(counts)
        if self._match_counter is not None:
            assert user.matches is not None, "the user's side was made without match counts"
            requested = (user.matches, user.time_ms, history_ranges, time_ms)
            context_block = context_block.with_numbers(self._match_counter.totals(*requested))
            candidate_keys = candidates.keys[:, self._match_columns]
            of_request = np.zeros(rows, dtype=np.int64)
            cross_block = cross_block.with_numbers(
                self._match_counter.numbers(*requested, candidate_keys, of_request)
            )
        return RequestSide(
            request=request,
            history_ranges=history_ranges,
            context=context_block,
            items=candidates.block,
            cross=cross_block,
            raw=candidates.raw,
            known=known,
        )

    def _candidates(
        self, items: Sequence[Candidate], keys: Array, time_ms: int, live: Mapping[str, Features]
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

    def _overrides(self, candidate: Candidate, live: Features) -> Mapping[str, Any]:
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


def _with_numbers(block: Block, numbers: Array | None) -> Block:
    return block if numbers is None else block.with_numbers(numbers)


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
