"""How many of a request's events share a value with a candidate. The loader and the server call the
same functions.

Letters: E events, D items, N candidates, Q requests, C columns, A groups of actions, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import JaggedArray, range_positions
from hemix.data.keys import NULL_KEY
from hemix.data.search import first_at_least
from hemix.features.match_counts import HOUR_MS, OTHER_ACTIONS, MatchCounts, action_groups
from hemix.features.match_index import MatchIndex, MatchKeys
from hemix.features.seen_events import SeenEvents

__all__ = ["MatchCounter"]

Array = npt.NDArray[Any]

_OLDEST_MS = 10 * 8760 * HOUR_MS
"""The age of an event without a time, and of older ones: ten years."""
_CELLS = 1 << 24
"""Candidates times events that are marked at a time"""


class MatchCounter:
    """Counts matches."""

    def __init__(
        self,
        counts: MatchCounts,
        columns: int,
        actions: Mapping[str, int],
        windows_ms: Sequence[int],
    ) -> None:
        """Prepare to count.

        Args:
            counts: What is counted.
            columns: C, how many item columns are compared.
            actions: Ids of the actions that are counted apart; -1 where no event can have one.
            windows_ms: The windows, ascending, in ms.
        """
        self._counts, self._columns, self._windows_ms = counts, columns, tuple(windows_ms)
        names = action_groups(actions)
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
        self, item_keys: MatchKeys, event_item: Array, groups: Array, *, wanted: Array | None = None
    ) -> MatchIndex:
        """Sort events by their items' keys.

        Args:
            item_keys: Keys of items [D].
            event_item: int [E], the item of every event.
            groups: uint8 [E], from :meth:`groups`.
            wanted: int [n], the items that will be looked up; by default any may be.
        """
        bits = len(event_item).bit_length()
        columns = [
            _entries_of_values(values, event_item, bits, wanted) for values in item_keys.values.T
        ]
        columns += [_entries_of_lists(lists, event_item, bits, wanted) for lists in item_keys.lists]
        return MatchIndex(
            distinct_keys=tuple(keys for keys, _ in columns),
            key_and_position=tuple(entries for _, entries in columns),
            lists=len(item_keys.lists),
            groups=groups,
        )

    def totals(self, index: MatchIndex, seen: SeenEvents) -> npt.NDArray[np.float32]:
        """Count all events that requests see, matches or not.

        Args:
            index: The events of all requests' users, by user and time.
            seen: The same events, and what each request sees of them.

        Returns:
            float32 [Q, A W], log1p of the counts, in the order of ``match_total_names``.
        """
        bounds = self._bounds(seen)
        counts = _log_counts(index.groups, bounds, self._action_groups)
        return counts.reshape(len(bounds), self._action_groups * (bounds.shape[1] - 1))

    def numbers(
        self,
        index: MatchIndex,
        seen: SeenEvents,
        candidate_keys: MatchKeys,
        request_index: npt.NDArray[np.integer[Any]],
    ) -> npt.NDArray[np.float32]:
        """Count the matches of candidates.

        Args:
            index: The events of all requests' users, by user and time.
            seen: The same events, and what each request sees of them.
            candidate_keys: Keys of the candidates [N].
            request_index: int64 [N], the request of every candidate.

        Returns:
            float32 [N, numbers], in the order of ``match_names``: log1p of counts [C, A, W + 1],
            those of the newest event of each action last; by column 1 where the newest event of all
            matches; by column the age of the last match (:func:`_log_age`), and 1 without one.
        """
        bounds, newest = self._bounds(seen), self._newest(index, seen)
        candidates, windows = len(request_index), bounds.shape[1] - 1
        shape = (candidates, self._columns, self._action_groups, windows + self._counts.last)
        counts = np.zeros(shape, np.float32)
        last_matches = np.zeros((candidates, self._columns), np.float32)
        ages = np.zeros((candidates, self._columns, 2), np.float32)
        ages[..., 1] = 1
        one_valued, visible = candidate_keys.values.shape[1], bounds[request_index, -2:]
        columns = zip(index.distinct_keys, index.key_and_position, strict=True)
        for column, (keys, entries) in enumerate(columns):
            if column < one_valued:
                rows, ordinal = _matching(keys, candidate_keys.values[:, column])
            else:
                lists = candidate_keys.lists[column - one_valued]
                rows, entries = _entries_of_candidates(keys, entries, index.bits, lists, visible)
                ordinal = rows
            request = request_index[rows]
            entry_bounds = np.searchsorted(
                entries, (ordinal[:, None] << index.bits) + bounds.take(request, axis=0)
            )
            is_match = entry_bounds[:, -1] > entry_bounds[:, -2]
            rows, request, ordinal = rows[is_match], request[is_match], ordinal[is_match]
            entry_bounds = entry_bounds[is_match]
            if not len(rows):
                continue
            position = entries & ((1 << index.bits) - 1)
            groups = index.groups[position]
            logs = _log_counts(groups, entry_bounds, self._action_groups)
            counts[rows, column, :, :windows] = logs
            if self._counts.last:
                first_entry = (ordinal << index.bits)[:, None]
                is_newest = _are_entries(entries, first_entry, newest.take(request, axis=0))
                counts[rows, column, :, windows] = np.log1p(is_newest[:, :-1], dtype=np.float32)
                last_matches[rows, column] = is_newest[:, -1]
            last = position[entry_bounds[:, -1] - 1]
            ages[rows, column, 0] = _log_age(seen.request_time_ms[request] - seen.time_ms[last])
            ages[rows, column, 1] = 0
        arrays = [counts, *[last_matches] * self._counts.last, *[ages] * self._counts.recency]
        flat = [array.reshape(candidates, math.prod(array.shape[1:])) for array in arrays]
        return np.concatenate(flat, axis=1)

    def _bounds(self, seen: SeenEvents) -> Array:
        """int64 [Q, W + 1]: where each window begins, the last of them the whole history, and where
        all end.
        """
        begin, middle, end = np.asarray(seen.history_ranges, dtype=np.int64).T
        begins = [
            first_at_least(seen.time_ms, begin, end, seen.request_time_ms - window_ms)
            for window_ms in self._windows_ms
        ]
        return np.stack([*begins, middle, begin, end], axis=1)

    def _newest(self, index: MatchIndex, seen: SeenEvents) -> Array:
        """int64 [Q, A + 1]: the position of the newest event that a request sees of each group of
        actions, and of all; -1 without one.
        """
        begin, _, end = np.asarray(seen.history_ranges, dtype=np.int64).T
        newest = np.full((len(begin), self._action_groups + 1), -1)
        newest[:, -1] = end - 1
        positions = np.zeros(len(index.groups) + 1, np.int64)
        for group in range(self._action_groups):
            # positions are counted from 1 here, so that 0 is none
            own = np.where(index.groups == group, np.arange(1, len(positions)), 0)
            np.maximum.accumulate(own, out=positions[1:])
            newest[:, group] = positions[end] - 1
        return np.where(newest >= begin[:, None], newest, -1)


def _entries_of_values(
    values: Array, event_item: Array, bits: int, wanted: Array | None
) -> tuple[Array, Array]:
    """The distinct keys and the entries of a column, of uint64 [D]; see :class:`MatchIndex`."""
    distinct, ordinal = np.unique(values, return_inverse=True)
    usable = np.full(len(distinct), wanted is None)
    if wanted is not None:
        usable[ordinal[wanted]] = True
    usable &= distinct != NULL_KEY
    of_event = ordinal[event_item]
    position = np.flatnonzero(usable[of_event])
    return distinct, np.sort((of_event[position] << bits) | position)


def _entries_of_lists(
    lists: JaggedArray[np.uint64], event_item: Array, bits: int, wanted: Array | None
) -> tuple[Array, Array]:
    """The same of lists [D]; a value that an event holds twice has one entry."""
    distinct, ordinal = np.unique(lists.values, return_inverse=True)
    of_item = JaggedArray(values=ordinal, offsets=lists.offsets)
    usable = np.full(len(distinct), wanted is None)
    if wanted is not None:
        usable[of_item.select(wanted).values] = True
    usable &= distinct != NULL_KEY
    of_event = of_item.select(event_item)
    entries = (of_event.values << bits) | of_event.row_index
    return distinct, np.unique(entries[usable[of_event.values]])


def _entries_of_candidates(
    keys: Array, entries: Array, bits: int, lists: JaggedArray[np.uint64], visible: Array
) -> tuple[Array, Array]:
    """Find the events that share any value with each candidate.

    Args:
        keys: uint64, the distinct keys of the column.
        entries: int64, its entries.
        bits: How many lower bits of an entry hold a position.
        lists: Keys of the candidates [N].
        visible: int64 [N, 2], the events that each candidate's request sees.

    Returns:
        The candidates that have such an event, int64 [n] ascending; and entries of them, int64,
        ascending, with the candidate in the place of the key's ordinal.
    """
    at, ordinal = _matching(keys, lists.values)
    candidate = lists.row_index[at]
    bounds = np.searchsorted(entries, (ordinal[:, None] << bits) + visible[candidate])
    lengths = bounds[:, 1] - bounds[:, 0]
    found = entries[range_positions(bounds[:, 0], lengths)] & ((1 << bits) - 1)
    found_candidate = np.repeat(candidate, lengths)
    rows = np.unique(found_candidate)
    width = int(np.diff(visible, axis=1).max(initial=0))
    rows_at_once = max(1, _CELLS // max(width, 1))
    unions = [np.zeros(0, np.int64)]
    for first in range(0, len(rows), rows_at_once):
        own = rows[first : first + rows_at_once]
        # a cell for each candidate and event drops repetitions faster than sorting does
        begin, end = np.searchsorted(found_candidate, [own[0], own[-1] + 1])
        row = np.searchsorted(own, found_candidate[begin:end])
        cells = np.zeros(len(own) * width, dtype=bool)
        cells[row * width + found[begin:end] - visible[own[row], 0]] = True
        row, offset = np.divmod(np.flatnonzero(cells), width)
        unions.append((own[row] << bits) | (visible[own[row], 0] + offset))
    return rows, np.concatenate(unions)


def _matching(keys: Array, candidate_keys: Array) -> tuple[Array, Array]:
    """(candidates whose key is among ``keys``, int64 [n]: its ordinal there)."""
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ordinal = np.searchsorted(keys, candidate_keys)
    ordinal[ordinal == len(keys)] = 0
    rows = np.flatnonzero((keys[ordinal] == candidate_keys) & (candidate_keys != NULL_KEY))
    return rows, ordinal[rows]


def _are_entries(entries: Array, first_entry: Array, position: Array) -> Array:
    """bool [n, k]: whether the events at ``position``, int64 [n, k], -1 for none, have the key
    whose entries begin at ``first_entry``, int64 [n, 1].
    """
    entry = first_entry + position
    at = np.minimum(np.searchsorted(entries, entry), len(entries) - 1)
    are_entries: Array = (entries[at] == entry) & (position >= 0)
    return are_entries


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
    hours = np.clip(age_ms, 0, _OLDEST_MS) / HOUR_MS
    logs: Array = (np.log1p(hours) / math.log1p(_OLDEST_MS / HOUR_MS)).astype(np.float32)
    return logs
