"""What match counts compare: the keys of items, and the index of users' events by their keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import NULL_KEY
from hemix.data.spec import FIRST

__all__ = ["MatchIndex", "MatchKeys", "keys_of_ids"]

Array = npt.NDArray[Any]


def keys_of_ids(lists: JaggedArray[np.int32]) -> JaggedArray[np.uint64]:
    """Return the ids of a multi-valued feature as keys; unknown and missing values have none."""
    ids = lists.values
    keys = np.where(ids < FIRST, NULL_KEY, ids.astype(np.uint64))
    return JaggedArray(values=keys, offsets=lists.offsets)


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchKeys:
    """The keys of some items or events in the compared columns; NULL_KEY matches nothing."""

    values: npt.NDArray[np.uint64]
    """uint64 [rows, columns], of the columns of one value"""
    lists: tuple[JaggedArray[np.uint64], ...] = ()
    """[rows] of each column of lists"""

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> MatchKeys:
        """Return the rows at the given positions, in that order."""
        lists = tuple(column.select(rows) for column in self.lists)
        return MatchKeys(values=self.values.take(rows, axis=0), lists=lists)

    def without(self, rows: npt.NDArray[np.bool_]) -> MatchKeys:
        """Return the keys with NULL_KEY in the rows of a mask, bool [rows]."""
        lists = (
            (column, np.where(np.repeat(rows, column.lengths), NULL_KEY, column.values))
            for column in self.lists
        )
        return MatchKeys(
            values=np.where(rows[:, None], NULL_KEY, self.values),
            lists=tuple(
                JaggedArray(values=values, offsets=column.offsets) for column, values in lists
            ),
        )

    @classmethod
    def concatenate(cls, keys: Sequence[MatchKeys]) -> MatchKeys:
        """Return all rows of at least one."""
        lists = zip(*(each.lists for each in keys), strict=True)
        return cls(
            values=np.concatenate([each.values for each in keys]),
            lists=tuple(JaggedArray.concatenate(column) for column in lists),
        )


@dataclass(frozen=True, kw_only=True)
class MatchIndex:
    """Users' events, sorted by their items' keys. It does not depend on a request.

    An example of one column: the events 0, 1 and 2 have the keys 70, 50 and 70.

    - ``distinct_keys`` is [50, 70]: the ordinal of 50 is 0, that of 70 is 1.
    - A position takes 2 bits here, so ``key_and_position``, ordinal * 4 + position, is [1, 4, 6].
      An entry is one of these numbers. The entries of a key are neighbours, by time.
    - The candidate's key is 70, and a window holds the events 1 and 2. Its entries lie between
      1 * 4 + 1 and 1 * 4 + 3 (exclusive), found by binary search: one entry, 6. So one event
      matches, at the position 6 mod 4 = 2.
    - The whole history lies between 1 * 4 + 0 and 1 * 4 + 3: two entries, 4 and 6.
    """

    distinct_keys: tuple[Array, ...]
    """For each column uint64 [distinct keys], ascending"""
    key_and_position: tuple[Array, ...]
    """For each column int64 [entries], ascending: the key's ordinal, then in the lower bits the
    event's position. Events without a key, or with a key that is not looked up, have no entry; an
    event of several values has an entry for each
    """
    lists: int = 0
    """How many columns hold lists; they are the last ones"""
    groups: Array
    """uint8 [E]: the group of each event's action"""

    @property
    def bits(self) -> int:
        """How many lower bits of an entry hold a position, which may be E."""
        return len(self.groups).bit_length()

    def event_keys(self) -> MatchKeys:
        """Return the keys [E] of every event, as far as they have entries."""
        one_valued, events = len(self.distinct_keys) - self.lists, len(self.groups)
        values = np.full((events, one_valued), NULL_KEY)
        lists = list[JaggedArray[np.uint64]]()
        columns = zip(self.distinct_keys, self.key_and_position, strict=True)
        for column, (keys, entries) in enumerate(columns):
            position = entries & ((1 << self.bits) - 1)
            of_entry = keys[entries >> self.bits]
            if column < one_valued:
                values[position, column] = of_entry
            else:
                order, lengths = position.argsort(), np.bincount(position, minlength=events)
                lists.append(JaggedArray.from_lengths(of_entry[order], lengths))
        return MatchKeys(values=values, lists=tuple(lists))

    def nbytes(self) -> int:
        """Return the bytes of its arrays."""
        arrays = (*self.distinct_keys, *self.key_and_position, self.groups)
        return sum(array.nbytes for array in arrays)
