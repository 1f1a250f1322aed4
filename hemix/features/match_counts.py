"""Match counts: how many of a request's events share a value with a candidate, as cross numbers,
and how many there are, as context numbers.

An event matches a candidate in an item column where both hold the same raw 64-bit key, known to a
vocabulary or not; a missing value never matches. The loader and the server call the same functions.

Letters: E events, D items, N candidates, Q requests, C columns, A groups of actions, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, ConfigDict, Field

from hemix.data.keys import NULL_KEY
from hemix.data.search import first_at_least
from hemix.features.base import FeatureType, SchemaSection
from hemix.features.seen_events import SeenEvents
from hemix.moments import DurationMs, duration_text
from hemix.validation import InvalidKey, did_you_mean

__all__ = [
    "MATCH_AGE",
    "MATCH_COUNTS",
    "MATCH_TOTALS",
    "OTHER_ACTIONS",
    "MatchCounter",
    "MatchCounts",
    "MatchIndex",
    "match_names",
    "match_total_names",
]

Array = npt.NDArray[Any]

MATCH_COUNTS, MATCH_AGE, MATCH_TOTALS = "match_counts", "match_age", "match_totals"
"""What the number columns begin with; no cross or context feature and no statistic may have these
names.
"""
OTHER_ACTIONS = "other"
"""The group of the actions that are not counted apart, of unknown and of missing ones."""

_MAX_ACTIONS = 100
_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
_OLDEST_MS = 10 * 8760 * _HOUR_MS
"""The age of an event without a time, and of older ones: ten years."""


def _actions(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_ACTIONS:
        return value
    names = [str(name) for name in value] if isinstance(value, list | tuple) else []
    if not 1 <= len(set(names)) == len(names) <= _MAX_ACTIONS:
        raise ValueError(
            f"expected how many actions are counted apart, 0 to {_MAX_ACTIONS}, or a list of their "
            f"names, got {value!r}"
        )
    return tuple(names)


class MatchCounts(SchemaSection):
    """How many events of a request's history share a value with a candidate, and how old the last
    of them is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Item features that are compared; by default those that events carry."""
    actions: Annotated[int | tuple[str, ...], BeforeValidator(_actions)] = 7
    """The actions that are counted apart, by name or so many of the most frequent ones."""
    windows_ms: Annotated[tuple[DurationMs, ...], Field(alias="windows")] = (
        15 * _MINUTE_MS,
        _HOUR_MS,
        7 * 24 * _HOUR_MS,
    )
    """Windows that end with the history that a request sees, besides its real-time part and all of
    it.
    """
    recency: bool = True
    """Whether the age of a column's last match is a number too."""

    def check(self, items: Mapping[str, FeatureType], used_names: Collection[str]) -> None:
        """Check the section against the features of its schema.

        Args:
            items: The item features by name.
            used_names: Names of the cross and context features and the statistics.

        Raises:
            InvalidKey: Names the key, the expected value and the actual one.
        """
        where = f"history.{MATCH_COUNTS}"
        columns = self.columns or ()
        if len(set(columns)) < len(columns):
            names = ", ".join(columns)
            raise InvalidKey(f"{where}.columns", f"a feature is named twice: {names}")
        for name in columns:
            if name not in items:
                hint = did_you_mean(name, items)
                raise InvalidKey(
                    f"{where}.columns", f"no item feature {name!r}" + (f"; {hint}" if hint else "")
                )
            if not items[name].tensor_columns().ids:
                raise InvalidKey(
                    f"{where}.columns",
                    f"{name} must be a one-valued categorical or bucketed numeric",
                )
        if not all(low < high for low, high in pairwise((0, *self.windows_ms))):
            windows = ", ".join(map(duration_text, self.windows_ms))
            raise InvalidKey(
                f"{where}.windows",
                f"expected durations above 0, each longer than the one before it, got {windows}",
            )
        for name in (MATCH_COUNTS, MATCH_AGE, MATCH_TOTALS):
            if name in used_names:
                raise InvalidKey(
                    name,
                    f"the name of a feature or statistic is taken by {where}; choose another, or "
                    f"set {where} to false",
                )


def match_total_names(counts: MatchCounts, actions: Iterable[str]) -> list[str]:
    """Return the names of the context numbers, in the order of :meth:`MatchCounter.totals`.

    Args:
        counts: The section of the schema.
        actions: The actions of events.
    """
    windows = _window_names(counts)
    return [f"{MATCH_TOTALS}.{group}.{window}" for group in _groups(actions) for window in windows]


