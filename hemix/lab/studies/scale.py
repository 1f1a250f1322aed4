"""``hemix scale``: HeMix at several sizes and history lengths, and the scaling laws fitted to them.

Sizes change token width, depth and number of tokens together. Lengths limit each request to its
newest history events; the model stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from hemix.errors import UsageError
from hemix.evaluation.differences import MetricEstimate
from hemix.evaluation.metrics import Array, UndefinedMetric
from hemix.files import write_json
from hemix.formats import FORMAT_KEY
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.cost import Stage, plan_study
from hemix.lab.studies.datasets import StudyDataset, evaluated_rows, open_datasets
from hemix.lab.studies.options import StudyConfig, StudyOptions
from hemix.lab.studies.report import write_study_report
from hemix.lab.studies.runner import check_study_folder, study_folder
from hemix.lab.studies.scaling_laws import ScalingLaw, fit_scaling_law, resample_values
from hemix.lab.studies.study import (
    STUDY_FORMAT,
    TrialsByLabel,
    run_candidates,
    study_facts,
    trials_for,
)
from hemix.lab.studies.summary import measure_trials, summarise
from hemix.lab.studies.trial import EvaluatedSplit

__all__ = ["LENGTHS", "SIZES", "ScaleConfig", "lengths_for", "scale"]


def _size(
    width: int, layers: int, heads: int, mix_heads: int, rank: int, hidden: int, tokens: int
) -> dict[str, Any]:
    """Make the settings of a size; ``tokens``: NS tokens and fixed queries of either history."""
    return {
        "model.token_width": width,
        "model.layers": layers,
        "model.attention_heads": heads,
        "model.mix_heads": mix_heads,
        "model.mix_rank": rank,
        "model.tokenizer_hidden": hidden,
        "model.ns_tokens_global": tokens,
        "model.ns_tokens_realtime": tokens,
        "model.fixed_queries_global": tokens,
        "model.fixed_queries_realtime": tokens,
    }


SIZES: dict[str, dict[str, Any]] = {
    "width_8": _size(8, 1, 1, 2, 8, 32, 2),
    "width_16": _size(16, 1, 2, 4, 16, 64, 2),
    "width_24": _size(24, 2, 2, 4, 24, 96, 3),
    "width_32": _size(32, 2, 2, 4, 32, 128, 4),
    "width_64": _size(64, 2, 4, 4, 64, 256, 4),
    "width_96": _size(96, 3, 4, 8, 96, 384, 4),
}

LENGTHS = (3, 10, 30, 100, 300, 1000)
"""Default maxima of history events"""
_SIZE_AXES = ("dense_parameters", "flops_per_impression")
_METRICS = ("logloss", "auc")
_CURVE_POINTS = 60


def lengths_for(dataset: StudyDataset) -> list[int]:
    """Select the lengths of LENGTHS that shorten some history, then the longest history."""
    history = dataset.dataset.schema.history
    longest = min(
        int(dataset.dataset.manifest["history"]["max"]),
        history.global_length + history.realtime_length,
    )
    return [*(length for length in LENGTHS if length < longest), max(longest, 1)]


@dataclass(frozen=True, kw_only=True)
class ScaleConfig(StudyConfig):
    """The sizes and lengths of a scaling study."""

    seeds: int = 2
    """Number of training seeds"""
    sizes: Sequence[str] | None = None
    """Keys of SIZES; None: all"""
    lengths: Sequence[int] | None = None
    """Maxima of history events; None: :func:`lengths_for`; empty: only sizes"""


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """An axis of the fits: its name, and the candidates' positions on it by label."""

    name: str
    positions: dict[str, float]


def scale(
    data: str | Path,
    out: Path,
    config: ScaleConfig | None = None,
    options: StudyOptions | None = None,
) -> dict[str, Any]:
    """Train every size and length and fit scaling laws; writes scale.json and report.html.

    Args:
        data: The dataset folder.
        out: The study's folder; a second call continues it.
        config: The sizes and lengths.
        options: How the trials run.

    Returns:
        The content of scale.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: If no trial finished.
    """
    config, options = config or ScaleConfig(), options or StudyOptions()
    base = config.overrides()
    by_size = [
        Candidate.from_overrides(name, {**base, **SIZES[name]}) for name in _check_sizes(config)
    ]
    check_study_folder(out)
    datasets, _ = open_datasets([data], verify_test=config.evaluate_test)
    lengths = lengths_for(datasets[0]) if config.lengths is None else config.lengths
    by_length = [
        Candidate.from_overrides(f"history_{length}", base, history_events_max=length)
        for length in lengths
    ]
    candidates = [*by_size, *by_length]
    if len(candidates) < 2:
        raise UsageError(
            f"--sizes, --lengths: expected two or more, got {len(candidates)}", field="--sizes"
        )
    split: EvaluatedSplit = "test" if config.evaluate_test else "valid"
    with study_folder(out):
        trials = trials_for(out, candidates, datasets, config.seeds)
        options.on_plan(plan_study([Stage(name="scale", trials=trials, split=split)], options))
        runs, failures = run_candidates(out, trials, candidates, datasets, split, options)
        models = summarise(runs, split)
        by_size = [candidate for candidate in by_size if candidate.label in runs]
        by_length = [candidate for candidate in by_length if candidate.label in runs]
        content = {
            FORMAT_KEY: STUDY_FORMAT.version,
            "split": split,
            "models": models,
            "sizes": [candidate.label for candidate in by_size],
            "histories": [candidate.label for candidate in by_length],
            "fits": _fit_all(runs, _axes(models, by_size, by_length), datasets, split),
            "failed": failures,
            **study_facts(out, datasets, config.seeds),
        }
        write_json(out / "scale.json", content)
        write_study_report(out / "report.html", "scale", content)
    return content


