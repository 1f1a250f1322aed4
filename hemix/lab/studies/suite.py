"""``hemix suite``: models on several logs of different kinds, in one table.

Every log is a comparison of its own. The reference model is compared with every other one on every
log, and the p-values are adjusted for all logs and models together (Holm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.errors import RunError, UsageError
from hemix.evaluation.differences import holm
from hemix.evaluation.wording import BASELINE_NAMES
from hemix.files import write_json
from hemix.formats import FORMAT_KEY
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.compare import make_candidates
from hemix.lab.studies.cost import Stage, plan_study
from hemix.lab.studies.datasets import StudyDataset, open_datasets
from hemix.lab.studies.options import StudyConfig, StudyOptions
from hemix.lab.studies.runner import Failure, check_study_folder, study_folder
from hemix.lab.studies.study import (
    STUDY_FORMAT,
    TrialsByLabel,
    run_candidates,
    study_facts,
    trials_for,
)
from hemix.lab.studies.suite_report import write_suite_report
from hemix.lab.studies.summary import paired_differences, summarise
from hemix.lab.studies.trial import EvaluatedSplit

__all__ = ["SUITE_METRICS", "SuiteConfig", "suite"]

SUITE_METRICS = ("auc", "logloss")


@dataclass(frozen=True, kw_only=True)
class SuiteConfig(StudyConfig):
    """The models of a suite. Each has its default settings, but for ``settings``."""

    models: Sequence[str] | None = None
    """Names; None: all models"""
    reference: str = "hemix"
    """The model that every other one is compared with"""


def suite(
    data: Sequence[str | Path],
    out: Path,
    config: SuiteConfig | None = None,
    options: StudyOptions | None = None,
) -> dict[str, Any]:
    """Compare models on several logs; writes suite.json and report.html.

    Args:
        data: Dataset folders, of any schemas. Their names are those of the logs.
        out: The study's folder; a second call continues it.
        config: The models and their training.
        options: How the trials run.

    Returns:
        The content of suite.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: If no trial finished.
    """
    config, options = config or SuiteConfig(), options or StudyOptions()
    candidates = _make_candidates(config)
    check_study_folder(out)
    datasets = _open_logs(data, verify_test=config.evaluate_test)
    split: EvaluatedSplit = "test" if config.evaluate_test else "valid"
    failures, logs = list[Failure](), dict[str, Any]()
    with study_folder(out):
        trials = [
            trial
            for dataset in datasets
            for trial in trials_for(out, candidates, [dataset], config.seeds)
        ]
        stage = Stage(name="suite", trials=trials, split=split)
        options.on_plan(plan_study([stage], options))
        for dataset in datasets:
            runs, more = _run_log(out, candidates, dataset, config.seeds, split, options)
            failures += more
            if runs:
                logs[dataset.name] = _log_results(runs, dataset, split, config.reference)
        if not logs:
            raise RunError(
                "no trial finished",
                code="no_finished_trial",
                hint="see log.txt in each folder of trials/ in the study's folder",
            )
        _adjust_p_values(logs)
        content = {
            FORMAT_KEY: STUDY_FORMAT.version,
            "split": split,
            "reference": config.reference,
            "logs": logs,
            "failed": failures,
            **study_facts(out, datasets, config.seeds),
        }
        write_json(out / "suite.json", content)
        write_suite_report(out / "report.html", content)
    return content


def _make_candidates(config: SuiteConfig) -> list[Candidate]:
    candidates = make_candidates(config.models, config.overrides())
    labels = [candidate.label for candidate in candidates]
    if config.reference not in labels:
        raise UsageError(
            f"--reference {config.reference}: expected one of {', '.join(labels)}",
            field="--reference",
        )
    config.check_seeds()
    return candidates


def _open_logs(folders: Sequence[str | Path], *, verify_test: bool) -> list[StudyDataset]:
    """Open and verify datasets that need not have one schema. Raises UsageError, DataError."""
    datasets = [
        dataset
        for folder in folders
        for dataset in open_datasets([folder], verify_test=verify_test)[0]
    ]
    names = [dataset.name for dataset in datasets]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UsageError(
            f"--data: two folders have the name {repeated!r}, which names a log in the results",
            code="repeated_argument",
            field="--data",
            hint="rename one of them",
        )
    return datasets


def _run_log(
    out: Path,
    candidates: Sequence[Candidate],
    dataset: StudyDataset,
    seeds: int,
    split: EvaluatedSplit,
    options: StudyOptions,
) -> tuple[TrialsByLabel, list[Failure]]:
    """Run the trials on one log; a log on which none finishes is a failure of its own."""
    trials = trials_for(out, candidates, [dataset], seeds)
    try:
        return run_candidates(out, trials, candidates, [dataset], split, options)
    except RunError as error:
        if error.code != "no_finished_trial":
            raise
        return {}, [{"trial": dataset.name, "error": str(error)}]


def _log_results(
    runs: TrialsByLabel, dataset: StudyDataset, split: EvaluatedSplit, reference: str
) -> dict[str, Any]:
    """Summarise one log: its models, its trivial rules, and the differences of the first label."""
    task = dataset.dataset.schema.tasks[0]
    models = summarise(runs, split)
    first = next(iter(models.values()))["tasks"][task]
    pairs = list[dict[str, Any]]()
    if reference in runs:
        against = [(reference, label) for label in runs if label != reference]
        differences = paired_differences(runs, [dataset], split, pairs=against)
        pairs = [
            {key: value for key, value in pair.items() if key not in ("primary", "p_holm")}
            for pair in differences["pairs"]
            if pair["task"] == task and pair["metric"] in SUITE_METRICS
        ]
    return {
        "task": task,
        "models": models,
        "baselines": {
            name: {
                metric: first[f"{name}_{metric}"]["mean"]
                for metric in SUITE_METRICS
                if f"{name}_{metric}" in first
            }
            for name in BASELINE_NAMES
            if any(f"{name}_{metric}" in first for metric in SUITE_METRICS)
        },
        "pairs": pairs,
    }


def _adjust_p_values(logs: dict[str, Any]) -> None:
    """Add ``p_holm`` to the pairs of all logs, adjusted within each metric."""
    for metric in SUITE_METRICS:
        pairs = [pair for log in logs.values() for pair in log["pairs"] if pair["metric"] == metric]
        for pair, adjusted in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
            pair["p_holm"] = adjusted
