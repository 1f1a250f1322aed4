"""``hemix train --search quick`` keeps the run with the lowest valid loss of three."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hemix import api
from hemix.config import TrainSettings
from hemix.errors import RunError, UsageError
from hemix.runs.folder import Run
from hemix.training import quick_search
from hemix.training.quick_search import quick_points
from tests.planted import SMALL_MODEL
from tests.refusals import raises

FAST = {**SMALL_MODEL, "train.threads": 1, "train.batch_size": 256}


def test_the_points_change_one_setting_each() -> None:
    points = quick_points(TrainSettings(epochs=2, dense_learning_rate=0.004))
    assert points == [{}, {"dense_learning_rate": 0.01}, {"epochs": 3}]


def test_the_best_of_three_runs_is_kept(planted_data: Path, tmp_path: Path) -> None:
    out = api.quick_search(planted_data, tmp_path / "run", settings=FAST)
    search = json.loads((out / "search.json").read_text())
    losses = [point["valid_loss"] for point in search["points"]]
    assert len(losses) == 3 and len(set(losses)) == 3
    assert search["chosen"] == losses.index(min(losses))
    chosen = search["points"][search["chosen"]]["settings"]
    saved = yaml.safe_load((out / "settings.yaml").read_text())["train"]
    assert chosen.items() <= {f"train.{name}": value for name, value in saved.items()}.items()
    assert Run.load(out).metrics["steps"] == saved["epochs"] * 6
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_nothing_is_left_of_a_search_that_fails(
    planted_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunError("the loss is nan", code="diverged")

    monkeypatch.setattr(quick_search, "train", fail)
    with raises(RunError, code="diverged"):
        api.quick_search(planted_data, tmp_path / "run", settings=FAST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("problem", ["rows", "model"])
def test_what_cannot_be_searched_is_refused(
    planted_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    if problem == "rows":
        monkeypatch.setattr(quick_search, "MOST_ROWS", 1000)
    with raises(UsageError, field="--search"):
        api.quick_search(
            planted_data,
            tmp_path / "run",
            model="lightgbm" if problem == "model" else None,
            settings={"train.threads": 1},
        )


def test_the_folder_must_be_new(planted_data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with raises(UsageError, code="out_exists", field="--out"):
        api.quick_search(planted_data, tmp_path / "run", settings=FAST)
