"""``report.html`` of a study: which model is ahead, by how much and how surely, what each costs.

Reads the study's JSON alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hemix.evaluation import charts, wording
from hemix.evaluation.report import render
from hemix.files import write_text

__all__ = ["write_study_report"]

_TITLES = {
    "compare": "Models compared",
    "ablate": "What each part is worth",
    "scale": "How it scales",
}
_METRICS = (
    ("AUC", "auc", 4),
    ("GAUC", "gauc", 4),
    ("log loss", "logloss", 4),
    ("NE", "ne", 4),
    ("PCOC", "pcoc", 3),
    ("ECE", "ece", 4),
    ("floor", "ece_floor", 4),
    ("to the oracle", "oracle_distance", 4),
)
_NAMES = {"auc": "AUC", "gauc": "GAUC", "logloss": "log loss"}
_MOST_PAIRS = 40
_WORDS = (
    (
        "difference",
        "Between two models on the same impressions: the mean over training seeds and, where "
        "there are several, over test periods. Its "
        "interval holds what the sampling of users and the chance of training do.",
    ),
    (
        "Holm",
        "p adjusted for how many pairs were looked at, so that among all of one task and metric a "
        "false claim has a chance below 5 %. "
        "The primary pair was named before and is not adjusted.",
    ),
)


def write_study_report(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write the report of a study (``compare``, ``ablate`` or ``scale``), atomically.

    Raises StorageError.
    """
    tasks = list(next(iter(content["models"].values()))["tasks"])
    parts = [_models(content, tasks)]
    if kind == "scale":
        parts = [*_laws(content), *parts]
    else:
        parts = [
            part for task in tasks if (part := _differences(content, task)) is not None
        ] + parts
    if content["failed"]:
        rows = [[failure["cell"], failure["error"]] for failure in content["failed"]]
        parts.append(
            _part("What failed", tables=[{"title": "", "columns": ["cell", "error"], "rows": rows}])
        )
    page = render(
        "study.html.j2",
        package="hemix.lab",
        kicker=f"Study · {content['split']} split",
        title=_TITLES[kind],
        headline=_headline(kind, content, tasks[0]),
        parts=parts,
        facts=_facts(content),
        glossary=(*wording.GLOSSARY, *_WORDS),
    )
    write_text(path, page)


def _part(
    title: str, *, text: str = "", charts: Sequence[Any] = (), tables: Sequence[Any] = ()
) -> dict[str, Any]:
    return {"title": title, "text": text, "charts": charts, "tables": tables}


def _name(label: str) -> str:
    return wording.MODEL_NAMES.get(label, label)


def _headline(kind: str, content: Mapping[str, Any], task: str) -> str:
    ranked = [
        (one["tasks"][task]["auc"]["mean"], label)
        for label, one in content["models"].items()
        if "auc" in one["tasks"].get(task, {})
    ]
    if not ranked:
        return f"{len(content['models'])} models."
    ranked.sort(reverse=True)
    first = (
        f"Of {len(ranked)}, {_name(ranked[0][1])} has the highest {wording.words(task)} AUC: "
        f"{ranked[0][0]:.4f}."
    )
    entry = next(
        (
            p
            for p in content.get("pairs", ())
            if p.get("primary") and (p["task"], p["metric"]) == (task, "auc")
        ),
        None,
    )
    if entry is None or kind != "compare":
        return first
    low, high = entry["ci95"]
    standing = (
        "is ahead of"
        if low > 0
        else "is behind"
        if high < 0
        else "is neither surely ahead of nor surely behind"
    )
    return (
        f"{first} {_name(entry['a'])} {standing} {_name(entry['b'])}: {entry['delta']:+.4f} "
        f"(95 % interval {low:+.4f} to {high:+.4f})."
    )


