"""The search file: the same number of points for every model, every setting known."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.errors import SettingsError
from hemix.lab.studies.cells import Contender
from hemix.lab.studies.search import default_points, points_for, read_points


def test_every_model_has_as_many_default_points() -> None:
    points = default_points({"train.dense_learning_rate": 0.01})
    assert len({len(of) for of in points.values()}) == 1
    assert points["all"][0]["train.dense_learning_rate"] == 0.01
    assert {point["train.dense_learning_rate"] for point in points["all"]} == {0.005, 0.01}
    assert {point["train.dense_optimizer"] for point in points["all"]} == {"adamw", "muon"}


def test_a_models_own_points_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "points.yaml"
    path.write_text(
        "all: [{train.epochs: 1}, {train.epochs: 2}]\nlightgbm: [{boosting.leaves: 7}, "
        "{boosting.learning_rate: 1e-1}]\n"
    )
    points = read_points(path)
    assert [c.settings.train.epochs for c in points_for(Contender.of("hemix", {}), points)] == [
        1,
        2,
    ]
    trees = points_for(Contender.of("t", {"model.name": "lightgbm"}), points)
    assert trees[0].settings.boosting.leaves == 7
    assert trees[1].changes == {"model.name": "lightgbm", "boosting.learning_rate": 0.1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "all: [{train.epochs: 1}]\nhemix: [{train.epochs: 1}, {train.epochs: 2}]",
            "hemix: expected 1 points like 'all', got 2",
        ),
        ("hemix: [{train.epochs: 1}]", "expected a list of points under 'all'"),
        ("all: {train.epochs: 1}", "all: expected a list of points, each a mapping of settings"),
        ("all: [{train.epcohs: 1}]", "train.epcohs: unknown key"),
        ("all: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "points.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        read_points(path)
