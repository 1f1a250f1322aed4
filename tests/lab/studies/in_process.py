"""Small studies whose trials run in the test's own process, or have written results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hemix.lab.studies import cost, run_trial, runner
from hemix.lab.studies.trial import TRIAL_FORMAT, Trial

FAST = {
    "train.batch_size": 512,
    "train.warmup_steps": 1,
    "model.layers": 1,
    "model.token_width": 8,
    "model.tokenizer_hidden": 16,
}
HEMIX = {"model.name": "hemix", **FAST}
TWO_MODELS = {"one": HEMIX, "two": {**HEMIX, "model.token_width": 16}}
SECONDS_PER_IMPRESSION = 0.001

MakeTrial = Callable[..., Trial]
"""Makes a trial: ``make_trial(seed, **overrides)``"""


class InProcessTrial:
    """Replaces the process of a trial, and runs the trial at once."""

    started: list[str]

    def __init__(self, trial: Trial, split: str, _threads: int) -> None:
        trial.write_definition()
        type(self).started.append(trial.folder.name)
        with (trial.folder / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
            flags = ["--evaluate-test"] if split == "test" else []
            self.returncode = run_trial.main([str(trial.folder), *flags])

    def poll(self) -> int:
        return self.returncode

    def send_signal(self, _number: int) -> None: ...

    def wait(self, _seconds: float | None = None) -> int:
        return self.returncode


@contextmanager
def trials_in_process() -> Iterator[list[str]]:
    """Run trials in this process and estimate costs without timing; yields the started trials."""
    InProcessTrial.started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_start", InProcessTrial)
        patch.setattr(runner, "_POLL_SECONDS", 0.0)
        patch.setattr(cost, "_measure_cost", lambda *_: SECONDS_PER_IMPRESSION)
        yield InProcessTrial.started


def file_stamps(folder: Path) -> dict[str, Any]:
    """Return modification time and size of every file of a folder."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in folder.rglob("*")
        if p.is_file()
    }


def write_result(
    trial: Trial, *, seconds: float = 1.0, losses: dict[str, float] | None = None
) -> None:
    """Write a result as the trial's process does, with the fields that a test needs."""
    trial.write_definition()
    tasks = {
        task: {"logloss": losses[task]} if losses and task in losses else {}
        for task in trial.dataset.dataset.schema.outputs
    }
    result = {"tasks": tasks, "seconds": seconds, "train_rows": trial.dataset.train_rows}
    TRIAL_FORMAT.write(trial.folder / "result.json", result)
