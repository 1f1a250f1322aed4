"""``hemix scale``: HeMix on a ladder of sizes and of history lengths; loss and AUC against
parameters, counted FLOPs and events.

A rung of the first ladder changes token width, depth and the number of tokens together; one of the
second shows every request its newest events alone, by the loader, with the model as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from hemix.errors import UsageError
from hemix.evaluation.metrics import Absent
from hemix.files import write_json
from hemix.formats import FORMAT_KEY
from hemix.lab.studies.cells import STUDY_FORMAT, Contender, Judged
from hemix.lab.studies.compare import cells_of, facts, judge
from hemix.lab.studies.cost import plan
from hemix.lab.studies.inputs import Input, judged_rows, open_inputs
from hemix.lab.studies.powerlaw import Law, fit_laws, replicate_values
from hemix.lab.studies.report import write_study_report
from hemix.lab.studies.runner import Options, check_study_folder, study_folder
from hemix.lab.studies.summary import Runs, measured_runs, summarise

__all__ = ["LADDER", "LENGTHS", "ScaleConfig", "lengths_for", "scale"]


def _rung(
    width: int, layers: int, heads: int, mix_heads: int, rank: int, hidden: int, tokens: int
) -> dict[str, Any]:
    """``tokens``: NS tokens and fixed queries of either history."""
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


LADDER: dict[str, dict[str, Any]] = {
    "width_8": _rung(8, 1, 1, 2, 8, 32, 2),
    "width_16": _rung(16, 1, 2, 4, 16, 64, 2),
    "width_24": _rung(24, 2, 2, 4, 24, 96, 3),
    "width_32": _rung(32, 2, 2, 4, 32, 128, 4),
    "width_64": _rung(64, 2, 4, 4, 64, 256, 4),
    "width_96": _rung(96, 3, 4, 8, 96, 384, 4),
}

LENGTHS = (3, 10, 30, 100, 300, 1000)
_AXES = ("dense_parameters", "flops_per_impression")
_METRICS = ("logloss", "auc")
_LINE_POINTS = 60


def lengths_for(data: Input) -> list[int]:
    """The lengths of LENGTHS that cut some of the data's histories, then the longest that any
    request sees.
    """
    history = data.dataset.schema.history
    longest = min(
        int(data.dataset.manifest["history"]["max"]),
        history.global_length + history.realtime_length,
    )
    return [*(length for length in LENGTHS if length < longest), max(longest, 1)]


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """What is scaled."""

    seeds: int = 2
    sizes: Sequence[str] | None = None
    """Rungs of LADDER; None: all"""
    lengths: Sequence[int] | None = None
    """Most events a request sees; None: :func:`lengths_for`; empty: no such ladder"""
    changes: Mapping[str, Any] | None = None
    """Settings for all rungs"""
    final: bool = False
    """Open test"""


def scale(
    data: str | Path,
    out: Path,
    config: ScaleConfig | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """Train every rung of both ladders; writes scale.json and report.html.

    Args:
        data: The dataset.
        out: The study's folder; a second call continues it.
        config: Which rungs.
        options: How many cells run at a time, and whom to tell.

    Returns:
        The content of scale.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: If no run finished.
    """
    config, options = config or ScaleConfig(), options or Options()
    base, seeds = dict(config.changes or {}), config.seeds
    by_size = [Contender.of(name, {**base, **LADDER[name]}) for name in _checked_sizes(config)]
    check_study_folder(out)
    inputs, _ = open_inputs([data], opens_test=config.final)
    lengths = lengths_for(inputs[0]) if config.lengths is None else config.lengths
    by_length = [
        Contender.of(f"history_{length}", base, history_events_max=length) for length in lengths
    ]
    contenders = [*by_size, *by_length]
    if len(contenders) < 2:
        raise UsageError("--sizes, --lengths: expected two rungs or more")
    split: Judged = "test" if config.final else "valid"
    with study_folder(out):
        cells = cells_of(out, contenders, inputs, seeds)
        options.on_plan(plan([("scale", cells, split)], options))
        runs, failed = judge(out, cells, contenders, inputs, split, options)
        models = summarise(runs, split)
        content = {
            "schema_version": 1,
            FORMAT_KEY: STUDY_FORMAT.version,
            "split": split,
            "models": models,
            "sizes": [one.label for one in by_size if one.label in runs],
            "histories": [one.label for one in by_length if one.label in runs],
            "fits": _fits(runs, models, by_size, by_length, inputs, split),
            "failed": failed,
            **facts(out, inputs, seeds),
        }
        write_json(out / "scale.json", content)
        write_study_report(out / "report.html", "scale", content)
    return content


def _checked_sizes(config: ScaleConfig) -> list[str]:
    """The rungs to train. Raises UsageError for an unknown one and for numbers below 1."""
    sizes = list(LADDER) if config.sizes is None else list(config.sizes)
    for name in sizes:
        if name not in LADDER:
            raise UsageError(f"--sizes {name}: expected some of {', '.join(LADDER)}")
    if config.seeds < 1 or any(length < 1 for length in config.lengths or ()):
        flags = f"--seeds {config.seeds} --lengths {config.lengths}"
        raise UsageError(f"{flags}: expected numbers from 1 up")
    return sizes


def _fits(
    runs: Runs,
    models: Mapping[str, Any],
    by_size: Sequence[Contender],
    by_length: Sequence[Contender],
    inputs: Sequence[Input],
    split: Judged,
) -> list[dict[str, Any]]:
    ladders: list[tuple[str, dict[str, float]]] = []
    for axis in _AXES:
        ladders.append(
            (axis, {one.label: models[one.label][axis] for one in by_size if one.label in runs})
        )
    events = {
        one.label: float(one.history_events_max or 0) for one in by_length if one.label in runs
    }
    ladders.append(("history_events", events))
    rows = judged_rows(inputs, split)
    found = []
    for task in inputs[0].dataset.schema.outputs:
        for metric in _METRICS:
            measured = measured_runs(runs, inputs, split, task, metric, rows)
            for axis, rungs in ladders:
                usable = {
                    label: x
                    for label, x in rungs.items()
                    if not isinstance(measured[label], Absent)
                }
                if len(set(usable.values())) < 2:
                    continue
                seeds = [list(measured[label][0].values()) for label in usable]
                found.append({"task": task, "metric": metric, **_fit(axis, usable, seeds, metric)})
    return found


def _fit(
    axis: str, rungs: Mapping[str, float], seeds: Sequence[Any], metric: str
) -> dict[str, Any]:
    """AUC is fitted as 1 - AUC, which falls like a loss."""
    x = list(rungs.values())
    values = np.array([fmean(run.value for run in of) for of in seeds])
    replicates = replicate_values(seeds)
    falls, fell = (1 - values, 1 - replicates) if metric == "auc" else (values, replicates)
    law = fit_laws(x, falls.tolist(), fell)
    low, high = np.percentile(replicates, [2.5, 97.5], axis=0)
    grid = np.geomspace(min(x), max(x), _LINE_POINTS)
    told = law.asymptote_told and law.a is not None and law.b is not None and law.c is not None
    if told:
        assert law.a is not None and law.b is not None and law.c is not None
        line = law.a + law.b * grid**-law.c
    else:
        line = law.intercept - law.slope * np.log10(grid)
    return {
        "axis": axis,
        "fitted": "1 - auc" if metric == "auc" else metric,
        "points": [
            {
                "label": label,
                "x": at,
                "value": float(value),
                "ci95": [float(min(lo, value)), float(max(hi, value))],
            }
            for (label, at), value, lo, hi in zip(rungs.items(), values, low, high, strict=True)
        ],
        "law": asdict(law),
        "line": [
            [float(at), float(1 - y if metric == "auc" else y)]
            for at, y in zip(grid, line, strict=True)
        ],
        "reading": _reading(law),
    }


def _reading(law: Law) -> str:
    tenfold = (
        f"A tenfold takes off {law.slope:.5f} ({law.slope_ci95[0]:.5f} to {law.slope_ci95[1]:.5f})."
    )
    if (
        not law.asymptote_told
        or law.a is None
        or law.c is None
        or law.a_ci95 is None
        or law.c_ci95 is None
    ):
        return f"{tenfold} These sizes cannot tell where it would end."
    return (
        f"{law.a:.4f} + b x^-{law.c:.2f}; the end {law.a_ci95[0]:.4f} to {law.a_ci95[1]:.4f}, "
        f"the exponent {law.c_ci95[0]:.2f} to {law.c_ci95[1]:.2f}. {tenfold}"
    )
