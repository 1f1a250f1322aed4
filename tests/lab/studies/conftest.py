"""Fixtures of the tests of studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import open_datasets
from hemix.lab.studies.trial import Trial
from tests.lab.studies.in_process import HEMIX, MakeTrial


@pytest.fixture
def make_trial(planted_data: Path, tmp_path: Path) -> MakeTrial:
    """A function that makes a trial of a study in ``tmp_path``, by seed and overrides."""
    datasets, _ = open_datasets([planted_data], verify_test=False)

    def make(seed: int = 0, **overrides: object) -> Trial:
        candidate = Candidate.from_overrides("model", {**HEMIX, **overrides})
        return Trial(root=tmp_path, candidate=candidate, dataset=datasets[0], seed=seed)

    return make
