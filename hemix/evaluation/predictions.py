"""Predictions of a split with all that its evaluation needs: plain arrays, one row an impression.

This module knows nothing of models, datasets or torch, nor of metrics.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from hemix.errors import DataError
from hemix.evaluation.metrics import Array

__all__ = ["Predictions", "TaskRows"]


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """The rows of one task whose label is known."""

    name: str
    rows: Array
    """Positions of these rows in the split, int64 [m]."""
    labels: Array
    """0 or 1, float64 [m]"""
    probabilities: Array
    """float64 [m]"""
    weights: Array
    """float64 [m]"""
    truth: Array | None = None
    popularity: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """``n`` impressions and ``T`` tasks.

    Checked where it is made; raises DataError naming the field and the row.
    """

    tasks: tuple[str, ...]
    given: tuple[int | None, ...]
    """For every task the position of the label it depends on, which comes before it."""
    probabilities: Array
    """[n, T], over the entire space: of an order that is p(click) x p(order given click)."""
    labels: Array
    """[n, T] of 0 and 1; -1 or NaN: unknown, left out of the task."""
    user: Array
    """[n] integers"""
    request: Array
    """[n] integers"""
    history_length: Array
    """[n]: events of the user that the request shows to the model."""
    realtime_length: Array
    """[n]: those of them in the real-time window."""
    user_seen_in_train: Array
    """[n] bool"""
    item_seen_in_train: Array
    """[n] bool"""
    weights: Array | None = None
    """[n]; for a log with sampled negatives 1 / rate on the sampled rows. None: all 1."""
    conditional: Array | None = None
    """[n, T]: of a task with ``given`` the probability given that label; other columns are not
    read.
    """
    truth: Array | None = None
    """[n, T]: known probabilities over the entire space, from a simulation; a column with NaN is
    left out.
    """
    popularity: Array | None = None
    """[n, T]: smoothed train rate of the impression's item over the entire space."""

    def __post_init__(self) -> None:
        probabilities = np.asarray(self.probabilities)
        if (
            probabilities.ndim != 2
            or probabilities.shape[1] != len(self.tasks)
            or len(self.given) != len(self.tasks)
        ):
            raise DataError(
                f"Predictions.probabilities: expected [n, {len(self.tasks)}] for tasks "
                f"{', '.join(self.tasks)}, "
                f"got {probabilities.shape} and {len(self.given)} given"
            )
        rows = probabilities.shape[0]
        for field in dataclasses.fields(self):
            if field.name in ("tasks", "given") or (value := getattr(self, field.name)) is None:
                continue
            wide = field.name in ("probabilities", "labels", "conditional", "truth", "popularity")
            expected = (rows, len(self.tasks)) if wide else (rows,)
            if np.shape(value) != expected:
                raise DataError(
                    f"Predictions.{field.name}: expected shape {expected}, got {np.shape(value)}"
                )
        _probable("probabilities", probabilities)
        for task, given in enumerate(self.given):
            if given is not None and not 0 <= given < task:
                raise DataError(
                    f"Predictions.given[{task}]: expected an earlier task or None, got {given}"
                )
            if given is not None and self.conditional is not None:
                _probable("conditional", self.conditional[:, task])

    @property
    def rows(self) -> int:
        """n"""
        return int(self.probabilities.shape[0])

    def task_rows(self) -> list[TaskRows]:
        """Every task over the entire space, then, where conditional probabilities are there,
        ``order_given_click`` and its like over the rows where the given label is 1.
        """
        whole = [self._rows_of(task) for task in range(len(self.tasks))]
        return whole + [
            self._given_rows_of(task)
            for task, given in enumerate(self.given)
            if given is not None and self.conditional is not None
        ]

    def _known(self, task: int) -> Array:
        labels = np.asarray(self.labels[:, task])
        known: Array = (labels == 0) | (labels == 1)
        wrong = ~(known | (labels == -1) | np.isnan(labels))
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"Predictions.labels[{self.tasks[task]}]: expected 0, 1 or -1 (unknown), got "
                f"{labels[at]} in row {at}"
            )
        return known

    def _rows_of(self, task: int) -> TaskRows:
        rows = np.flatnonzero(self._known(task))
        truth = None if self.truth is None else self.truth[rows, task]
        return TaskRows(
            name=self.tasks[task],
            rows=rows,
            labels=self.labels[rows, task].astype(np.float64),
            probabilities=self.probabilities[rows, task].astype(np.float64),
            weights=self._weights(rows),
            truth=truth if truth is not None and np.isfinite(truth).all() else None,
            popularity=None if self.popularity is None else self.popularity[rows, task],
        )

    def _given_rows_of(self, task: int) -> TaskRows:
        given = self.given[task]
        assert given is not None and self.conditional is not None
        rows = np.flatnonzero(self._known(task) & (np.asarray(self.labels[:, given]) == 1))
        truth = (
            None if self.truth is None else _ratio(self.truth[rows, task], self.truth[rows, given])
        )
        return TaskRows(
            name=f"{self.tasks[task]}_given_{self.tasks[given]}",
            rows=rows,
            labels=self.labels[rows, task].astype(np.float64),
            probabilities=self.conditional[rows, task].astype(np.float64),
            weights=self._weights(rows),
            truth=truth if truth is not None and np.isfinite(truth).all() else None,
            popularity=None
            if self.popularity is None
            else _ratio(self.popularity[rows, task], self.popularity[rows, given]),
        )

    def _weights(self, rows: Array) -> Array:
        return np.ones(rows.size) if self.weights is None else self.weights[rows].astype(np.float64)


def _probable(name: str, values: Array) -> None:
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        at = int(np.argwhere(wrong)[0][0])
        raise DataError(
            f"Predictions.{name}: expected probabilities from 0 to 1, got {values[at]} in row {at}"
        )


def _ratio(part: Array, whole: Array) -> Array:
    part, whole = part.astype(np.float64), whole.astype(np.float64)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
