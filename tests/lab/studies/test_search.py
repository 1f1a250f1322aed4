"""The search: its file, its points, and the selection by valid loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.errors import RunError, SettingsError
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.search import (
    best_trial,
    candidates_at_points,
    default_points,
    read_points,
)
from tests.lab.studies.in_process import MakeTrial, write_result
from tests.refusals import raises


def test_every_model_has_equally_many_default_points() -> None:
    points = default_points({"train.dense_learning_rate": 0.01})
    assert len({len(of) for of in points.values()}) == 1
    assert points["all"][0]["train.dense_learning_rate"] == 0.01
    assert {point["train.dense_learning_rate"] for point in points["all"]} == {0.005, 0.01}
    assert {point["train.dense_optimizer"] for point in points["all"]} == {"adamw", "muon"}


def test_points_under_a_model_replace_those_of_all(tmp_path: Path) -> None:
    path = tmp_path / "points.yaml"
    path.write_text(
        "all: [{train.epochs: 1}, {train.epochs: 2}]\nlightgbm: [{boosting.leaves: 7}, "
        "{boosting.learning_rate: 1e-1}]\n"
    )
    points = read_points(path)
    networks = candidates_at_points(Candidate.from_overrides("hemix", {}), points)
    assert [network.settings.train.epochs for network in networks] == [1, 2]
    lightgbm = Candidate.from_overrides("trees", {"model.name": "lightgbm"})
    trees = candidates_at_points(lightgbm, points)
    assert trees[0].settings.boosting.leaves == 7
    assert trees[1].overrides == {"model.name": "lightgbm", "boosting.learning_rate": 0.1}


@pytest.mark.parametrize(
    ("text", "code", "field", "values"),
    [
        (
            "all: [{train.epochs: 1}]\nhemix: [{train.epochs: 1}, {train.epochs: 2}]",
            "unequal_search",
            "hemix",
            [1, 2],
        ),
        ("hemix: [{train.epochs: 1}]", "missing_key", "all", []),
        ("all: {train.epochs: 1}", None, "all", []),
        ("all: [{train.epcohs: 1}]", "unknown_setting", "train.epcohs", []),
    ],
)
def test_invalid_file_is_rejected(
    tmp_path: Path, text: str, code: str | None, field: str, values: list[object]
) -> None:
    path = tmp_path / "points.yaml"
    path.write_text(text)
    with raises(SettingsError, *values, code=code, field=field):
        read_points(path)


def test_file_that_is_not_yaml_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "points.yaml"
    path.write_text("all: [")
    with raises(SettingsError, code="not_yaml", field=path):
        read_points(path)


def test_best_trial_has_the_lowest_mean_valid_loss(make_trial: MakeTrial) -> None:
    rates = (0.1, 0.2, 0.3, 0.4)
    trials = [make_trial(**{"train.dense_learning_rate": rate}) for rate in rates]
    losses = [(0.5, 0.1), (0.2, 0.2), (0.1, 0.3)]  # the last trial is not finished
    for trial, (click, order) in zip(trials[:3], losses, strict=True):
        write_result(trial, losses={"click": click, "order": order})
    best, results = best_trial(trials)
    assert best is trials[1], "the first of two equal ones"
    assert [point["valid_logloss"] for point in results] == [
        pytest.approx(0.3),
        pytest.approx(0.2),
        pytest.approx(0.2),
        None,
    ]
    selected = [point["settings"]["train.dense_learning_rate"] for point in results]
    assert selected == list(rates)


def test_unfinished_search_has_no_best_trial(make_trial: MakeTrial) -> None:
    best, results = best_trial([make_trial()])
    assert best is None
    assert [point["valid_logloss"] for point in results] == [None]


def test_undefined_loss_of_a_task_is_an_error(make_trial: MakeTrial) -> None:
    trial = make_trial()
    write_result(trial, losses={"click": 0.5})
    with raises(RunError, code="undefined_metric", field=trial.folder):
        best_trial([trial])
