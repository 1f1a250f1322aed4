"""Steps that all studies share: the trials, their execution, and the facts of the JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hemix.errors import RunError
from hemix.files import storage_errors
from hemix.formats import FORMAT_KEY, SavedFormat
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import StudyDataset
from hemix.lab.studies.options import StudyOptions
from hemix.lab.studies.runner import Failure, run_trials
from hemix.lab.studies.trial import EvaluatedSplit, Trial
from hemix.measure import machine

__all__ = [
    "DATASET_SEED_STEP",
    "STUDY_FORMAT",
    "TrialsByLabel",
    "complete_candidates",
    "read_test_set_accesses",
    "run_candidates",
    "study_facts",
    "trial_seeds",
    "trials_for",
]

STUDY_FORMAT = SavedFormat(version=2, error=RunError, remedy="name a new folder with --out")
"""Of compare.json, ablate.json, scale.json and test_accesses.jsonl"""

DATASET_SEED_STEP = 1000
"""Distance of the seeds of consecutive datasets, so that all trials of a study are independent."""

TrialsByLabel = dict[str, list[list[Trial]]]
"""Finished trials by candidate label: [datasets][seeds]"""

_ACCESS_LOG = "test_accesses.jsonl"


def trial_seeds(dataset_index: int, seeds: int) -> list[int]:
    """Return the training seeds on one dataset.

    Args:
        dataset_index: Position of the dataset in the study.
        seeds: Number of seeds.
    """
    return [seed + DATASET_SEED_STEP * dataset_index for seed in range(seeds)]


def trials_for(
    out: Path, candidates: Sequence[Candidate], datasets: Sequence[StudyDataset], seeds: int
) -> list[Trial]:
    """Make a trial for every candidate, dataset and seed.

    Args:
        out: The study's folder.
        candidates: The candidates.
        datasets: The datasets.
        seeds: Number of seeds on each dataset.
    """
    return [
        Trial(root=out, candidate=candidate, dataset=dataset, seed=seed)
        for candidate in candidates
        for index, dataset in enumerate(datasets)
        for seed in trial_seeds(index, seeds)
    ]


def run_candidates(
    out: Path,
    trials: Sequence[Trial],
    candidates: Sequence[Candidate],
    datasets: Sequence[StudyDataset],
    split: EvaluatedSplit,
    options: StudyOptions,
) -> tuple[TrialsByLabel, list[Failure]]:
    """Run the trials and collect the finished ones by candidate.

    Args:
        out: The study's folder.
        trials: The trials of all candidates.
        candidates: The candidates.
        datasets: The datasets.
        split: The split to score. An access to test is logged in the study's folder.
        options: How the trials run.

    Returns:
        The finished trials by label, and the failures.

    Raises:
        RunError: No candidate is complete.
    """
    if split == "test":
        _log_test_access(out, trials, datasets)
    failures = run_trials(trials, options, split=split)
    runs, incomplete = complete_candidates(trials, candidates, datasets, split)
    if split == "test":
        for trial in trials:
            if trial.is_finished("test"):
                trial.delete_run()
    return runs, failures + incomplete


def complete_candidates(
    trials: Sequence[Trial],
    candidates: Sequence[Candidate],
    datasets: Sequence[StudyDataset],
    split: EvaluatedSplit,
) -> tuple[TrialsByLabel, list[Failure]]:
    """Group the finished trials by candidate.

    Args:
        trials: The trials of all candidates.
        candidates: The candidates.
        datasets: The datasets.
        split: The split whose results a finished trial has.

    Returns:
        The finished trials by label, and a failure for every candidate that has no finished trial
        on some dataset.

    Raises:
        RunError: No candidate is complete.
    """
    runs, failures = TrialsByLabel(), list[Failure]()
    for candidate in candidates:
        finished = [
            [
                trial
                for trial in trials
                if trial.candidate.label == candidate.label
                and trial.dataset is dataset
                and trial.is_finished(split)
            ]
            for dataset in datasets
        ]
        if all(finished):
            runs[candidate.label] = finished
        else:
            failures.append(
                {"trial": candidate.label, "error": "left out: no trial finished on some dataset"}
            )
    if not runs:
        raise RunError(
            "no trial finished",
            code="no_finished_trial",
            hint="see log.txt in each folder of trials/ in the study's folder",
        )
    return runs, failures


def _log_test_access(out: Path, trials: Sequence[Trial], datasets: Sequence[StudyDataset]) -> None:
    access = {
        FORMAT_KEY: STUDY_FORMAT.version,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "hemix": version("hemix"),
        "datasets": [dataset.summary() for dataset in datasets],
        "models": list(dict.fromkeys(trial.candidate.label for trial in trials)),
        "trials": len(trials),
        "not_scored_before": [
            trial.folder.name for trial in trials if not trial.is_finished("test")
        ],
    }
    path = out / _ACCESS_LOG
    with storage_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(access) + "\n")


def read_test_set_accesses(out: Path) -> list[dict[str, Any]]:
    """Read the log of accesses to the test split in a study's folder.

    Raises RunError for an entry of another version.
    """
    path = out / _ACCESS_LOG
    if not path.exists():
        return []
    accesses = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for access in accesses:
        STUDY_FORMAT.check(path, access.get(FORMAT_KEY))
    return accesses


def study_facts(
    out: Path,
    datasets: Sequence[StudyDataset],
    seeds: int,
    search_dataset: StudyDataset | None = None,
) -> dict[str, Any]:
    """Describe data, seeds, versions, machine and accesses to test for a study's JSON file.

    Args:
        out: The study's folder.
        datasets: The datasets.
        seeds: Number of seeds on each dataset.
        search_dataset: The dataset of the search, if it is another one.
    """
    return {
        "datasets": [dataset.summary() for dataset in datasets],
        **({"search_data": search_dataset.summary()} if search_dataset is not None else {}),
        "seeds": [trial_seeds(index, seeds) for index in range(len(datasets))],
        "test_accesses": read_test_set_accesses(out),
        "versions": {"hemix": version("hemix"), "torch": torch.__version__},
        "machine": machine(),
    }
