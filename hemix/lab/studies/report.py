"""``report.html`` of a study: differences, metrics and costs of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hemix.evaluation import charts, wording
from hemix.evaluation.report import render
from hemix.files import write_text

__all__ = ["headline", "study_conditions", "write_study_report"]

_TITLES = {
    "compare": "Comparison of models",
    "ablate": "Ablation of HeMix",
    "scale": "Scaling of HeMix",
}
_METRICS = (
    ("AUC", "auc", 4),
    ("GAUC", "gauc", 4),
    ("by positives", "gauc_by_positives", 4),
    ("MRR of requests", "mrr", 4),
    ("nDCG@10 of users", "user_ndcg_at_10", 4),
    ("log loss", "logloss", 4),
    ("NE", "ne", 4),
    ("PCOC", "pcoc", 3),
    ("ECE", "ece", 4),
    ("floor", "ece_floor", 4),
    ("to the oracle", "oracle_distance", 4),
)
_METRIC_NAMES = {"auc": "AUC", "gauc": "GAUC", "logloss": "log loss"}
_CHART_PAIRS_MAX = 40
_GLOSSARY = (
    (
        "difference",
        "The mean difference of two models on the same impressions, over training seeds and test "
        "periods. Its interval covers the sampling of users and the randomness of training.",
    ),
    (
        "Holm",
        "The p-value adjusted for the number of compared pairs. With 0.05 as the threshold, the "
        "chance of any false claim among all pairs of one task and metric is below 5 %. The "
        "primary pair was chosen in advance and is not adjusted.",
    ),
)

Section = dict[str, Any]
"""Title, text, charts and tables of a section, for the template"""


def write_study_report(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write the report of a study, atomically.

    Args:
        path: The HTML file.
        kind: compare, ablate or scale.
        content: The content of the study's JSON file.

    Raises:
        StorageError: The file cannot be written.
    """
    tasks = list(next(iter(content["models"].values()))["tasks"])
    if kind == "scale":
        sections = _law_sections(content)
    else:
        sections = [
            section for task in tasks if (section := _difference_section(content, task)) is not None
        ]
    sections.append(_model_section(content, tasks))
    if content["failed"]:
        rows = [[failure["trial"], failure["error"]] for failure in content["failed"]]
        table = {"title": "", "columns": ["trial", "error"], "rows": rows}
        sections.append(_section("Failures", tables=[table]))
    trials = [trial for model in content["models"].values() for trial in model["trials"]]
    page = render(
        "study.html.j2",
        package="hemix.lab",
        kicker=f"Study · {content['split']} split",
        title=_TITLES[kind],
        headline=headline(kind, content, tasks[0]),
        sections=sections,
        facts=study_conditions(content, trials),
        glossary=(*wording.GLOSSARY, *_GLOSSARY),
    )
    write_text(path, page)


def _section(
    title: str, *, text: str = "", charts: Sequence[Any] = (), tables: Sequence[Any] = ()
) -> Section:
    return {"title": title, "text": text, "charts": charts, "tables": tables}


def _model_name(label: str) -> str:
    return wording.MODEL_NAMES.get(label, label)


def _pair_name(pair: Mapping[str, Any]) -> str:
    return f"{_model_name(pair['a'])} − {_model_name(pair['b'])}"


def headline(kind: str, content: Mapping[str, Any], task: str) -> str:
    """Summarise a study in one or two sentences.

    Args:
        kind: compare, ablate or scale.
        content: The content of the study's JSON file.
        task: The task whose AUC ranks the models.
    """
    ranked = sorted(
        (
            (model["tasks"][task]["auc"]["mean"], label)
            for label, model in content["models"].items()
            if "auc" in model["tasks"].get(task, {})
        ),
        reverse=True,
    )
    if not ranked:
        return f"{len(content['models'])} models."
    best_auc, best_label = ranked[0]
    first = (
        f"Of {len(ranked)}, {_model_name(best_label)} has the highest {wording.words(task)} AUC: "
        f"{best_auc:.4f}."
    )
    primary = [
        pair
        for pair in content.get("pairs", ())
        if pair.get("primary") and (pair["task"], pair["metric"]) == (task, "auc")
    ]
    if not primary or kind != "compare":
        return first
    pair = primary[0]
    low, high = pair["ci95"]
    if low > 0:
        relation = "is ahead of"
    elif high < 0:
        relation = "is behind"
    else:
        relation = "is not significantly different from"
    return (
        f"{first} {_model_name(pair['a'])} {relation} {_model_name(pair['b'])}: "
        f"{pair['delta']:+.4f} (95 % interval {low:+.4f} to {high:+.4f})."
    )


def _difference_section(content: Mapping[str, Any], task: str) -> Section | None:
    """Show the differences of one task; None where no metric has any."""
    drawn, rows = [], []
    for metric, name in _METRIC_NAMES.items():
        pairs = [
            pair for pair in content["pairs"] if (pair["task"], pair["metric"]) == (task, metric)
        ]
        if pairs:
            drawn.append(_difference_chart(pairs[:_CHART_PAIRS_MAX], task, metric))
        rows += [
            [
                _pair_name(pair),
                name,
                f"{pair['delta']:+.5f}",
                f"{pair['ci95'][0]:+.5f} to {pair['ci95'][1]:+.5f}",
                f"{pair['p']:.2g}",
                "primary" if pair["primary"] else f"{pair['p_holm']:.2g}",
            ]
            for pair in pairs
        ]
    if not drawn:
        return None
    columns = ["", "metric", "difference", "95 % interval", "p", "Holm"]
    return _section(
        f"Differences: {wording.words(task)}",
        charts=drawn,
        tables=[{"title": "", "columns": columns, "rows": rows}],
    )


