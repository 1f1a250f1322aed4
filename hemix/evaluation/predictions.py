"""Predictions of a split with everything that its evaluation needs: plain arrays, one row an
impression.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hemix.errors import DataError
from hemix.evaluation.metrics import Array

__all__ = ["Predictions", "TaskRows"]

_TASK_FIELDS = ("probabilities", "labels", "conditional", "truth")
"""Fields of Predictions with a column for every task."""


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """The rows of one task whose label is known."""

    name: str
    rows: Array
    """Positions of these rows in the split, int64 [m]."""
    labels: Array
    """0 or 1, float64 [m]."""
    probabilities: Array
    """float64 [m]."""
    weights: Array
    """float64 [m]."""
    truth: Array | None = None
    """Probabilities that the labels were drawn from, float64 [m]."""
    baselines: Mapping[str, Array] = field(default_factory=dict)
    """Probabilities of trivial rules by their names, float64 [m]."""
    position: Array | None = None
    """Logged value of the bias column, int64 [m]."""

    def select(self, mask: Array) -> TaskRows:
        """The rows where ``mask`` (bool [m]) holds."""
        return TaskRows(
            name=self.name,
            rows=self.rows[mask],
            labels=self.labels[mask],
            probabilities=self.probabilities[mask],
            weights=self.weights[mask],
            truth=None if self.truth is None else self.truth[mask],
            baselines={name: values[mask] for name, values in self.baselines.items()},
            position=None if self.position is None else self.position[mask],
        )


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """``n`` impressions and ``T`` tasks.

    Validated on construction: raises DataError naming the field and the row.
    """

    tasks: tuple[str, ...]
    given: tuple[int | None, ...]
    """For every task the position of the label it depends on, which comes before it."""
    probabilities: Array
    """[n, T], over the entire space: of an order that is p(click) x p(order given click)."""
    labels: Array
    """[n, T] of 0 and 1; -1 or NaN: unknown, left out of the task."""
    user: Array
    """[n] integers."""
    request: Array
    """[n] integers."""
    history_length: Array
    """[n]: events of the user that the request shows to the model."""
    realtime_length: Array
    """[n]: those of them in the real-time window."""
    user_seen_in_train: Array
    """[n] bool."""
    item_seen_in_train: Array
    """[n] bool."""
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
    baselines: Mapping[str, Array] = field(default_factory=dict)
    """By name, [n, T]: probabilities of rules learned from train alone, over the entire space."""
    position: Array | None = None
    """[n]: logged value of the bias column. None for a schema without one."""

    def __post_init__(self) -> None:
        self._validate_shapes()
        _validate_probabilities("probabilities", np.asarray(self.probabilities))
        for task, given in enumerate(self.given):
            if given is None:
                continue
            if not 0 <= given < task:
                raise DataError(
                    f"Predictions.given[{task}]: expected an earlier task or None, got {given}",
                    field="given",
                )
            if self.conditional is not None:
                _validate_probabilities("conditional", self.conditional[:, task])

    def select(self, rows: Array) -> Predictions:
        """Return the impressions at the positions ``rows``, int [m]."""
        columns = {
            each.name: value[rows]
            for each in dataclasses.fields(self)
            if each.name not in ("tasks", "given", "baselines")
            and (value := getattr(self, each.name)) is not None
        }
        baselines = {name: values[rows] for name, values in self.baselines.items()}
        return dataclasses.replace(self, **columns, baselines=baselines)

    def _validate_shapes(self) -> None:
        shape = np.shape(self.probabilities)
        if len(shape) != 2 or shape[1] != len(self.tasks) or len(self.given) != len(self.tasks):
            raise DataError(
                f"Predictions.probabilities: expected [n, {len(self.tasks)}] for tasks "
                f"{', '.join(self.tasks)}, got {shape} and {len(self.given)} given",
                code="wrong_shape",
                field="probabilities",
            )
        others = ("tasks", "given", "baselines")
        names = [each.name for each in dataclasses.fields(self) if each.name not in others]
        arrays = {name: getattr(self, name) for name in names}
        arrays |= {f"baselines.{name}": values for name, values in self.baselines.items()}
        for name, value in arrays.items():
            of_tasks = name in _TASK_FIELDS or name.startswith("baselines.")
            expected = shape if of_tasks else shape[:1]
            if value is not None and np.shape(value) != expected:
                raise DataError(
                    f"Predictions.{name}: expected shape {expected}, got {np.shape(value)}",
                    code="wrong_shape",
                    field=name,
                )

    @property
    def rows(self) -> int:
        """How many impressions there are, n."""
        return int(self.probabilities.shape[0])

    def task_rows(self) -> list[TaskRows]:
        """The rows of every task over the entire space, then, with conditional probabilities, of
        every conditional task such as ``order_given_click``: the rows where the given label is 1.
        """
        entire_space = [self._entire_space_rows(task) for task in range(len(self.tasks))]
        return entire_space + [
            self._conditional_rows(task)
            for task, given in enumerate(self.given)
            if given is not None and self.conditional is not None
        ]

    def _known(self, task: int) -> Array:
        labels = np.asarray(self.labels[:, task])
        known: Array = (labels == 0) | (labels == 1)
        wrong = ~(known | (labels == -1) | np.isnan(labels))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"Predictions.labels[{self.tasks[task]}]: expected 0, 1 or -1 (unknown), got "
                f"{labels[row]} in row {row}",
                field="labels",
            )
        return known

    def _entire_space_rows(self, task: int) -> TaskRows:
        rows = np.flatnonzero(self._known(task))
        return TaskRows(
            name=self.tasks[task],
            rows=rows,
            labels=self.labels[rows, task].astype(np.float64),
            probabilities=self.probabilities[rows, task].astype(np.float64),
            weights=self._row_weights(rows),
            truth=None if self.truth is None else _finite_or_none(self.truth[rows, task]),
            **self._of_rows(rows, lambda values: values[rows, task]),
        )

    def _conditional_rows(self, task: int) -> TaskRows:
        given = self.given[task]
        assert given is not None and self.conditional is not None
        rows = np.flatnonzero(self._known(task) & (np.asarray(self.labels[:, given]) == 1))

        def conditional(values: Array) -> Array:
            return _ratio(values[rows, task], values[rows, given])

        return TaskRows(
            name=f"{self.tasks[task]}_given_{self.tasks[given]}",
            rows=rows,
            labels=self.labels[rows, task].astype(np.float64),
            probabilities=self.conditional[rows, task].astype(np.float64),
            weights=self._row_weights(rows),
            truth=None if self.truth is None else _finite_or_none(conditional(self.truth)),
            # a rule predicts every task by itself, so that an order may exceed its click
            **self._of_rows(rows, lambda values: np.minimum(conditional(values), 1.0)),
        )

    def _of_rows(self, rows: Array, of_task: Callable[[Array], Array]) -> dict[str, Any]:
        """The baselines and the positions of a task's rows."""
        return {
            "baselines": {name: of_task(values) for name, values in self.baselines.items()},
            "position": None if self.position is None else self.position[rows],
        }

    def _row_weights(self, rows: Array) -> Array:
        return np.ones(rows.size) if self.weights is None else self.weights[rows].astype(np.float64)


def _validate_probabilities(name: str, values: Array) -> None:
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise DataError(
            f"Predictions.{name}: expected probabilities from 0 to 1, got {values[row]} in row "
            f"{row}",
            field=name,
        )


def _finite_or_none(values: Array) -> Array | None:
    return values if np.isfinite(values).all() else None


def _ratio(numerator: Array, denominator: Array) -> Array:
    numerator, denominator = numerator.astype(np.float64), denominator.astype(np.float64)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)
