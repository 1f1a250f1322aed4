"""The trials of a study, which candidates are complete, and the log of accesses to test."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hemix.errors import RunError, UsageError
from hemix.formats import FORMAT_KEY
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import StudyDataset, open_datasets
from hemix.lab.studies.options import StagePlan, StudyConfig, StudyOptions, StudyPlan
from hemix.lab.studies.study import (
    STUDY_FORMAT,
    complete_candidates,
    read_test_set_accesses,
    study_facts,
    trial_seeds,
    trials_for,
)
from tests.lab.studies.in_process import HEMIX, write_result
from tests.refusals import raises


@pytest.fixture
def datasets(planted_data: Path, rich_data: Path) -> list[StudyDataset]:
    """Two datasets; no test here compares their schemas."""
    return [open_datasets([data], verify_test=False)[0][0] for data in (planted_data, rich_data)]


def candidates(*widths: int) -> list[Candidate]:
    return [
        Candidate.from_overrides(f"width_{width}", {**HEMIX, "model.token_width": width})
        for width in widths
    ]


def test_seeds_of_datasets_are_apart() -> None:
    assert trial_seeds(0, 3) == [0, 1, 2]
    assert trial_seeds(2, 2) == [2000, 2001]


def test_a_trial_for_every_candidate_dataset_and_seed(
    datasets: list[StudyDataset], tmp_path: Path
) -> None:
    trials = trials_for(tmp_path, candidates(8, 16), datasets, 2)
    assert len({trial.folder for trial in trials}) == 8
    assert [(trial.candidate.label, trial.seed) for trial in trials] == [
        (label, seed) for label in ("width_8", "width_16") for seed in (0, 1, 1000, 1001)
    ]
    assert [trial.dataset for trial in trials[:4]] == [
        datasets[0],
        datasets[0],
        datasets[1],
        datasets[1],
    ]


def test_a_candidate_needs_a_finished_trial_on_every_dataset(
    datasets: list[StudyDataset], tmp_path: Path
) -> None:
    both = candidates(8, 16)
    trials = trials_for(tmp_path, both, datasets, 2)
    for index in (0, 1, 3, 4, 5):  # of the second candidate none on the second dataset
        write_result(trials[index])
    runs, failures = complete_candidates(trials, both, datasets, "valid")
    assert runs == {"width_8": [trials[:2], trials[3:4]]}
    assert [failure["trial"] for failure in failures] == ["width_16"]
    with raises(RunError, code="no_finished_trial"):
        complete_candidates(trials, both, datasets, "test")


def test_accesses_of_another_version_are_refused(tmp_path: Path) -> None:
    assert read_test_set_accesses(tmp_path) == []
    log = tmp_path / "test_accesses.jsonl"
    access = {FORMAT_KEY: STUDY_FORMAT.version, "models": ["a"]}
    log.write_text(json.dumps(access) + "\n" + json.dumps(access) + "\n")
    assert read_test_set_accesses(tmp_path) == [access, access]
    with log.open("a") as file:
        file.write(json.dumps({**access, FORMAT_KEY: STUDY_FORMAT.version + 1}) + "\n")
    with raises(RunError, log, code="wrong_format_version"):
        read_test_set_accesses(tmp_path)


def test_facts_name_data_seeds_and_the_search(datasets: list[StudyDataset], tmp_path: Path) -> None:
    facts = study_facts(tmp_path, datasets, 2, datasets[1])
    assert facts["seeds"] == [[0, 1], [1000, 1001]]
    planted, rich = facts["datasets"]
    assert facts["search_data"] == rich
    manifest = datasets[0].dataset.manifest
    assert planted["fingerprint"] == manifest["fingerprint"]
    assert planted["rows"] == {name: split["rows"] for name, split in manifest["splits"].items()}
    assert planted["split"] == {"valid": "2026-01-08", "test": "2026-01-09"}
    assert planted["digest"] != rich["digest"]
    assert "search_data" not in study_facts(tmp_path, datasets, 2)


def test_jobs_are_cores_divided_by_threads() -> None:
    cores = len(os.sched_getaffinity(0))
    assert StudyOptions().jobs == cores
    assert StudyOptions(threads=2 * cores).jobs == 1
    assert StudyOptions(threads=2, jobs=5).jobs == 5
    for jobs, threads in ((0, 1), (1, 0)):
        with raises(UsageError, field="--jobs"):
            StudyOptions(jobs=jobs, threads=threads)


def test_hours_are_seconds_over_the_jobs() -> None:
    stages = tuple(
        StagePlan(stage=str(seconds), trials=1, finished=0, seconds=seconds, unknown=())
        for seconds in (3600, 5400)
    )
    plan = StudyPlan(stages=stages, jobs=2, threads=1)
    assert (plan.seconds, plan.hours) == (9000, 1.25)


def test_settings_of_all_trials_may_be_texts_or_a_mapping() -> None:
    expected = {"train.epochs": 2, "model.dropout": 0.1}
    assert StudyConfig(settings=expected).overrides() == expected
    texts = ["train.epochs=2", "model.dropout=0.1"]
    assert StudyConfig(settings=texts).overrides() == expected
