"""Search of settings over a fixed grid: every model gets equally many points on one dataset and one
seed. A sampler such as Optuna's would give each model other points, and the luck of its draws.

The valid log loss selects the point. A search file is YAML: ``all`` holds a list of points, each a
mapping of settings (``train.dense_learning_rate: 1e-3``); a model's name may hold other points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemix.errors import RunError, SettingsError
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.cost import Stage
from hemix.lab.studies.datasets import StudyDataset
from hemix.lab.studies.options import StudyOptions
from hemix.lab.studies.runner import Failure, run_trials
from hemix.lab.studies.study import trials_for
from hemix.lab.studies.trial import EvaluatedSplit, Trial
from hemix.models import model_names
from hemix.settings import build_settings, of_model
from hemix.yaml_files import read_yaml

__all__ = [
    "Points",
    "Search",
    "best_trial",
    "candidates_at_points",
    "default_points",
    "read_points",
    "valid_loss",
]

Point = dict[str, Any]
Points = dict[str, list[Point]]
"""Points by model name; ``all`` for the models without their own"""

_NEURAL_POINTS = ((1.0, 1.0, 0.0), (2.0, 1.0, 0.0), (1.0, 0.5, 0.1))
"""(factor of the tables' learning rate, factor of the dense one, dropout)"""
_OPTIMIZERS = ("adamw", "muon")  # the better one differs from model to model (docs/project/lab.md)
_BOOSTING_POINTS = ((0.05, 31), (0.05, 15), (0.05, 63), (0.025, 31), (0.1, 31), (0.025, 63))
"""(learning rate, leaves)"""


def default_points(base: Mapping[str, Any]) -> Points:
    """Make six points around the settings ``base`` (by ``section.name``).

    Neural models get either dense optimiser with three choices of learning rates and dropout.
    """
    train = build_settings(
        overrides={key: value for key, value in base.items() if key.startswith("train.")}
    ).train
    return {
        "all": [
            {
                "train.table_learning_rate": train.table_learning_rate * table_factor,
                "train.dense_learning_rate": train.dense_learning_rate * dense_factor,
                "train.dense_optimizer": optimizer,
                "model.dropout": dropout,
            }
            for optimizer in _OPTIMIZERS
            for table_factor, dense_factor, dropout in _NEURAL_POINTS
        ],
        "lightgbm": [
            {"boosting.learning_rate": rate, "boosting.leaves": leaves}
            for rate, leaves in _BOOSTING_POINTS
        ],
    }


def read_points(path: str | Path) -> Points:
    """Read a search file.

    Raises SettingsError naming the file and the problem: all models must have equally many points.
    """
    content = read_yaml(path, SettingsError)
    if not isinstance(content, dict) or "all" not in content:
        raise SettingsError(
            f"{path}: expected a list of points under 'all', and under models that need their own",
            code="missing_key",
            field="all",
        )
    result: Points = {}
    for name, points in content.items():
        if (
            not isinstance(points, list)
            or not points
            or not all(isinstance(point, dict) for point in points)
        ):
            raise SettingsError(
                f"{path}: {name}: expected a list of points, each a mapping of settings",
                field=str(name),
            )
        if len(points) != len(content["all"]):
            raise SettingsError(
                f"{path}: {name}: expected {len(content['all'])} points like 'all', got "
                f"{len(points)}: every model gets the same search",
                code="unequal_search",
                field=str(name),
            )
        result[str(name)] = [
            {str(key): _parse_number(value) for key, value in point.items()} for point in points
        ]
        for point in result[str(name)]:
            _check_point(str(name), point)
    return result


def _parse_number(value: Any) -> Any:
    """Convert a number such as 1e-3, which YAML reads as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _check_point(name: str, point: Point) -> None:
    """Raise SettingsError for a setting that no model has, or not the named one."""
    if name == "all":
        for model in model_names():
            build_settings(overrides={**of_model(model, point, model_names()), "model.name": model})
    else:
        build_settings(overrides={**point, "model.name": name})


def candidates_at_points(candidate: Candidate, points: Points) -> list[Candidate]:
    """Apply every point of a candidate's model to the candidate.

    Args:
        candidate: The candidate; the points override its settings.
        points: Points by model name. From ``all``, settings that the model lacks are left out.
    """
    if candidate.model in points:
        selected: Sequence[Point] = points[candidate.model]
    else:
        selected = [of_model(candidate.model, point, model_names()) for point in points["all"]]
    return [
        Candidate.from_overrides(candidate.label, {**candidate.overrides, **point})
        for point in selected
    ]


def valid_loss(trial: Trial) -> float:
    """Compute the mean valid log loss of the tasks. Raises RunError where one is undefined."""
    metrics = trial.metrics("valid")
    tasks = trial.dataset.dataset.schema.tasks
    losses = [float(metrics[task]["logloss"]) for task in tasks if "logloss" in metrics[task]]
    if len(losses) < len(tasks):
        raise RunError(
            f"{trial.folder}: log loss is not defined for every task on valid",
            code="undefined_metric",
            field=str(trial.folder),
        )
    return sum(losses) / len(losses)


def best_trial(trials: Sequence[Trial]) -> tuple[Trial | None, list[dict[str, Any]]]:
    """Select the finished trial with the lowest valid loss, the first of equal ones.

    Returns the trial (None where no trial is finished), and settings and loss of every trial.
    """
    results, best, lowest = list[dict[str, Any]](), None, float("inf")
    for trial in trials:
        loss = valid_loss(trial) if trial.is_finished("valid") else None
        results.append({"settings": trial.candidate.overrides, "valid_logloss": loss})
        if loss is not None and loss < lowest:
            best, lowest = trial, loss
    return best, results


class Search:
    """The search of settings for all candidates, on one dataset."""

    def __init__(
        self, out: Path, candidates: Sequence[Candidate], points: Points, dataset: StudyDataset
    ) -> None:
        """Make the trials.

        Args:
            out: The study's folder.
            candidates: The candidates.
            points: The points of their models.
            dataset: The dataset to search on.
        """
        self._out, self._candidates, self._dataset = out, candidates, dataset
        self._trials_by_label = {
            candidate.label: [
                Trial(root=out, candidate=at_point, dataset=dataset, seed=0)
                for at_point in candidates_at_points(candidate, points)
            ]
            for candidate in candidates
        }
        self._trials = [trial for trials in self._trials_by_label.values() for trial in trials]

    def stages(
        self, datasets: Sequence[StudyDataset], seeds: int, split: EvaluatedSplit
    ) -> list[Stage]:
        """Return the stages of the search and of the comparison after it.

        Args:
            datasets: The datasets of the comparison.
            seeds: Number of seeds on each dataset.
            split: The split that the comparison scores.
        """
        candidates, name = self._candidates, "compare"
        if all(trial.is_finished("valid") for trial in self._trials):
            best = [best_trial(trials)[0] for trials in self._trials_by_label.values()]
            candidates = [trial.candidate for trial in best if trial is not None]
        else:
            name = "compare (estimate; the search selects the settings)"
        trials = trials_for(self._out, candidates, datasets, seeds)
        return [
            Stage(name="search", trials=self._trials, split="valid"),
            Stage(name=name, trials=trials, split=split),
        ]

    def run(self, options: StudyOptions) -> tuple[list[Candidate], dict[str, Any], list[Failure]]:
        """Run all trials.

        Returns the candidates at their best points, the results by label, and the failures.
        """
        failures = run_trials(self._trials, options)
        selected, results = list[Candidate](), dict[str, Any]()
        for label, trials in self._trials_by_label.items():
            best, points = best_trial(trials)
            results[label] = {
                "data": self._dataset.name,
                "points": points,
                "chosen": best and best.candidate.overrides,
            }
            for trial in trials:
                if trial is not best:
                    trial.delete_run()
            if best is None:
                failures.append({"trial": label, "error": "no point of the search finished"})
            else:
                selected.append(best.candidate)
        return selected, results, failures
