"""``auto``: batch size and warm-up by the number of train rows, the same for every neural model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hemix import api
from hemix.config import TrainSettings
from hemix.data.dataset import Dataset
from hemix.errors import SettingsError, UsageError
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import open_datasets
from hemix.lab.studies.trial import Trial
from hemix.settings import build_settings
from hemix.training.callbacks import function_callback
from tests.planted import SMALL_MODEL
from tests.refusals import raises


@pytest.mark.parametrize(
    ("rows", "batch_size", "warmup_steps"),
    [
        (1, 32, 0),
        (10_000, 32, 31),  # 313 steps
        (63_999, 32, 50),
        (64_000, 64, 50),
        (127_999, 64, 50),
        (128_000, 128, 50),
        (255_999, 128, 50),
        (256_000, 256, 50),
        (10**9, 256, 50),
    ],
)
def test_the_rule(rows: int, batch_size: int, warmup_steps: int) -> None:
    train = TrainSettings().resolved(rows)
    assert (train.batch_size, train.warmup_steps) == (batch_size, warmup_steps)


def test_numbers_always_stand() -> None:
    own = TrainSettings(batch_size=1000, warmup_steps=0)
    assert own.automatic() == ()
    train = own.resolved(10)
    assert (train.batch_size, train.warmup_steps) == (1000, 0)
    assert TrainSettings(batch_size=10, epochs=3).resolved(100).warmup_steps == 3


def test_a_warm_start_has_the_batches_of_the_first_run() -> None:
    parent = TrainSettings(batch_size=256)
    assert TrainSettings().resolved(10_000, parent).batch_size == 256
    assert TrainSettings().resolved(10_000, parent).warmup_steps == 4
    assert TrainSettings(batch_size=64).resolved(10_000, parent).batch_size == 64


@pytest.mark.parametrize("value", ["0", "1.5", "some", "[1]"])
def test_other_values_are_refused_by_the_setting(value: str) -> None:
    with raises(SettingsError, field="train.batch_size"):
        build_settings(overrides=[f"train.batch_size={value}"])


@pytest.mark.parametrize("model", ["hemix", "dlrm"])
def test_a_run_prints_and_saves_the_numbers(planted_data: Path, tmp_path: Path, model: str) -> None:
    headers = []
    settings = {"train.threads": 1, **(SMALL_MODEL if model == "hemix" else {})}
    run = api.train(
        planted_data,
        tmp_path / "run",
        model=model,
        settings=settings,
        callback=function_callback(on_start=headers.append),
    )
    rows = Dataset(planted_data).manifest["splits"]["train"]["rows"]
    assert rows == 1440
    assert headers[0]["automatic"] == {"batch_size": 32, "warmup_steps": 4}
    saved = yaml.safe_load((run / "settings.yaml").read_text())["train"]
    assert (saved["batch_size"], saved["warmup_steps"]) == (32, 4)
    assert json.loads((run / "metrics.json").read_text())["steps"] == 45


def test_a_resumed_run_takes_auto_for_the_numbers_that_it_saved(
    planted_data: Path, tmp_path: Path
) -> None:
    def end(step: int, _total: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    settings = build_settings(overrides={**SMALL_MODEL, "train.threads": 1})
    with pytest.raises(KeyboardInterrupt):
        api.train(
            planted_data,
            tmp_path / "run",
            settings=settings,
            callback=function_callback(on_step=end),
        )
    with raises(UsageError, field="--resume"):
        api.train(planted_data, tmp_path / "run", resume=True, settings={"train.batch_size": 64})
    headers = []
    api.train(
        planted_data,
        tmp_path / "run",
        resume=True,
        settings=settings,
        callback=function_callback(on_start=headers.append),
    )
    assert headers[0]["steps"] == 45


def test_a_trial_of_a_study_has_numbers(planted_data: Path, tmp_path: Path) -> None:
    (dataset,), _ = open_datasets([planted_data], verify_test=False)
    candidate = Candidate.from_overrides("model", {"model.name": "rankmixer"})
    trial = Trial(root=tmp_path, candidate=candidate, dataset=dataset, seed=0)
    assert (trial.settings.train.batch_size, trial.settings.train.warmup_steps) == (32, 4)
    assert trial.settings.train.automatic() == ()
