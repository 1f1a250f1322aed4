"""The timing of a candidate's steps, in this process and in one that fails."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hemix.lab.studies import cost
from tests.lab.studies.in_process import MakeTrial


def test_epochs_and_scoring_multiply_the_seconds_of_an_impression(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every timed step takes 1 s on this clock; scoring costs .4 of training on the same rows."""
    clock = SimpleNamespace(perf_counter=map(float, itertools.count()).__next__)
    monkeypatch.setattr(cost, "time", clock)
    trial = make_trial(**{"train.epochs": 3})
    split = trial.dataset.dataset.manifest["splits"]
    rows = {name: each["rows"] for name, each in split.items()}
    content = {
        "data": str(trial.dataset.folder),
        "history_events_max": None,
        "settings": trial.settings.model_dump(mode="json"),
    }
    assert trial.settings.train.batch_size == 512
    steps = -(-rows["train"] // 512)
    timed = rows["train"] * (steps - 2) / steps  # steps are equally large
    expected = (steps - 2) / timed * (3 + 0.4 * (rows["valid"] + rows["test"]) / rows["train"])
    assert cost._seconds_per_impression(content) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("commands", "seconds"),
    [
        ("echo a warning; echo 0.25", 0.25),
        ("echo 0.25; exit 2", None),
        ("echo no number", None),
        ("true", None),
    ],
)
def test_what_cannot_be_timed_is_unknown(
    make_trial: MakeTrial,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: str,
    seconds: float | None,
) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/bash\necho "$3" > {tmp_path}/content\n{commands}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    trial = make_trial(7)
    assert cost._measure_cost(trial, threads=1) == seconds
    content = json.loads((tmp_path / "content").read_text())
    assert content["settings"]["train"]["seed"] == 7
    assert Path(content["data"]) == trial.dataset.folder.absolute()
