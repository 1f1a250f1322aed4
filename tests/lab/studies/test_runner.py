"""The runner of trials, whose processes are shell scripts here: how many run, and how they end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hemix.errors import RunError, UsageError
from hemix.formats import FORMAT_KEY
from hemix.lab.studies import runner
from hemix.lab.studies.options import StudyOptions
from hemix.lab.studies.runner import check_study_folder, run_trials, study_folder
from hemix.lab.studies.trial import Trial
from tests.lab.studies.in_process import MakeTrial
from tests.refusals import raises

FINISH = 'echo "{}" > "$FOLDER/result.json"'
Script = Callable[[str], None]
"""Replaces the program of a trial by shell commands, which find the trial's folder in $FOLDER"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr(runner, "_POLL_SECONDS", 0.005)

    def install(commands: str) -> None:
        path = tmp_path / "program"
        path.write_text(f'#!/bin/bash\nFOLDER="$3"  # after -m and the module\n{commands}\n')
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return install


@pytest.fixture
def trials(make_trial: MakeTrial) -> list[Trial]:
    return [make_trial(seed) for seed in range(4)]


def test_every_missing_trial_runs_once(script: Script, trials: list[Trial]) -> None:
    script(f'echo run >> "$FOLDER/../started"\n{FINISH}')
    trials[0].write_definition()
    (trials[0].folder / "result.json").write_text("{}")
    messages: list[tuple[str, int, int]] = []
    options = StudyOptions(jobs=2, on_trial=lambda *message: messages.append(message))
    assert run_trials([*trials, trials[1]], options) == []
    assert (trials[0].root / "trials" / "started").read_text() == "run\n" * 3
    assert all(trial.is_finished("valid") for trial in trials)
    assert [message[1:] for message in messages if "finished" in message[0]] == [
        (done, 4) for done in (2, 3, 4)
    ]


def test_no_more_than_the_given_number_run_at_a_time(script: Script, trials: list[Trial]) -> None:
    """A process adds a file, counts the files, and removes its own at the end."""
    script(
        'cd "$FOLDER/.."; touch "running-$$"; ls | grep -c running- >> counts; sleep 0.05\n'
        f'rm "running-$$"; cd - > /dev/null; {FINISH}'
    )
    run_trials(trials, StudyOptions(jobs=2))
    counts = [int(line) for line in (trials[0].root / "trials" / "counts").read_text().split()]
    assert len(counts) == 4
    assert max(counts) <= 2


@pytest.mark.parametrize(
    ("commands", "error"),
    [
        ("echo first; echo 'the  last line' >&2; exit 2", "the last line"),
        ("exit 3", "ended with exit code 3"),
        ("kill -KILL $$", "killed by SIGKILL (out of memory?)"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("echo no result", "no result"),
    ],
)
def test_a_failure_is_one_line_and_the_others_run(
    script: Script, trials: list[Trial], commands: str, error: str
) -> None:
    failing = trials[0].folder.name
    script(f'if [[ "$FOLDER" == *"{failing}" ]]; then {commands}; exit; fi\n{FINISH}')
    failures = run_trials(trials, StudyOptions(jobs=2))
    assert failures == [{"trial": failing, "error": error}]
    assert [trial.is_finished("valid") for trial in trials] == [False, True, True, True]


def test_an_interrupted_study_stops_its_processes(script: Script, trials: list[Trial]) -> None:
    """They get SIGTERM and save a checkpoint before they end."""
    script(
        'trap \'touch "$FOLDER/checkpoint"; exit 130\' TERM\ntouch "$FOLDER/ready"\n'
        "while true; do sleep 0.01; done"
    )

    def interrupt(message: str, *_: int) -> None:
        if message.startswith(trials[1].folder.name):
            while not all((trial.folder / "ready").exists() for trial in trials[:2]):
                time.sleep(0.005)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(trials, StudyOptions(jobs=2, on_trial=interrupt))
    stopped = [trial for trial in trials if (trial.folder / "checkpoint").exists()]
    assert stopped == trials[:2]


def test_a_process_that_ignores_the_signal_is_killed(
    script: Script, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_STOP_TIMEOUT_SECONDS", 0.05)
    script('trap "" TERM\ntouch "$FOLDER/ready"\nwhile true; do sleep 0.01; done')
    trial = trials[0]

    def interrupt(*_: object) -> None:
        while not (trial.folder / "ready").exists():
            time.sleep(0.005)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials([trial], StudyOptions(jobs=1, on_trial=interrupt))


def test_one_study_uses_a_folder_at_a_time(tmp_path: Path) -> None:
    root = tmp_path / "study"
    with study_folder(root):
        assert (root / "trials").is_dir()
        with raises(UsageError, root, field="--out"), study_folder(root):
            pass
    with study_folder(root):
        pass


def test_only_an_absent_an_empty_or_a_study_s_folder_is_used(tmp_path: Path) -> None:
    check_study_folder(tmp_path / "absent")
    check_study_folder(tmp_path)
    (tmp_path / "mine").write_text("")
    for foreign in (tmp_path, tmp_path / "mine"):
        with raises(UsageError, foreign, code="out_exists", field="--out"):
            check_study_folder(foreign)
    (tmp_path / "trials").mkdir()
    check_study_folder(tmp_path)


def test_a_study_of_an_older_hemix_is_refused_by_its_version(tmp_path: Path) -> None:
    definition = tmp_path / "cells" / "hemix-data-s0-0a1b" / "cell.json"
    definition.parent.mkdir(parents=True)
    definition.write_text(json.dumps({FORMAT_KEY: 2}))
    with raises(RunError, definition, code="wrong_format_version", field=str(definition)):
        check_study_folder(tmp_path)
