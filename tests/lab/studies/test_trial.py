"""A trial's name covers all that affects its result; its folder holds what it has finished."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hemix.errors import RunError, UsageError
from hemix.formats import FORMAT_KEY
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import open_datasets
from hemix.lab.studies.trial import TRIAL_FORMAT
from hemix.models import registry
from hemix.models.dlrm import DLRM
from hemix.models.registry import ModelEntry
from tests.lab.studies.in_process import MakeTrial, write_result
from tests.refusals import raises


def test_whatever_affects_the_result_is_part_of_the_name(make_trial: MakeTrial) -> None:
    trial = make_trial()
    shorter = dataclasses.replace(trial.candidate, history_events_max=3)
    others = [
        make_trial(1),
        make_trial(**{"train.dense_learning_rate": 0.5}),
        make_trial(**{"model.layers": 2}),
        dataclasses.replace(trial, candidate=shorter),
    ]
    assert len({each.name for each in (trial, *others)}) == 5
    assert trial.name.startswith("hemix-data-s0-")
    assert others[0].name.startswith("hemix-data-s1-")
    assert others[0].settings.train.seed == 1


def test_the_number_of_loader_workers_affects_no_result(make_trial: MakeTrial) -> None:
    assert make_trial(**{"train.loader_workers": 3}).name == make_trial().name


def test_another_dataset_of_the_same_name_has_another_trial(
    make_trial: MakeTrial, rich_data: Path
) -> None:
    trial = make_trial()
    other = open_datasets([rich_data], verify_test=False)[0][0]
    assert other.name == trial.dataset.name
    assert dataclasses.replace(trial, dataset=other).name != trial.name


def test_a_finished_trial_is_found_when_its_dataset_has_moved(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    trial = make_trial()
    write_result(trial)
    (tmp_path / "moved").symlink_to(trial.dataset.folder)
    renamed = dataclasses.replace(trial.dataset, folder=tmp_path / "moved")
    assert dataclasses.replace(trial, dataset=renamed).is_finished("valid")


def test_results_of_both_splits_and_the_run(make_trial: MakeTrial) -> None:
    trial = make_trial()
    assert not trial.is_trained
    write_result(trial, losses={"click": 0.25})
    assert (trial.is_finished("valid"), trial.is_finished("test")) == (True, False)
    assert trial.metrics("valid")["click"] == {"logloss": 0.25}
    TRIAL_FORMAT.write(trial.folder / "test.json", {"tasks": {"click": {"logloss": 0.5}}})
    assert trial.is_finished("test")
    assert trial.metrics("test")["click"] == {"logloss": 0.5}
    (trial.folder / "run").mkdir()
    trial.delete_run()
    trial.delete_run()
    assert not (trial.folder / "run").exists()
    assert trial.is_finished("test")


def test_a_result_of_another_version_is_refused(make_trial: MakeTrial) -> None:
    trial = make_trial()
    write_result(trial)
    path = trial.folder / "result.json"
    path.write_text(
        path.read_text().replace(f'"{FORMAT_KEY}": {TRIAL_FORMAT.version}', f'"{FORMAT_KEY}": 1')
    )
    with raises(RunError, path, code="wrong_format_version"):
        _ = trial.result


def test_a_model_of_no_file_cannot_reach_the_processes_of_a_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Candidate.from_overrides("hemix", {}).imports() == {}
    model = type("InNotebook", (DLRM,), {"__module__": "notebook"})
    entry = ModelEntry(name="dlrm", model=model, config=DLRM.Config)
    monkeypatch.setitem(registry._entries, "dlrm", entry)
    with raises(UsageError, "dlrm"):
        Candidate.from_overrides("x", {"model.name": "dlrm"}).imports()