def match_names(counts: MatchCounts, columns: Sequence[str], actions: Sequence[str]) -> list[str]:
    """Return the names of the cross numbers, in the order of :meth:`MatchCounter.numbers`.

    Args:
        counts: What is counted.
        columns: The item features that are compared.
        actions: Names of the actions that are counted apart.
    """
    windows, groups = _window_names(counts), _groups(actions)
    names = [f"{MATCH_COUNTS}.{c}.{g}.{w}" for c in columns for g in groups for w in windows]
    if counts.recency:
        names += [f"{MATCH_AGE}.{c}{suffix}" for c in columns for suffix in ("", ".missing")]
    return names


def _window_names(counts: MatchCounts) -> list[str]:
    return [*map(duration_text, counts.windows_ms), "realtime", "all"]


def _groups(actions: Iterable[str]) -> list[str]:
    """Return the groups of actions; an action called ``other`` is counted with all others."""
    return list(dict.fromkeys([*actions, OTHER_ACTIONS]))


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
    event's position. Events without a key, or with a key that is not looked up, have no entry
    """
    groups: Array
    """uint8 [E]: the group of each event's action"""

    @property
    def bits(self) -> int:
        """How many lower bits of an entry hold a position, which may be E."""
        return len(self.groups).bit_length()

    def event_keys(self) -> Array:
        """Return uint64 [E, C]: the keys of every event, NULL_KEY where missing."""
        event_keys = np.full((len(self.groups), len(self.distinct_keys)), NULL_KEY)
        columns = zip(self.distinct_keys, self.key_and_position, strict=True)
        for column, (keys, entries) in enumerate(columns):
            position = entries & ((1 << self.bits) - 1)
            event_keys[position, column] = keys[entries >> self.bits]
        return event_keys

    def nbytes(self) -> int:
        """Return the bytes of its arrays."""
        arrays = (*self.distinct_keys, *self.key_and_position, self.groups)
        return sum(array.nbytes for array in arrays)