def _differences(content: Mapping[str, Any], task: str) -> dict[str, Any] | None:
    drawn, rows = [], []
    for metric, name in _NAMES.items():
        entries = [
            entry
            for entry in content["pairs"]
            if (entry["task"], entry["metric"]) == (task, metric)
        ]
        if not entries:
            continue
        shown = entries[:_MOST_PAIRS]
        ranges = [
            charts.Range(
                name=f"{_name(e['a'])} − {_name(e['b'])}",
                value=e["delta"],
                interval=tuple(e["ci95"]),
            )
            for e in shown
        ]
        said = "; ".join(f"{row.name} {row.value:+.4f}" for row in ranges[:6])
        better = (
            "right of the line the first is better"
            if metric != "logloss"
            else "left of the line the first is better"
        )
        svg = charts.forest(
            f"forest-{task}-{metric}",
            f"Differences of {name} of {task}: {said}.",
            ranges,
            x_label=f"difference of {name}",
        )
        drawn.append(
            {
                "title": name,
                "svg": svg,
                "caption": f"95 % intervals; {better}. Hollow: the interval holds 0.",
            }
        )
        rows += [
            [
                f"{_name(e['a'])} − {_name(e['b'])}",
                name,
                f"{e['delta']:+.5f}",
                f"{e['ci95'][0]:+.5f} to {e['ci95'][1]:+.5f}",
                f"{e['p']:.2g}",
                "primary" if e["primary"] else f"{e['p_holm']:.2g}",
            ]
            for e in entries
        ]
    if not drawn:
        return None
    columns = ["", "metric", "difference", "95 % interval", "p", "Holm"]
    return _part(
        f"Differences: {wording.words(task)}",
        charts=drawn,
        tables=[{"title": "", "columns": columns, "rows": rows}],
    )


def _models(content: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    models: Mapping[str, Any] = content["models"]
    tables = []
    for task in tasks:
        present = [
            (name, key, digits)
            for name, key, digits in _METRICS
            if any(key in one["tasks"][task] for one in models.values())
        ]
        rows = [
            [
                _name(label),
                *(
                    f"{one['tasks'][task][key]['mean']:.{digits}f}"
                    if key in one["tasks"][task]
                    else "–"
                    for _, key, digits in present
                ),
            ]
            for label, one in models.items()
        ]
        tables.append(
            {
                "title": wording.words(task),
                "columns": ["", *(name for name, _, _ in present)],
                "rows": rows,
            }
        )
    rows = [
        [
            _name(label),
            wording.count(one["dense_parameters"]),
            wording.count(one["flops_per_impression"]),
            wording.duration(one["train_seconds"]),
            wording.size(one["peak_bytes"]),
            ", ".join(
                f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
                for key, value in one["settings"].items()
            ),
        ]
        for label, one in models.items()
    ]
    columns = ["", "dense parameters", "FLOPs an impression", "training", "peak memory", "settings"]
    tables.append({"title": "What each costs", "columns": columns, "rows": rows})
    text = (
        f"Means over all runs on the {content['split']} split; leaves stand for the dense "
        "parameters of boosted trees."
    )
    return _part("All figures", text=text, tables=tables)


def _laws(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    drawn: dict[str, list[dict[str, Any]]] = {}
    for number, fit in enumerate(content["fits"]):
        points = [(p["x"], p["value"], *p["ci95"]) for p in fit["points"]]
        svg: Markup = charts.laws(
            f"law-{number}",
            f"{_NAMES[fit['metric']]} of {fit['task']} against {_axis(fit)}, {len(points)} points.",
            points,
            [tuple(pair) for pair in fit["line"]],
            x_label=_axis(fit),
            y_label=_NAMES[fit["metric"]],
        )
        title = f"{_NAMES[fit['metric']]} against {_axis(fit)}"
        drawn.setdefault(fit["task"], []).append(
            {"title": title, "svg": svg, "caption": fit["reading"]}
        )
    text = (
        "Bars are 95 % intervals over users, who are the same for all points: points differ more "
        "surely than their bars overlap."
    )
    return [_part(wording.words(task), text=text, charts=found) for task, found in drawn.items()]


def _axis(fit: Mapping[str, Any]) -> str:
    return (
        "FLOPs an impression"
        if fit["axis"] == "flops_per_impression"
        else wording.words(fit["axis"])
    )


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine = content["machine"]
    codes = sorted({cell["code"] for one in content["models"].values() for cell in one["cells"]})
    return [
        ("datasets", ", ".join(one["name"] for one in content["datasets"])),
        (
            "impressions judged",
            wording.count(sum(one["rows"][content["split"]] for one in content["datasets"])),
        ),
        ("seeds a dataset", str(len(content["seeds"][0]))),
        ("test was opened", f"{len(content['openings'])} times"),
        ("processor", f"{machine['cpu']}, {machine['cores']} cores"),
        ("memory", wording.size(machine["memory_bytes"])),
        *((name, str(value)) for name, value in content["versions"].items()),
        (
            "source of data, models and training",
            ", ".join(codes) + (": cells of several versions" if len(codes) > 1 else ""),
        ),
    ]
