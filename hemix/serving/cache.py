"""Users' states, kept within a budget of bytes: the least recently used go first.

What is kept is free of the request's time. Whether an entry still holds is its reader's to judge,
by the revisions that it notes.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hemix.serving.features import UserSide
from hemix.serving.types import History

__all__ = ["Kept", "StateCache", "tensor_bytes"]

_ENTRY_BYTES = 2048
"""What an entry costs beside its arrays, about."""
_ID_BYTES = 100
"""What an id costs in a set or a mapping beside its letters, about."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A user's state and what it was made of."""

    side: UserSide
    """Without its items, which the state has taken in"""
    state: Any
    """The model's"""
    item_ids: frozenset[str]
    """Of the events, and perhaps of some that are gone"""
    history: int
    """Revision of the history"""
    user: int
    """Revision of what events said of the user"""
    items: Mapping[str, int]
    """Revisions of what events said of the events' items, where that enters an event"""

    def goes_on_in(self, history: History) -> bool:
        """Whether a history, read by one who knew this state's, is the same or has only what came
        since.
        """
        return self.history != 0 and self.history in (history.revision, history.after)

    def bytes(self) -> int:
        """Of all its tensors and arrays."""
        side = self.side
        arrays = (
            side.item_index,
            side.time_ms,
            side.ids,
            side.items.ids,
            side.items.numbers,
            side.user.places,
            side.user.keys,
        )
        texts = side.item_ids.nbytes + side.actions.nbytes
        of_items = sum(len(name) + _ID_BYTES for name in self.item_ids) + _ID_BYTES * len(
            self.items
        )
        return int(
            sum(a.nbytes for a in arrays)
            + texts
            + of_items
            + tensor_bytes(self.state)
            + _ENTRY_BYTES
        )


def tensor_bytes(state: Any) -> int:
    """Bytes of the distinct storages under all tensors of nested dataclasses."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in _tensors(state)
    }
    return sum(storages.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for part in dataclasses.fields(value):
            yield from _tensors(getattr(value, part.name))


class StateCache:
    """One entry a user. Thread-safe."""

    def __init__(self, budget: int) -> None:
        """``budget``: bytes; 0 keeps nothing."""
        self.budget = budget
        self.bytes = 0
        self._entries: OrderedDict[str, tuple[Kept, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user: str) -> Kept | None:
        """A user's entry, which is now the most recently used."""
        with self._lock:
            found = self._entries.get(user)
            if found is None:
                return None
            self._entries.move_to_end(user)
            return found[0]

    def put(self, user: str, kept: Kept) -> None:
        """Keep an entry in the place of the user's former one, and drop others until the budget
        holds.
        """
        size = kept.bytes()
        with self._lock:
            self._drop(user)
            if size > self.budget:
                return
            self._entries[user] = kept, size
            self.bytes += size
            while self.bytes > self.budget:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    def _drop(self, user: str) -> None:
        gone = self._entries.pop(user, None)
        if gone is not None:
            self.bytes -= gone[1]