class MatchCounter:
    """Counts matches."""

    def __init__(self, counts: MatchCounts, columns: int, actions: Mapping[str, int]) -> None:
        """Prepare to count.

        Args:
            counts: What is counted.
            columns: C, how many item columns are compared.
            actions: Ids of the actions that are counted apart; -1 where no event can have one.
        """
        self._counts, self._columns = counts, columns
        names = _groups(actions)
        other = names.index(OTHER_ACTIONS)
        self._action_groups = len(names)
        self._group_of_id = np.full(max([0, *actions.values()]) + 2, other, dtype=np.uint8)
        for name, action_id in actions.items():
            if action_id >= 0:
                self._group_of_id[action_id] = names.index(name)

    def groups(self, action_ids: Array) -> Array:
        """Return uint8 [E], the group of each action, of action ids int [E]."""
        groups: Array = self._group_of_id.take(action_ids, mode="clip")
        return groups

    def index(
        self, item_keys: Array, event_item: Array, groups: Array, *, wanted: Array | None = None
    ) -> MatchIndex:
        """Sort events by their items' keys.

        Args:
            item_keys: uint64 [D, C], keys of items.
            event_item: int [E], the item of every event.
            groups: uint8 [E], from :meth:`groups`.
            wanted: int [n], the items that will be looked up; by default any may be.
        """
        distinct_keys, key_and_position = list[Array](), list[Array]()
        bits = len(event_item).bit_length()
        for column in range(self._columns):
            distinct, ordinal = np.unique(item_keys[:, column], return_inverse=True)
            usable = np.full(len(distinct), wanted is None)
            if wanted is not None:
                usable[ordinal[wanted]] = True
            usable &= distinct != NULL_KEY
            of_event = ordinal[event_item]
            position = np.flatnonzero(usable[of_event])
            distinct_keys.append(distinct)
            key_and_position.append(np.sort((of_event[position] << bits) | position))
        return MatchIndex(
            distinct_keys=tuple(distinct_keys),
            key_and_position=tuple(key_and_position),
            groups=groups,
        )

    def totals(self, index: MatchIndex, seen: SeenEvents) -> npt.NDArray[np.float32]:
        """Count all events that requests see, matches or not.

        Args:
            index: The events of all requests' users, by user and time.
            seen: The same events, and what each request sees of them.

        Returns:
            float32 [Q, A W], log1p of the counts, in the order of :func:`match_total_names`.
        """
        bounds = self._bounds(seen)
        counts = _log_counts(index.groups, bounds, self._action_groups)
        return counts.reshape(len(bounds), self._action_groups * (bounds.shape[1] - 1))

    def numbers(
        self,
        index: MatchIndex,
        seen: SeenEvents,
        candidate_keys: npt.NDArray[np.uint64],
        request_index: npt.NDArray[np.integer[Any]],
    ) -> npt.NDArray[np.float32]:
        """Count the matches of candidates.

        Args:
            index: The events of all requests' users, by user and time.
            seen: The same events, and what each request sees of them.
            candidate_keys: uint64 [N, C].
            request_index: int64 [N], the request of every candidate.

        Returns:
            float32 [N, numbers], in the order of :func:`match_names`. First log1p of the counts [C,
            A, W]. Then of every column the age of the last match (see :func:`_log_age`), and 1
            where there is none.
        """
        bounds = self._bounds(seen)
        candidates, windows = len(candidate_keys), bounds.shape[1] - 1
        counts = np.zeros((candidates, self._columns, self._action_groups, windows), np.float32)
        ages = np.zeros((candidates, self._columns, 2), np.float32)
        ages[..., 1] = 1
        columns = zip(index.distinct_keys, index.key_and_position, strict=True)
        for column, (keys, entries) in enumerate(columns):
            rows, ordinal = _matching(keys, candidate_keys[:, column])
            request = request_index[rows]
            entry_bounds = np.searchsorted(
                entries, (ordinal[:, None] << index.bits) + bounds.take(request, axis=0)
            )
            is_match = entry_bounds[:, -1] > entry_bounds[:, -2]
            rows, request = rows[is_match], request[is_match]
            entry_bounds = entry_bounds[is_match]
            if not len(rows):
                continue
            position = entries & ((1 << index.bits) - 1)
            groups = index.groups[position]
            counts[rows, column] = _log_counts(groups, entry_bounds, self._action_groups)
            last = position[entry_bounds[:, -1] - 1]
            ages[rows, column, 0] = _log_age(seen.request_time_ms[request] - seen.time_ms[last])
            ages[rows, column, 1] = 0
        arrays = (counts, ages) if self._counts.recency else (counts,)
        flat = [array.reshape(candidates, math.prod(array.shape[1:])) for array in arrays]
        return np.concatenate(flat, axis=1)

    def _bounds(self, seen: SeenEvents) -> Array:
        """int64 [Q, W + 1]: where each window begins, the last of them the whole history, and where
        all end.
        """
        begin, middle, end = np.asarray(seen.history_ranges, dtype=np.int64).T
        begins = [
            first_at_least(seen.time_ms, begin, end, seen.request_time_ms - window_ms)
            for window_ms in self._counts.windows_ms
        ]
        return np.stack([*begins, middle, begin, end], axis=1)


def _matching(keys: Array, candidate_keys: Array) -> tuple[Array, Array]:
    """(candidates whose key is among ``keys``, int64 [n]: its ordinal there)."""
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ordinal = np.searchsorted(keys, candidate_keys)
    ordinal[ordinal == len(keys)] = 0
    rows = np.flatnonzero((keys[ordinal] == candidate_keys) & (candidate_keys != NULL_KEY))
    return rows, ordinal[rows]


def _log_counts(groups: Array, entry_bounds: Array, action_groups: int) -> Array:
    """Count entries by group and window.

    Args:
        groups: uint8 [entries], the group of each.
        entry_bounds: int64 [n, W + 1], as positions among the entries: where each window begins,
            and where all end.
        action_groups: A.

    Returns:
        float32 [n, A, W]: log1p of the counts.
    """
    up_to = np.zeros((action_groups, len(groups) + 1), dtype=np.int32)
    for group in range(action_groups):
        np.cumsum(groups == group, out=up_to[group, 1:])
    totals = up_to.take(entry_bounds, axis=1)
    counts = totals[..., -1:] - totals[..., :-1]
    logs = np.log1p(np.arange(counts.max(initial=0) + 1)).astype(np.float32)
    return logs.take(counts.transpose(1, 0, 2))


def _log_age(age_ms: Array) -> Array:
    """float32: log1p of hours over log1p of ten years', so 1 for an event without a time."""
    hours = np.clip(age_ms, 0, _OLDEST_MS) / _HOUR_MS
    logs: Array = (np.log1p(hours) / math.log1p(_OLDEST_MS / _HOUR_MS)).astype(np.float32)
    return logs
