"""Compare the label rates of rows with known and with unknown values, to find label leakage.

Rare values can have another rate than frequent ones. But a difference on train that valid does not
show means that the vocabulary depends on the labels. The manifest has the rates by split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from hemix.data.layout import SPLITS, Block
from hemix.data.levels import level_features, level_spec
from hemix.data.spec import MISSING, UNKNOWN
from hemix.features.base import LEVELS
from hemix.preparation.split_writer import SplitRows, row_states
from hemix.schema import Schema

__all__ = ["LabelRates", "vocabulary_states", "z_score"]

Array = npt.NDArray[Any]

_CHANCE = 0.001
"""Significance level over all features and labels of a split (Bonferroni)"""
_MIN_EXPECTED = 5.0
"""Minimum number of expected positives and negatives in both groups for a test"""
_ODDS_RATIO = 2.0
"""Largest factor between the odds ratios of train and valid that still agree"""


class LabelRates:
    """Counts labels by split, vocabulary feature and task, with sums of squares over users."""

    def __init__(
        self, schema: Schema, users: Array | None = None, items: Array | None = None
    ) -> None:
        """Begin with zero counts.

        Args:
            schema: The schema of the logs.
            users: The :func:`vocabulary_states` of every user row, to add rows.
            items: Those of every item row.
        """
        self._tasks = schema.tasks
        self._columns = {level: _vocabulary_columns(schema, level) for level in LEVELS}
        self._users, self._items = users, items
        self._names = [f"{level}.{name}" for level in LEVELS for name in self._columns[level]]
        shape = (len(SPLITS), len(self._names), len(self._tasks))
        self._sums = np.zeros((*shape, 4))
        """Positives and rows of unknown values, positives and rows of known values"""
        self._squares = np.zeros((*shape, 4, 4))
        """Products of the four sums of each user, summed over users"""

    def add(self, split: int, rows: SplitRows) -> None:
        """Count rows of a split.

        Args:
            split: The number of the split.
            rows: Rows with all impressions of their users.
        """
        assert self._users is not None and self._items is not None
        request = np.repeat(np.arange(len(rows.user)), rows.counts)
        begins_user = np.diff(rows.user, prepend=-1) != 0
        user = (np.cumsum(begins_user) - 1)[request]
        states = [
            self._users[rows.user_row[request]],
            _states(rows.context, self._columns["context"])[request],
            self._items[rows.item_row],
            _states(rows.cross, self._columns["cross"]),
        ]
        state = np.concatenate(states, axis=1)
        users = int(begins_user.sum())
        labels = [
            np.stack([label == 1, label >= 0], axis=1).astype(np.float64) for label in rows.labels.T
        ]
        totals = [_by_user(user, label, users) for label in labels]
        for column in range(state.shape[1]):
            is_unknown = np.flatnonzero(state[:, column] == UNKNOWN)
            is_missing = np.flatnonzero(state[:, column] == MISSING)
            for task, label in enumerate(labels):
                unknown = _by_user(user[is_unknown], label[is_unknown], users)
                missing = _by_user(user[is_missing], label[is_missing], users)
                counts = np.concatenate([unknown, totals[task] - unknown - missing], axis=1)
                self._sums[split, column, task] += counts.sum(axis=0)
                self._squares[split, column, task] += counts.T @ counts

    def sums(self) -> tuple[Array, Array]:
        """Return all counts, for :meth:`update`."""
        return self._sums, self._squares

    def update(self, sums: tuple[Array, Array]) -> None:
        """Add the counts of other users; they are whole numbers, so their order does not matter."""
        self._sums += sums[0]
        self._squares += sums[1]

    def summary(self) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
        """Return the manifest entry: split -> ``level.feature`` -> task -> counts and test.

        Features without unknown values are left out. ``z`` is the difference of the two rates in
        standard errors, and ``beyond_chance`` whether it is significant over all features and tasks
        of the split. Both are absent if a group is too small. On train, ``agrees_with_valid`` is
        whether valid shows about the same difference.
        """
        rates: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        for number, split in enumerate(SPLITS):
            with_unknown = np.flatnonzero(self._sums[number, :, :, 1].any(axis=1)).tolist()
            rates[split] = {
                self._names[column]: {
                    task: self._entry(number, column, at) for at, task in enumerate(self._tasks)
                }
                for column in with_unknown
            }
            tested = [
                entry for tasks in rates[split].values() for entry in tasks.values() if "z" in entry
            ]
            for entry in tested:
                limit = special.ndtri(1 - _CHANCE / len(tested) / 2)
                entry["beyond_chance"] = bool(abs(entry["z"]) > limit)
        for name, tasks in rates["train"].items():
            for task, entry in tasks.items():
                entry["agrees_with_valid"] = _agree(entry, rates["valid"].get(name, {}).get(task))
        return rates

    def _entry(self, split: int, column: int, task: int) -> dict[str, Any]:
        sums, squares = self._sums[split, column, task], self._squares[split, column, task]
        unknown_positives, unknown_rows, known_positives, known_rows = (int(v) for v in sums)
        z = z_score(sums, squares)
        return {
            "known": {"rows": known_rows, "positives": known_positives},
            "unknown": {"rows": unknown_rows, "positives": unknown_positives},
            **({} if z is None else {"z": round(z, 3)}),
        }


def _agree(train: Mapping[str, Any], valid: Mapping[str, Any] | None) -> bool:
    if valid is None:
        return False
    return abs(_log_odds_ratio(train) - _log_odds_ratio(valid)) <= math.log(_ODDS_RATIO)


def _log_odds_ratio(entry: Mapping[str, Any]) -> float:
    """Log odds of unknown values minus those of known ones, with half a row added to each count."""
    odds = [
        math.log((g["positives"] + 0.5) / (g["rows"] - g["positives"] + 0.5))
        for g in (entry["unknown"], entry["known"])
    ]
    return odds[0] - odds[1]


def z_score(sums: Array, squares: Array) -> float | None:
    """Return the difference of two rates in standard errors, or None if a group is too small.

    Rows of a user are not independent. So the variance is the linearised variance of sums over
    users, and at least that of independent rows.

    Args:
        sums: float64 [4], positives and rows of the first group, positives and rows of the second.
        squares: float64 [4, 4], products of these four of each user, summed over users.
    """
    first, rows_first, second, rows_second = (float(v) for v in sums)
    if min(rows_first, rows_second) == 0:
        return None
    rate = (first + second) / (rows_first + rows_second)
    if min(rate, 1 - rate) * min(rows_first, rows_second) < _MIN_EXPECTED:
        return None
    p, q = first / rows_first, second / rows_second
    slope = np.array([1 / rows_first, -p / rows_first, -1 / rows_second, q / rows_second])
    independent = rate * (1 - rate) * (1 / rows_first + 1 / rows_second)
    return (p - q) / math.sqrt(max(float(slope @ squares @ slope), independent))


def _vocabulary_columns(schema: Schema, level: str) -> dict[str, int]:
    """Column of each feature with a vocabulary; jagged columns come after the id columns."""
    spec = level_spec(schema, level)
    columns = {name: at for at, name in enumerate((*spec.names, *spec.jagged_names))}
    features = level_features(schema, level)
    return {
        name: columns[name]
        for name, feature in features.items()
        if feature.vocabulary_settings() is not None
    }


def vocabulary_states(schema: Schema, level: str, block: Block) -> Array:
    """Return the :func:`row_states` of every feature with a vocabulary, int8 [rows, features].

    Args:
        schema: The schema of the logs.
        level: Level of the block.
        block: Encoded rows.
    """
    return _states(block, _vocabulary_columns(schema, level))


def _states(block: Block, columns: Mapping[str, int]) -> Array:
    """int8 [rows, columns]: the :func:`row_states` of every column."""
    states = np.empty((len(block.ids), len(columns)), dtype=np.int8)
    for at, column in enumerate(columns.values()):
        states[:, at] = row_states(block, column)
    return states


def _by_user(user: Array, label: Array, users: int) -> Array:
    """float64 [users, 2]: sums of ``label`` [n, 2] over the rows of each user."""
    sums = [np.bincount(user, label[:, i], minlength=users) for i in range(2)]
    return np.stack(sums, axis=1)
