"""Cost estimate of a study, from finished trials or from a few timed training steps.

``python -m hemix.lab.studies.cost JSON`` is the process that times the steps. Models that do not
train in steps are estimated only from finished trials.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.data.dataset import Dataset
from hemix.data.sampler import RequestSampler
from hemix.errors import HemixError, RunError
from hemix.lab.studies.options import StagePlan, StudyOptions, StudyPlan
from hemix.lab.studies.trial import (
    DEFINITION_FILE,
    TRIAL_FORMAT,
    TRIALS_FOLDER,
    EvaluatedSplit,
    Trial,
)
from hemix.models import build_model, import_files
from hemix.settings import parse_settings
from hemix.training.optimizers import Optimizers

__all__ = ["Stage", "finished_costs", "plan_study"]

_WARM_UP_STEPS, _TIMED_STEPS = 2, 6
_START_SECONDS = 8.0
"""Time to start a process and to open a dataset"""
_SCORING_COST_RATIO = 0.4
"""Cost of scoring an impression, relative to training on it"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Trials of a study that run together, and the split that they score."""

    name: str
    trials: Sequence[Trial]
    split: EvaluatedSplit


def plan_study(stages: Sequence[Stage], options: StudyOptions) -> StudyPlan:
    """Count the trials of every stage and estimate the cost of the missing ones.

    Candidates without a finished trial are timed, which takes some seconds each.

    Args:
        stages: The stages of a study.
        options: Trials at a time, and threads of each.
    """
    costs = finished_costs(stages[0].trials[0].root)
    return StudyPlan(
        stages=tuple(_plan_stage(stage, costs, options.threads) for stage in stages),
        jobs=options.jobs,
        threads=options.threads,
    )


def _plan_stage(stage: Stage, costs: dict[str, float | None], threads: int) -> StagePlan:
    """Estimate one stage; adds measured costs to ``costs``."""
    distinct = list({trial.folder: trial for trial in stage.trials}.values())
    missing = [trial for trial in distinct if not trial.is_finished(stage.split)]
    seconds, unknown = 0.0, set[str]()
    for trial in missing:
        if trial.is_trained:
            seconds += _START_SECONDS
            continue
        key = trial.cost_key
        if key not in costs:
            costs[key] = _measure_cost(trial, threads)
        cost = costs[key]
        if cost is None:
            unknown.add(trial.candidate.label)
        else:
            seconds += _START_SECONDS + cost * trial.dataset.train_rows
    return StagePlan(
        stage=stage.name,
        trials=len(distinct),
        finished=len(distinct) - len(missing),
        seconds=round(seconds),
        unknown=tuple(sorted(unknown)),
    )


def finished_costs(root: Path) -> dict[str, float | None]:
    """Read seconds per training impression from a study's finished trials, by cost key."""
    costs: dict[str, list[float]] = {}
    for file in (root / TRIALS_FOLDER).glob("*/result.json"):
        try:
            key = TRIAL_FORMAT.read(file.with_name(DEFINITION_FILE))["cost_key"]
            result = TRIAL_FORMAT.read(file)
            seconds = result["seconds"] / max(result["train_rows"], 1)
        except (RunError, KeyError):
            continue  # trials of an older format have no cost
        costs.setdefault(key, []).append(seconds)
    return {key: statistics.median(values) for key, values in costs.items()}


def _measure_cost(trial: Trial, threads: int) -> float | None:
    """Time steps of a trial in a process; None where that fails."""
    content = {
        "data": str(trial.dataset.folder.absolute()),
        "history_events_max": trial.candidate.history_events_max,
        "settings": trial.settings.model_dump(mode="json"),
        **trial.candidate.imports(),
    }
    process = subprocess.run(
        [sys.executable, "-m", "hemix.lab.studies.cost", json.dumps(content)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    try:
        return float(process.stdout.split()[-1]) if process.returncode == 0 else None
    except (IndexError, ValueError):
        return None


def _seconds_per_impression(content: dict[str, Any]) -> float:
    """Time training steps; returns seconds per training impression, scoring of valid and test
    included.
    """
    import_files(content.get("imports", ()))
    data = Dataset(content["data"], history_events_max=content["history_events_max"])
    split = data.split("train")
    settings = parse_settings(content["settings"]).resolved(split.impressions)
    sampler = RequestSampler(split, batch_size=settings.train.batch_size)
    model = build_model(data.spec, settings.model, seed=0).train()
    optimizers = Optimizers(model, settings.train, total_steps=1000)
    steps = min(_WARM_UP_STEPS + _TIMED_STEPS, sampler.steps)
    seconds, impressions = 0.0, 0
    for number in range(steps):
        start = time.perf_counter()
        batch = split.batch(sampler.requests(0, number, 0))
        model.training_loss(batch).backward()  # type: ignore[no-untyped-call]
        optimizers.step(number)
        if number >= min(_WARM_UP_STEPS, steps - 1):
            seconds += time.perf_counter() - start
            impressions += batch.candidates_count
    scored = sum(data.manifest["splits"][name]["rows"] for name in ("valid", "test"))
    scoring = _SCORING_COST_RATIO * scored / max(split.impressions, 1)
    return seconds / impressions * float(settings.train.epochs + scoring)


if __name__ == "__main__":
    try:
        print(_seconds_per_impression(json.loads(sys.argv[1])))
    except (HemixError, NotImplementedError, RuntimeError) as problem:
        print(problem, file=sys.stderr)
        sys.exit(2)
