"""The state of the user of a request: from the cache where it still holds, extended by the events
that have come since, or made.

A kept state holds where the user's row, what events said of the user and of the events' items, and
the history are what it was made of. Where only the history has moved on, and its store tells what
is new, only the new events are read and encoded. Knows no candidate's values and no scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch

from hemix.runs import Run
from hemix.serving.batch import user_batch
from hemix.serving.cache import Kept, StateCache
from hemix.serving.features import Encoder, UserSide
from hemix.serving.reading import Found, Reader
from hemix.serving.types import CacheOutcome, Event, Features, History, RankRequest

__all__ = ["UserStates"]


class UserStates:
    """Users' states for many threads at a time."""

    def __init__(
        self,
        run: Run,
        encoder: Encoder,
        reader: Reader,
        cache: StateCache,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model, self._spec, self._device, self._autocast = (
            run.model,
            run.spec,
            device,
            autocast,
        )
        self._encoder, self._reader, self._cache = encoder, reader, cache

    def of(self, request: RankRequest) -> tuple[Kept, Found, CacheOutcome, dict[str, float]]:
        """(the state of the request's user, what the store said of them and of the candidates,
        whether the state was kept, the ms that the stages ``store`` and ``user`` took).
        """
        began = time.perf_counter()
        keeps = request.history is None
        row = self._encoder.user_row(request.user, request.time_ms)
        kept = self._cache.get(request.user) if keeps else None
        if kept is not None and kept.side.row != row:
            kept = None
        found = self._read(request, kept)
        if kept is not None and not self._goes_on(kept, found):
            if kept.goes_on_in(
                found.history
            ):  # without what was read before; what was said of the user or their items moved
                found = self._read(request, None)
            kept = None
        read = time.perf_counter()
        cache: CacheOutcome = "miss"
        if kept is None:
            kept = self.made(request, found, row)
        elif found.history.revision == kept.history:
            cache = "hit"
        else:
            kept, cache = self._extended(kept, found), "extended"
        if keeps and cache != "hit" and not found.degraded:
            self._cache.put(request.user, kept)
        return (
            kept,
            found,
            cache,
            {"store": (read - began) * 1000, "user": (time.perf_counter() - read) * 1000},
        )

    def made(self, request: RankRequest, found: Found, row: int | None = None) -> Kept:
        """The state that a store's answer makes.

        ``row``: the version of the user's row, where that is known already.
        """
        row = self._encoder.user_row(request.user, request.time_ms) if row is None else row
        events = _events(request, found.history)
        side, state = self._encoded(request.user, row, found.user, events, found)
        return self._kept(side.without_items(), state, found, _items_of(events))

    def _read(self, request: RankRequest, kept: Kept | None) -> Found:
        def items(history: History) -> Collection[str]:
            before = kept.item_ids if kept is not None and kept.goes_on_in(history) else ()
            return {c.id for c in request.items}.union(_items_of(_events(request, history)), before)

        return self._reader.read(
            request.user,
            0 if kept is None else kept.history,
            items,
            history=request.history is None,
        )

    def _goes_on(self, kept: Kept, found: Found) -> bool:
        """Whether a kept state, perhaps with new events, is the one that the store's answer would
        make.
        """
        same = (
            kept.goes_on_in(found.history)
            and found.user.revision == kept.user
            and not found.degraded
        )
        return same and self._revisions(kept.item_ids, found) == kept.items

    def _extended(self, kept: Kept, found: Found) -> Kept:
        new = found.history
        more, state = self._encoded(kept.side.id, kept.side.row, found.user, new.events, found)
        side, order = self._encoder.extended(
            kept.side, more, min(new.total_events, self._encoder.limit)
        )
        state = self._model.extend_user(kept.state, state, torch.from_numpy(order).to(self._device))
        ids = kept.item_ids.union(_items_of(new.events))
        if len(ids) > side.events:  # else a busy user's would grow for ever
            ids = frozenset(side.item_ids.unique().to_pylist())
        return self._kept(side, state, found, ids)

    def _encoded(
        self, user: str, row: int, said: Features, events: tuple[Event, ...], found: Found
    ) -> tuple[UserSide, Any]:
        side = self._encoder.user_side(user, row, said.values, events, found.items)
        batch = user_batch(side, self._spec).to(self._device)
        with self._autocast():
            return side, self._model.encode_user(self._model.embed(batch, ["user"]))

    def _kept(self, side: UserSide, state: Any, found: Found, item_ids: frozenset[str]) -> Kept:
        return Kept(
            side=side,
            state=state,
            item_ids=item_ids,
            history=found.history.revision,
            user=found.user.revision,
            items=self._revisions(item_ids, found),
        )

    def _revisions(self, ids: frozenset[str], found: Found) -> dict[str, int]:
        """Of what was said of events' items, where an event carries it."""
        carried = self._encoder.event_columns
        said = ((i, features) for i, features in found.items.items() if i in ids)
        return {
            i: features.revision for i, features in said if not carried.isdisjoint(features.values)
        }


def _events(request: RankRequest, history: History) -> tuple[Event, ...]:
    """The request's own history, where it brings one, goes before the store's."""
    own = request.history
    return history.events if own is None else (*own.global_, *own.realtime)


def _items_of(events: Iterable[Event]) -> frozenset[str]:
    return frozenset(event.item for event in events if event.item is not None)
