"""A cache of user states within a budget of bytes; the least recently used are evicted.

Cached states do not depend on the request's time. Callers compare the stored revisions to decide
whether an entry is stale. ``cachetools`` evicts by size too, but its caches need the same lock, and
ours is an ``OrderedDict`` with a sum of bytes.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hemix.serving.encoded import UserSide
from hemix.serving.types import StoredHistory

__all__ = ["CachedUserState", "UserStateCache", "tensor_bytes"]

_ENTRY_BYTES = 2048
"""Memory of an entry apart from its arrays, about"""
_ID_BYTES = 100
"""Memory of an id in a set or mapping apart from its characters, about"""


@dataclass(frozen=True, kw_only=True)
class CachedUserState:
    """A user's state and the revisions of its inputs."""

    side: UserSide
    """The encoded user, without the items of events, which the state contains."""
    state: Any
    """The model's user state."""
    item_ids: frozenset[str]
    """Items of the events, and perhaps of some that the history has dropped."""
    history: int
    """Revision of the history."""
    user: int
    """Revision of the features that events set for the user."""
    items: Mapping[str, int]
    """Revisions of the features that events set for the items, where events carry them."""

    def continues_in(self, history: StoredHistory) -> bool:
        """Return whether a history, read with this one's revision, is the same or extends it."""
        return self.history != 0 and self.history in (history.revision, history.after)

    def bytes(self) -> int:
        """Return the memory of all tensors, arrays and ids."""
        side = self.side
        arrays = (
            side.item_index,
            side.time_ms,
            side.ids,
            side.items.ids,
            side.items.numbers,
            side.user.coordinates,
            side.user.keys,
        )
        columns = side.item_ids.nbytes + side.actions.nbytes
        columns += 0 if side.matches is None else side.matches.nbytes()
        ids = sum(len(name) + _ID_BYTES for name in self.item_ids) + _ID_BYTES * len(self.items)
        array_bytes = sum(array.nbytes for array in arrays)
        return int(array_bytes + columns + ids + tensor_bytes(self.state) + _ENTRY_BYTES)


def tensor_bytes(state: Any) -> int:
    """Return the bytes of the distinct storages of all tensors in nested dataclasses."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in _tensors(state)
    }
    return sum(storages.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


class UserStateCache:
    """One entry per user. Thread-safe."""

    def __init__(self, budget: int) -> None:
        """Set the budget in bytes; 0 disables the cache."""
        self.budget = budget
        self.bytes = 0
        self._entries: OrderedDict[str, tuple[CachedUserState, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user: str) -> CachedUserState | None:
        """Return a user's entry and make it the most recently used."""
        with self._lock:
            entry = self._entries.get(user)
            if entry is None:
                return None
            self._entries.move_to_end(user)
            return entry[0]

    def put(self, user: str, state: CachedUserState) -> None:
        """Store a user's entry, and evict others until the budget suffices.

        Args:
            user: The user's id.
            state: The entry; it is not stored where it alone exceeds the budget.
        """
        size = state.bytes()
        with self._lock:
            self._evict(user)
            if size > self.budget:
                return
            self._entries[user] = state, size
            self.bytes += size
            while self.bytes > self.budget:
                self._evict(next(iter(self._entries)))

    def clear(self) -> None:
        """Evict everything."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    def _evict(self, user: str) -> None:
        entry = self._entries.pop(user, None)
        if entry is not None:
            self.bytes -= entry[1]
