"""Label rates of rows whose value the encoders know, beside those of rows whose value they do not.

Rare values may well have another rate than frequent ones. A difference on train that valid does not
show is a leak: the vocabulary depends on the labels. The rates go into the manifest by split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.encode import level_features, level_spec
from hemix.data.layout import SPLITS, Block
from hemix.data.spec import MISSING, UNKNOWN
from hemix.features.base import LEVELS
from hemix.preparation.shards import ShardRows, row_states
from hemix.schema import Schema

__all__ = ["LabelRates", "z_score"]

Array = npt.NDArray[Any]

_CHANCE = 0.001
"""A difference that chance alone makes less often than this, over all features and labels, is a
warning.
"""
_LEAST_EXPECTED = 5.0
"""Both groups need so many expected positives and negatives; fewer tell nothing."""
_ODDS_RATIO = 2.0
"""Train and valid agree where the odds of unknown against known values differ by at most this
factor.
"""


class LabelRates:
    """Counts labels by split, vocabulary feature and task, with sums of squares over users."""

    def __init__(self, schema: Schema, users: Block, items: Block) -> None:
        """Start counting.

        Args:
            schema: The schema of the logs.
            users: The encoded features of every user row.
            items: The encoded features of every item row.
        """
        self._tasks = schema.tasks
        self._columns = {level: _vocabulary_columns(schema, level) for level in LEVELS}
        self._of_rows = {
            "user": _states(users, self._columns["user"]),
            "item": _states(items, self._columns["item"]),
        }
        self._names = [f"{level}.{name}" for level in LEVELS for name in self._columns[level]]
        shape = (len(SPLITS), len(self._names), len(self._tasks))
        self._sums = np.zeros((*shape, 4))
        """Positives and rows of unknown values, positives and rows of known values"""
        self._squares = np.zeros((*shape, 4, 4))
        """Their products, summed over users"""

    def add(self, split: int, rows: ShardRows) -> None:
        """Count some rows of a split; all rows of a user come in one call."""
        request = np.repeat(np.arange(len(rows.user)), rows.counts)
        begins_user = np.diff(rows.user, prepend=-1) != 0
        user = (np.cumsum(begins_user) - 1)[request]
        states = [
            self._of_rows["user"][rows.user_row[request]],
            _states(rows.context, self._columns["context"])[request],
            self._of_rows["item"][rows.item_row],
            _states(rows.cross, self._columns["cross"]),
        ]
        state = np.concatenate(states, axis=1)
        users = int(begins_user.sum())
        labels = [
            np.stack([label == 1, label >= 0], axis=1).astype(np.float64) for label in rows.labels.T
        ]
        whole = [_by_user(user, labelled, users) for labelled in labels]
        for column in range(state.shape[1]):
            unknown, missing = (
                np.flatnonzero(state[:, column] == value) for value in (UNKNOWN, MISSING)
            )
            for task, labelled in enumerate(labels):
                first, absent = (
                    _by_user(user[at], labelled[at], users) for at in (unknown, missing)
                )
                counts = np.concatenate([first, whole[task] - first - absent], axis=1)
                self._sums[split, column, task] += counts.sum(axis=0)
                self._squares[split, column, task] += counts.T @ counts

    def summary(self) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
        """Return split -> ``level.feature`` -> task -> rows and positives of known and unknown
        values.

        Features whose values are all known are left out. ``z`` is the difference of the two rates
        in standard errors, and ``beyond_chance`` says whether it is too large for chance over all
        features and tasks of the split; both are absent where the groups are too small to tell. On
        train, ``agrees_with_valid`` says whether valid shows about the same difference.
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
                limit = NormalDist().inv_cdf(1 - _CHANCE / len(tested) / 2)
                entry["beyond_chance"] = abs(entry["z"]) > limit
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
    """Log odds of unknown values minus those of known ones; half a row is added to every count."""
    odds = [
        math.log((g["positives"] + 0.5) / (g["rows"] - g["positives"] + 0.5))
        for g in (entry["unknown"], entry["known"])
    ]
    return odds[0] - odds[1]


def z_score(sums: Array, squares: Array) -> float | None:
    """Return the difference of two rates in standard errors, or None where the groups are too
    small.

    Rows of one user are not independent, so the variance is that of sums over users (linearised),
    and never below that of independent rows.

    Args:
        sums: float64 [4]: positives and rows of the first group, positives and rows of the second.
        squares: float64 [4, 4]: products of the same four, summed over users.
    """
    first, rows_first, second, rows_second = (float(v) for v in sums)
    if min(rows_first, rows_second) == 0:
        return None
    rate = (first + second) / (rows_first + rows_second)
    if min(rate, 1 - rate) * min(rows_first, rows_second) < _LEAST_EXPECTED:
        return None
    p, q = first / rows_first, second / rows_second
    slope = np.array([1 / rows_first, -p / rows_first, -1 / rows_second, q / rows_second])
    independent = rate * (1 - rate) * (1 / rows_first + 1 / rows_second)
    return (p - q) / math.sqrt(max(float(slope @ squares @ slope), independent))


def _vocabulary_columns(schema: Schema, level: str) -> dict[str, int]:
    """Feature -> column of the level's features with a vocabulary, lists after the id columns."""
    spec = level_spec(schema, level)
    columns = {name: at for at, name in enumerate((*spec.names, *spec.jagged_names))}
    features = level_features(schema, level)
    return {
        name: columns[name]
        for name, feature in features.items()
        if feature.vocabulary_settings() is not None
    }


def _states(block: Block, columns: Mapping[str, int]) -> Array:
    """int8 [rows, columns]: the :func:`row_states` of every column."""
    states = np.empty((len(block.ids), len(columns)), dtype=np.int8)
    for at, column in enumerate(columns.values()):
        states[:, at] = row_states(block, column)
    return states


def _by_user(user: Array, labelled: Array, users: int) -> Array:
    """float64 [users, 2]: sums of ``labelled`` [n, 2]."""
    sums = [np.bincount(user, labelled[:, i], minlength=users) for i in range(2)]
    return np.stack(sums, axis=1)
