"""The same small search for every model: as many points for each, on one dataset and one seed,
chosen by valid log loss.

A search file is YAML: ``all`` holds a list of points, a point is a mapping of settings
(``train.dense_learning_rate: 1e-3``); under a model's name it may have points of its own, as many.
Knows settings and cells' results, not how they run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemix.errors import RunError, SettingsError
from hemix.lab.studies.cells import Cell, Contender
from hemix.models import model_names
from hemix.settings import build_settings, of_model
from hemix.yaml_files import read_yaml

__all__ = ["Points", "best", "default_points", "points_for", "read_points", "valid_loss"]

Point = dict[str, Any]
Points = dict[str, list[Point]]
"""Points by model name; ``all`` for the others"""

_CHANGES = ((1.0, 1.0, 0.0), (2.0, 1.0, 0.0), (1.0, 0.5, 0.1))
"""(factor of the tables' learning rate, factor of the dense one, dropout), each with either dense
optimiser: which of the two a model prefers differs from model to model (docs/lab.md)
"""
_OPTIMIZERS = ("adamw", "muon")
_BOOSTING = ((0.05, 31), (0.05, 15), (0.05, 63), (0.025, 31), (0.1, 31), (0.025, 63))
"""(learning rate, leaves)"""


def default_points(base: Mapping[str, Any]) -> Points:
    """Six points around the settings ``base`` (by ``section.name``): either dense optimiser, as it
    is, with faster tables, and with a slower dense part and dropout.
    """
    train = build_settings(
        overrides={key: value for key, value in base.items() if key.startswith("train.")}
    ).train
    return {
        "all": [
            {
                "train.table_learning_rate": train.table_learning_rate * table,
                "train.dense_learning_rate": train.dense_learning_rate * dense,
                "train.dense_optimizer": optimizer,
                "model.dropout": dropout,
            }
            for optimizer in _OPTIMIZERS
            for table, dense, dropout in _CHANGES
        ],
        "lightgbm": [
            {"boosting.learning_rate": rate, "boosting.leaves": leaves}
            for rate, leaves in _BOOSTING
        ],
    }


def read_points(path: str | Path) -> Points:
    """Read a search file.

    Raises SettingsError naming the file and what is wrong: models must have equally many points.
    """
    content = read_yaml(path, SettingsError)
    if not isinstance(content, dict) or "all" not in content:
        raise SettingsError(
            f"{path}: expected a list of points under 'all', and under models that need their own"
        )
    for name, points in content.items():
        if (
            not isinstance(points, list)
            or not points
            or not all(isinstance(point, dict) for point in points)
        ):
            raise SettingsError(
                f"{path}: {name}: expected a list of points, each a mapping of settings"
            )
        if len(points) != len(content["all"]):
            raise SettingsError(
                f"{path}: {name}: expected {len(content['all'])} points like 'all', got "
                f"{len(points)}: "
                "every model gets the same search"
            )
        for point in points:
            _check(str(name), {str(key): _number(value) for key, value in point.items()})
    return {
        str(name): [{str(k): _number(v) for k, v in point.items()} for point in points]
        for name, points in content.items()
    }


def _number(value: Any) -> Any:
    """YAML takes 1e-3 for text; a person means a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _check(name: str, point: Point) -> None:
    """Raises SettingsError where a point's settings are of no model, or not of the one named."""
    if name == "all":
        for model in model_names():
            build_settings(overrides={**of_model(model, point, model_names()), "model.name": model})
    else:
        build_settings(overrides={**point, "model.name": name})


def points_for(contender: Contender, points: Points) -> list[Contender]:
    """The contender at every point of its model; of the points of ``all``, what its model has."""
    if contender.model in points:
        chosen: Sequence[Point] = points[contender.model]
    else:
        chosen = [of_model(contender.model, point, model_names()) for point in points["all"]]
    return [Contender.of(contender.label, {**contender.changes, **point}) for point in chosen]


def valid_loss(cell: Cell) -> float:
    """Valid log loss, the mean of the tasks. Raises RunError where one is not defined."""
    judged = cell.judged("valid")
    losses = [judged[task].get("logloss") for task in cell.data.dataset.schema.tasks]
    if None in losses:
        raise RunError(f"{cell.folder}: log loss is not defined for every task on valid")
    return float(sum(losses)) / len(losses)


def best(cells: Sequence[Cell]) -> tuple[Cell | None, list[dict[str, Any]]]:
    """The finished cell of the lowest valid loss (the first of equals; None where none is
    finished), and what every point gave.
    """
    found, chosen, lowest = list[dict[str, Any]](), None, float("inf")
    for cell in cells:
        loss = valid_loss(cell) if cell.done("valid") else None
        found.append({"settings": cell.contender.changes, "valid_logloss": loss})
        if loss is not None and loss < lowest:
            chosen, lowest = cell, loss
    return chosen, found
