"""``hemix compare``: models on the same data, with the same search, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.errors import UsageError
from hemix.files import write_json
from hemix.formats import FORMAT_KEY
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.cost import Stage, plan_study
from hemix.lab.studies.datasets import open_datasets
from hemix.lab.studies.options import StudyConfig, StudyOptions
from hemix.lab.studies.report import write_study_report
from hemix.lab.studies.runner import Failure, check_study_folder, study_folder
from hemix.lab.studies.search import Points, Search, default_points, read_points
from hemix.lab.studies.study import STUDY_FORMAT, run_candidates, study_facts, trials_for
from hemix.lab.studies.summary import paired_differences, summarise
from hemix.lab.studies.trial import EvaluatedSplit
from hemix.models import find_model, model_names
from hemix.settings import of_model

__all__ = ["CompareConfig", "compare", "make_candidates"]


@dataclass(frozen=True, kw_only=True)
class CompareConfig(StudyConfig):
    """The models of a comparison, and how they are trained."""

    models: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None
    """Names, or settings by label: ``{"deep": {"model.name": "hemix", "model.layers": 4}}``; None:
    all models
    """
    search: str | Path | None = "default"
    """``default``, a search file, or None for no search"""
    search_data: str | Path | None = None
    """A smaller dataset for the search; None: the first dataset"""
    primary: Sequence[str] | None = None
    """Pairs ``a:b`` whose p-values are not adjusted; None: hemix:lightgbm if both are compared"""


def compare(
    data: Sequence[str | Path],
    out: Path,
    config: CompareConfig | None = None,
    options: StudyOptions | None = None,
) -> dict[str, Any]:
    """Compare models; writes compare.json and report.html.

    Args:
        data: Dataset folders: rolling origins of the same logs.
        out: The study's folder; a second call continues it.
        config: The models and their training.
        options: How the trials run.

    Returns:
        The content of compare.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: If no trial finished.
    """
    config, options = config or CompareConfig(), options or StudyOptions()
    base = config.overrides()
    candidates = make_candidates(config.models, base)
    config.check_seeds()
    primary = _parse_primary(config.primary, [candidate.label for candidate in candidates])
    points = _search_points(config.search, base)
    check_study_folder(out)
    datasets, search_dataset = open_datasets(
        data, verify_test=config.evaluate_test, search_folder=config.search_data
    )
    split: EvaluatedSplit = "test" if config.evaluate_test else "valid"
    failures, search_results = list[Failure](), dict[str, Any]()
    with study_folder(out):
        if points is not None:
            search = Search(out, candidates, points, search_dataset or datasets[0])
            options.on_plan(plan_study(search.stages(datasets, config.seeds, split), options))
            candidates, search_results, failures = search.run(options)
        trials = trials_for(out, candidates, datasets, config.seeds)
        if points is None and candidates:
            stage = Stage(name="compare", trials=trials, split=split)
            options.on_plan(plan_study([stage], options))
        runs, more = run_candidates(out, trials, candidates, datasets, split, options)
        failures += more
        complete = [pair for pair in primary if pair[0] in runs and pair[1] in runs]
        content = {
            FORMAT_KEY: STUDY_FORMAT.version,
            "split": split,
            "models": summarise(runs, split),
            **paired_differences(runs, datasets, split, primary=complete),
            "primary": [":".join(pair) for pair in primary],
            "failed": failures,
            "search": search_results,
            **study_facts(out, datasets, config.seeds, search_dataset if points else None),
        }
        write_json(out / "compare.json", content)
        write_study_report(out / "report.html", "compare", content)
    return content


def _search_points(search: str | Path | None, base: Mapping[str, Any]) -> Points | None:
    """Return the points of the search; None for no search."""
    if search is None:
        return None
    return default_points(base) if search == "default" else read_points(search)


def make_candidates(
    models: Sequence[str] | Mapping[str, Mapping[str, Any]] | None, base: Mapping[str, Any]
) -> list[Candidate]:
    """Make the candidates of a study.

    Args:
        models: See :class:`CompareConfig`.
        base: Settings by ``section.name``; each candidate gets those that its model has.

    Raises:
        UsageError: A model is unknown or named twice, or there is none.
        SettingsError: A setting is unknown or invalid.
    """
    if isinstance(models, Mapping):
        settings_by_label = models
    else:
        names = list(model_names()) if models is None else list(models)
        settings_by_label = {name: {"model.name": name} for name in names}
        if len(settings_by_label) < len(names):
            raise UsageError(
                f"--models {','.join(names)}: a model is named twice",
                code="repeated_argument",
                field="--models",
            )
    if not settings_by_label:
        raise UsageError(
            f"--models: expected one or more of {', '.join(model_names())}", field="--models"
        )
    model_by_label = {
        label: find_model(str(settings.get("model.name", "hemix"))).name
        for label, settings in settings_by_label.items()
    }
    compared = list(dict.fromkeys(model_by_label.values()))
    return [
        Candidate.from_overrides(
            label, {**of_model(model_by_label[label], base, compared), **settings}
        )
        for label, settings in settings_by_label.items()
    ]


def _parse_primary(pairs: Sequence[str] | None, labels: Sequence[str]) -> list[tuple[str, str]]:
    if pairs is None:
        return [("hemix", "lightgbm")] if {"hemix", "lightgbm"} <= set(labels) else []
    parsed = []
    for pair in pairs:
        a, _, b = pair.partition(":")
        if a not in labels or b not in labels or a == b:
            raise UsageError(
                f"--primary {pair}: expected two of {', '.join(labels)} as a:b", field="--primary"
            )
        parsed.append((a, b))
    return parsed