def _check_sizes(config: ScaleConfig) -> list[str]:
    """Return the sizes. Raises UsageError for an unknown one and for numbers below 1."""
    sizes = list(SIZES) if config.sizes is None else list(config.sizes)
    for name in sizes:
        if name not in SIZES:
            raise UsageError(
                f"--sizes {name}: expected some of {', '.join(SIZES)}", field="--sizes"
            )
    config.check_seeds()
    if any(length < 1 for length in config.lengths or ()):
        raise UsageError(
            f"--lengths {config.lengths}: expected numbers of 1 or more", field="--lengths"
        )
    return sizes


def _axes(
    models: Mapping[str, Any], by_size: Sequence[Candidate], by_length: Sequence[Candidate]
) -> list[_Axis]:
    size_axes = [
        _Axis(name=name, positions={each.label: models[each.label][name] for each in by_size})
        for name in _SIZE_AXES
    ]
    lengths = {each.label: float(each.history_events_max or 0) for each in by_length}
    return [*size_axes, _Axis(name="history_events", positions=lengths)]


def _fit_all(
    runs: TrialsByLabel,
    axes: Sequence[_Axis],
    datasets: Sequence[StudyDataset],
    split: EvaluatedSplit,
) -> list[dict[str, Any]]:
    """Fit every output and metric against every axis with two or more positions."""
    users = evaluated_rows(datasets, split)
    fits = []
    for task in datasets[0].dataset.schema.outputs:
        for metric in _METRICS:
            measured = measure_trials(runs, datasets, split, task, metric, users)
            for axis in axes:
                positions, values = dict[str, float](), list[list[MetricEstimate]]()
                for label, x in axis.positions.items():
                    trials = measured[label]
                    if not isinstance(trials, UndefinedMetric):
                        positions[label] = x
                        values.append(list(trials[0].values()))
                if len(set(positions.values())) > 1:
                    fit = _fit(_Axis(name=axis.name, positions=positions), values, metric)
                    fits.append({"task": task, "metric": metric, **fit})
    return fits


def _fit(axis: _Axis, trials: Sequence[Sequence[MetricEstimate]], metric: str) -> dict[str, Any]:
    """Fit one metric; AUC is fitted as 1 - AUC, which falls like a loss."""
    x = list(axis.positions.values())
    values = np.array([fmean(trial.value for trial in seeds) for seeds in trials])
    resamples = resample_values(trials)
    is_auc = metric == "auc"
    law = fit_scaling_law(
        x, (1 - values if is_auc else values).tolist(), 1 - resamples if is_auc else resamples
    )
    lows, highs = np.percentile(resamples, [2.5, 97.5], axis=0)
    grid = np.geomspace(min(x), max(x), _CURVE_POINTS)
    curve = _predict(law, grid)
    return {
        "axis": axis.name,
        "fitted": "1 - auc" if is_auc else metric,
        "points": [
            {
                "label": label,
                "x": position,
                "value": float(value),
                "ci95": [float(min(low, value)), float(max(high, value))],
            }
            for (label, position), value, low, high in zip(
                axis.positions.items(), values, lows, highs, strict=True
            )
        ],
        "law": asdict(law),
        "line": [
            [float(position), float(1 - value if is_auc else value)]
            for position, value in zip(grid, curve, strict=True)
        ],
        "reading": _describe(law),
    }


def _predict(law: ScalingLaw, x: Array) -> Array:
    """Evaluate the power law where it has an asymptote, else the log-linear law."""
    if law.has_asymptote and law.a is not None and law.b is not None and law.c is not None:
        return law.a + law.b * x**-law.c
    return law.intercept - law.slope * np.log10(x)


def _describe(law: ScalingLaw) -> str:
    """Describe a law in one or two sentences."""
    low, high = law.slope_ci95
    per_tenfold = f"A tenfold increase lowers it by {law.slope:.5f} ({low:.5f} to {high:.5f})."
    if (
        not law.has_asymptote
        or law.a is None
        or law.c is None
        or law.a_ci95 is None
        or law.c_ci95 is None
    ):
        return f"{per_tenfold} These sizes do not determine an asymptote."
    return (
        f"{law.a:.4f} + b x^-{law.c:.2f}; asymptote {law.a_ci95[0]:.4f} to {law.a_ci95[1]:.4f}, "
        f"exponent {law.c_ci95[0]:.2f} to {law.c_ci95[1]:.2f}. {per_tenfold}"
    )
