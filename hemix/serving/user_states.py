"""The state of a request's user: from the cache, extended by new events, or computed.

A cached state is valid while the user's row, the features that events set for the user and the
events' items, and the history are unchanged. Where only new events have arrived, and the store
returns them alone, only these are encoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from hemix.runs import Run
from hemix.serving.batch import user_batch
from hemix.serving.encoded import UserSide
from hemix.serving.request_encoder import RequestEncoder
from hemix.serving.store_reader import StoreReader, StoreSnapshot
from hemix.serving.types import CacheOutcome, Event, LiveFeatures, RankRequest, StoredHistory
from hemix.serving.user_cache import CachedUserState, UserStateCache

__all__ = ["UserLookup", "UserStates"]


@dataclass(frozen=True, slots=True)
class UserLookup:
    """The state of a request's user, and how it was obtained."""

    user: CachedUserState
    snapshot: StoreSnapshot
    """What the store returned for the user and the candidates."""
    cache: CacheOutcome
    stages_ms: dict[str, float]
    """Time spent in ``store`` and ``user``, in ms."""


class UserStates:
    """Looks up user states for many threads."""

    def __init__(
        self,
        run: Run,
        encoder: RequestEncoder,
        reader: StoreReader,
        cache: UserStateCache,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """Set up the look-up.

        Args:
            run: The served run.
            encoder: RequestEncoder of the run.
            reader: Reads the store.
            cache: Cache of states.
            device: Device of the model.
            autocast: Returns the context of the model's precision.
        """
        self._model, self._spec = run.model, run.spec
        self._device, self._autocast = device, autocast
        self._encoder, self._reader, self._cache = encoder, reader, cache

    def look_up(self, request: RankRequest) -> UserLookup:
        """Return the state of the request's user, and cache it."""
        started = time.perf_counter()
        cacheable = request.history is None
        row = self._encoder.user_row(request.user, request.time_ms)
        cached = self._cache.get(request.user) if cacheable else None
        if cached is not None and cached.side.row != row:
            cached = None
        snapshot = self._read(request, cached)
        if cached is not None and not self._is_valid(cached, snapshot):
            if cached.continues_in(snapshot.history):
                # the snapshot lacks the earlier events, which must be encoded again
                snapshot = self._read(request, None)
            cached = None
        read = time.perf_counter()
        outcome: CacheOutcome
        if cached is None:
            user, outcome = self.compute(request, snapshot, row), "miss"
        elif snapshot.history.revision == cached.history_revision:
            user, outcome = cached, "hit"
        else:
            user, outcome = self._extend(cached, snapshot), "extended"
        if cacheable and outcome != "hit" and not snapshot.degraded:
            self._cache.put(request.user, user)
        stages_ms = {
            "store": (read - started) * 1000,
            "user": (time.perf_counter() - read) * 1000,
        }
        return UserLookup(user, snapshot, outcome, stages_ms)

    def compute(
        self, request: RankRequest, snapshot: StoreSnapshot, row: int | None = None
    ) -> CachedUserState:
        """Compute a user's state.

        Args:
            request: The request.
            snapshot: What the store returned.
            row: Version of the user's row; None: it is looked up.
        """
        if row is None:
            row = self._encoder.user_row(request.user, request.time_ms)
        events = _events(request, snapshot.history)
        side, state = self._encode(request.user, row, snapshot.user, events, snapshot)
        return self._entry(side.without_items(), state, snapshot, _items_of(events))

    def _read(self, request: RankRequest, cached: CachedUserState | None) -> StoreSnapshot:
        def items_of(history: StoredHistory) -> Collection[str]:
            continues = cached is not None and cached.continues_in(history)
            earlier = cached.item_ids if cached is not None and continues else ()
            candidates = {candidate.id for candidate in request.items}
            return candidates.union(_items_of(_events(request, history)), earlier)

        return self._reader.read(
            request.user,
            0 if cached is None else cached.history_revision,
            items_of,
            history=request.history is None,
        )

    def _is_valid(self, cached: CachedUserState, snapshot: StoreSnapshot) -> bool:
        """Return whether a cached state, with new events if any, matches the snapshot."""
        return (
            cached.continues_in(snapshot.history)
            and snapshot.user.revision == cached.user_revision
            and not snapshot.degraded
            and self._revisions(cached.item_ids, snapshot) == cached.item_revisions
        )

    def _extend(self, cached: CachedUserState, snapshot: StoreSnapshot) -> CachedUserState:
        """Extend a cached state by the snapshot's events."""
        history, old = snapshot.history, cached.side
        new, new_state = self._encode(old.id, old.row, snapshot.user, history.events, snapshot)
        limit = min(history.total_events, self._encoder.limit)
        side, order = self._encoder.extended(old, new, limit)
        order_E = torch.from_numpy(order).to(self._device)
        state = self._model.extend_user(cached.state, new_state, order_E)
        item_ids = cached.item_ids.union(_items_of(history.events))
        if len(item_ids) > side.events:  # drop ids of dropped events, or the set would grow
            item_ids = frozenset(side.item_ids.unique().to_pylist())
        return self._entry(side, state, snapshot, item_ids)

    def _encode(
        self,
        user: str,
        row: int,
        features: LiveFeatures,
        events: tuple[Event, ...],
        snapshot: StoreSnapshot,
    ) -> tuple[UserSide, Any]:
        side = self._encoder.user_side(user, row, features.values, events, snapshot.items)
        batch = user_batch(side, self._spec).to(self._device)
        with self._autocast():
            state = self._model.encode_user(self._model.embed(batch, ["user"]))
            return side, self._model.keep_user(state)

    def _entry(
        self, side: UserSide, state: Any, snapshot: StoreSnapshot, item_ids: frozenset[str]
    ) -> CachedUserState:
        return CachedUserState(
            side=side,
            state=state,
            item_ids=item_ids,
            history_revision=snapshot.history.revision,
            user_revision=snapshot.user.revision,
            item_revisions=self._revisions(item_ids, snapshot),
        )

    def _revisions(self, ids: frozenset[str], snapshot: StoreSnapshot) -> dict[str, int]:
        """Return the revisions of items' features where events carry them."""
        event_columns = self._encoder.event_columns
        return {
            item: features.revision
            for item, features in snapshot.items.items()
            if item in ids and not event_columns.isdisjoint(features.values)
        }


def _events(request: RankRequest, history: StoredHistory) -> tuple[Event, ...]:
    """Return the request's own history if it has one, else the store's."""
    own = request.history
    return history.events if own is None else (*own.global_, *own.realtime)


def _items_of(events: Iterable[Event]) -> frozenset[str]:
    return frozenset(event.item for event in events if event.item is not None)