def _difference_chart(pairs: Sequence[Mapping[str, Any]], task: str, metric: str) -> dict[str, Any]:
    name = _METRIC_NAMES[metric]
    ranges = [
        charts.Range(name=_pair_name(pair), value=pair["delta"], interval=tuple(pair["ci95"]))
        for pair in pairs
    ]
    listed = "; ".join(f"{row.name} {row.value:+.4f}" for row in ranges[:6])
    svg = charts.forest_plot(
        f"forest-{task}-{metric}",
        f"Differences of {name} of {task}: {listed}.",
        ranges,
        x_label=f"difference of {name}",
    )
    side = "left" if metric == "logloss" else "right"
    caption = (
        f"95 % intervals; {side} of 0 the first model is better. Hollow: the interval holds 0."
    )
    return {"title": name, "svg": svg, "caption": caption}


def _model_section(content: Mapping[str, Any], tasks: Sequence[str]) -> Section:
    """Show every model's metrics and costs."""
    models: Mapping[str, Any] = content["models"]
    text = (
        f"Means over all trials on the {content['split']} split. For boosted trees the number of "
        "leaves replaces the dense parameters."
    )
    tables = [_metric_table(models, task) for task in tasks]
    return _section("All models", text=text, tables=[*tables, _cost_table(models)])


def _metric_table(models: Mapping[str, Any], task: str) -> dict[str, Any]:
    present = [
        (name, key, digits)
        for name, key, digits in _METRICS
        if any(key in model["tasks"][task] for model in models.values())
    ]
    rows = []
    for label, model in models.items():
        metrics = model["tasks"][task]
        values = [
            f"{metrics[key]['mean']:.{digits}f}" if key in metrics else "–"
            for _, key, digits in present
        ]
        rows.append([_model_name(label), *values])
    rows += _baseline_rows(
        next(iter(models.values()))["tasks"][task], [key for _, key, _ in present]
    )
    columns = ["", *(name for name, _, _ in present)]
    return {"title": wording.words(task), "columns": columns, "rows": rows}


def _baseline_rows(metrics: Mapping[str, Any], columns: Sequence[str]) -> list[list[str]]:
    """Rows of the trivial rules, which are the same beside every model."""
    rows = []
    for name, title in wording.BASELINE_NAMES.items():
        keys = [f"{name}_{column}" for column in columns]
        if any(key in metrics for key in keys):
            values = [f"{metrics[key]['mean']:.4f}" if key in metrics else "–" for key in keys]
            rows.append([title, *values])
    return rows


def _cost_table(models: Mapping[str, Any]) -> dict[str, Any]:
    columns = ["", "dense parameters", "FLOPs an impression", "training", "peak memory", "settings"]
    rows = [
        [
            _model_name(label),
            wording.count(model["dense_parameters"]),
            wording.count(model["flops_per_impression"]),
            wording.duration(model["train_seconds"]),
            wording.size(model["peak_bytes"]),
            ", ".join(
                f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
                for key, value in model["settings"].items()
            ),
        ]
        for label, model in models.items()
    ]
    return {"title": "Costs", "columns": columns, "rows": rows}


def _law_sections(content: Mapping[str, Any]) -> list[Section]:
    """Show the fitted scaling laws, a section a task."""
    drawn: dict[str, list[dict[str, Any]]] = {}
    for number, fit in enumerate(content["fits"]):
        points = [(p["x"], p["value"], *p["ci95"]) for p in fit["points"]]
        metric, axis = _METRIC_NAMES[fit["metric"]], _axis_name(fit)
        svg: Markup = charts.scaling_law_chart(
            f"law-{number}",
            f"{metric} of {fit['task']} against {axis}, {len(points)} points.",
            points,
            [tuple(point) for point in fit["line"]],
            x_label=axis,
            y_label=metric,
        )
        chart = {"title": f"{metric} against {axis}", "svg": svg, "caption": fit["reading"]}
        drawn.setdefault(fit["task"], []).append(chart)
    text = (
        "Bars are 95 % intervals over users. All points have the same users, so differences of "
        "points are more certain than the overlap of their bars suggests."
    )
    return [_section(wording.words(task), text=text, charts=each) for task, each in drawn.items()]


def _axis_name(fit: Mapping[str, Any]) -> str:
    if fit["axis"] == "flops_per_impression":
        return "FLOPs an impression"
    return wording.words(fit["axis"])


def study_conditions(
    content: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Describe data, seeds, machine and code of a study as (name, value) pairs.

    Args:
        content: The content of the study's JSON file.
        trials: Its trials, as the models' summaries list them.
    """
    machine = content["machine"]
    rows = sum(dataset["rows"][content["split"]] for dataset in content["datasets"])
    digests = sorted({trial["code"] for trial in trials})
    warning = ": trials of several versions" if len(digests) > 1 else ""
    return [
        ("datasets", ", ".join(dataset["name"] for dataset in content["datasets"])),
        ("evaluated impressions", wording.count(rows)),
        ("seeds per dataset", str(len(content["seeds"][0]))),
        ("accesses to the test set", str(len(content["test_accesses"]))),
        ("processor", f"{machine['cpu']}, {machine['cores']} cores"),
        ("memory", wording.size(machine["memory_bytes"])),
        *((name, str(value)) for name, value in content["versions"].items()),
        ("source of data, models and training", ", ".join(digests) + warning),
    ]
