"""The process of a trial: a crashed or killed one resumes and gives the same result."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hemix
from hemix.lab.studies import runner
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import open_datasets
from hemix.lab.studies.run_trial import code_digest, main, run_trial
from hemix.lab.studies.trial import Trial
from hemix.training.optimizers import Optimizers
from tests.lab.studies.in_process import HEMIX

OVERRIDES = {**HEMIX, "train.batch_size": 128, "train.checkpoint_every_steps": 2}
DETERMINISTIC = ("tasks", "dense_parameters", "embedding_parameters", "steps", "train_rows")


class Crash(BaseException):
    """An error that no handler of the program expects."""


def trial_in(root: Path, data: Path) -> Trial:
    datasets, _ = open_datasets([data], verify_test=False)
    candidate = Candidate.from_overrides("hemix", OVERRIDES)
    return Trial(root=root, candidate=candidate, dataset=datasets[0], seed=0)


@pytest.fixture(scope="module")
def undisturbed(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A trial that ran without interruption."""
    trial = trial_in(tmp_path_factory.mktemp("undisturbed"), planted_data)
    trial.write_definition()
    run_trial(trial.folder)
    return trial


def assert_same_result(trial: Trial, expected: Trial) -> None:
    assert trial.folder.name == expected.folder.name
    scores, expected_scores = (np.load(t.folder / "valid.npy") for t in (trial, expected))
    np.testing.assert_array_equal(scores, expected_scores)
    for key in DETERMINISTIC:
        assert trial.result[key] == expected.result[key], key


def test_crashed_trial_resumes_from_its_checkpoint(
    planted_data: Path, tmp_path: Path, undisturbed: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = trial_in(tmp_path, planted_data)
    trial.write_definition()
    steps: list[int] = []
    step = Optimizers.step

    def crash_after(limit: int | None) -> None:
        def counted(self: Optimizers, number: int, *more: Any, **named: Any) -> Any:
            steps.append(number)
            if limit is not None and len(steps) > limit:
                raise Crash
            return step(self, number, *more, **named)

        monkeypatch.setattr(Optimizers, "step", counted)

    crash_after(5)
    with pytest.raises(Crash):
        run_trial(trial.folder)
    assert not trial.is_finished("valid")
    total = undisturbed.result["steps"]
    steps.clear()
    crash_after(None)
    run_trial(trial.folder)
    assert 0 < len(steps) < total, "it continued from a checkpoint"
    assert_same_result(trial, undisturbed)


def test_finished_trial_is_not_run_again(
    undisturbed: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (undisturbed.folder / "result.json").read_bytes()
    monkeypatch.setattr("hemix.lab.studies.run_trial.train", None)
    run_trial(undisturbed.folder)
    assert (undisturbed.folder / "result.json").read_bytes() == before


def test_error_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "trial.json" in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source."""
    copy = tmp_path_factory.mktemp("source") / "hemix"
    ignore = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(Path(hemix.__file__).parent, copy, ignore=ignore)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("features/match_counts.py", True),
        ("schema/history.py", True),
        ("data/encode.py", True),
        ("models/hemix.py", True),
        ("training/trainer.py", True),
        ("moments.py", True),
        ("lab/studies/report.py", False),
        ("cli/app.py", False),
    ],
)
def test_digest_covers_the_code_that_decides_a_result(
    package: Path, file: str, counts: bool
) -> None:
    before, source = code_digest(package), (package / file).read_bytes()
    assert before == code_digest()
    (package / file).write_bytes(source + b"# changed\n")
    assert (code_digest(package) != before) is counts
    (package / file).write_bytes(source)


def test_digest_depends_on_the_file_that_a_line_is_in(package: Path) -> None:
    before = code_digest(package)
    (package / "nn" / "init.py").rename(package / "nn" / "init2.py")
    assert code_digest(package) != before
    (package / "nn" / "init2.py").rename(package / "nn" / "init.py")


@pytest.mark.slow
def test_killed_process_resumes_from_its_checkpoint(
    planted_data: Path, tmp_path: Path, undisturbed: Trial
) -> None:
    trial = trial_in(tmp_path, planted_data)
    process: subprocess.Popen[bytes] = runner._start(trial, "valid", threads=1)
    deadline = time.monotonic() + 120
    checkpoints = trial.folder / "run" / "checkpoints"
    while not list(checkpoints.glob("step-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process.poll() is None, "the process is killed during training"
    process.kill()
    process.wait()
    assert not trial.is_finished("valid")
    assert runner._start(trial, "valid", threads=1).wait(120) == 0
    assert_same_result(trial, undisturbed)
