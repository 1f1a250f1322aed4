"""Sections of the report: headline, tiles, metrics, charts, slices and importance.

Every function takes a split's entry of metrics.json, or one of its values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hemix.evaluation import charts, wording
from hemix.evaluation.position_chart import position_chart

__all__ = [
    "auc_chart",
    "curve_charts",
    "headline",
    "importance_charts",
    "position_sections",
    "slice_tables",
    "task_section",
    "tiles",
]

_MAX_BARS = 25
_MIN_OF_A_CLASS = 10
"""Slices with fewer positives or negatives show no AUC: it would be noise."""

_CURVES = (
    ("loss", "loss", ("loss", "train"), ("valid_loss", "valid")),
    (
        "progressive-auc",
        "AUC",
        ("progressive_auc", "train, before learning"),
        ("valid_auc", "valid"),
    ),
)
"""(name, title, (key, label) of the line, (key, label) of the points)."""

_BASELINE_REMARKS = {
    "popularity": "ranks by the item’s rate in training",
    "position": "ranks by the position’s rate in training",
    "touched_before": "a rule of last match, match counts and position",
}

Task = Mapping[str, Any]


def headline(first: tuple[str, Task] | None, split: str | None) -> str | None:
    """One sentence on the AUC of the first task.

    Args:
        first: Name and metrics of the first task.
        split: Name of the split.

    Returns:
        The sentence; None without an AUC.
    """
    if first is None or "auc" not in first[1]:
        return None
    name, task = first
    return (
        f"Of two impressions of the {split} split, one with {wording.article(name)} and one "
        f"without, it ranks the right one higher in {wording.percent(task['auc'], 1)} of the cases."
    )


def tiles(first: tuple[str, Task] | None, metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The key figures.

    Args:
        first: Name and metrics of the first task.
        metrics: The content of metrics.json.

    Returns:
        (name, value, remark) of every tile.
    """
    result = []
    if first is not None:
        name, task = first
        if "auc" in task:
            remark = ""
            if "auc_ci95" in task:
                remark = "95 % interval {:.4f} to {:.4f}".format(*task["auc_ci95"])
            result.append((f"AUC of {wording.words(name)}", f"{task['auc']:.4f}", remark))
        result += [
            (wording.BASELINE_NAMES[name], f"{task[f'{name}_auc']:.4f}", remark)
            for name, remark in _BASELINE_REMARKS.items()
            if f"{name}_auc" in task
        ]
        if "oracle_auc" in task:
            remark = "knows the simulation’s true probabilities"
            result.append(("oracle", f"{task['oracle_auc']:.4f}", remark))
    if metrics.get("train_seconds") is not None:
        counts = [metrics.get(f"{kind}_parameters") for kind in ("dense", "embedding")]
        parameters = [count for count in counts if count is not None]
        remark = f"for {wording.count(sum(parameters))} parameters" if parameters else ""
        result.append(("trained in", wording.duration(metrics["train_seconds"]), remark))
    return result


def task_section(name: str, task: Task) -> dict[str, Any]:
    """Metrics and calibration of one task.

    Args:
        name: The task's name.
        task: Its metrics.

    Returns:
        ``{"name", "label", "metrics", "calibration": chart, "reading": caption}``.
    """
    label = wording.words(name)
    points = task.get("calibration") or []
    chart = None
    if points:
        ends = ", ".join(
            f"{wording.percent(p['prediction'])} predicted, {wording.percent(p['rate'])} observed"
            for p in (points[0], points[-1])
        )
        chart = charts.calibration_chart(
            f"calibration-{_element_id(name)}",
            f"Calibration of {label}: observed rate against mean prediction in {len(points)} bins "
            f"of equal size. {ends}",
            [(p["prediction"], p["rate"], p.get("standard_error", 0.0)) for p in points],
        )
    return {
        "name": name,
        "label": label,
        "metrics": task,
        "calibration": chart,
        "reading": _calibration_caption(task),
    }


def _calibration_caption(task: Task) -> str | None:
    if "pcoc" not in task:
        return None
    pcoc = task["pcoc"]
    if abs(pcoc - 1) < 0.01:
        total = "In total the model predicts as many positives as there are"
    else:
        direction = "more" if pcoc > 1 else "fewer"
        excess = wording.percent(abs(pcoc - 1), 1)
        total = f"In total the model predicts {excess} {direction} positives than there are"
    if "ece" not in task or "ece_floor" not in task:
        return f"{total} (PCOC {pcoc:.3f})."
    return (
        f"{total} (PCOC {pcoc:.3f}). The average bin is off by {wording.points(task['ece'])}; a "
        f"perfectly calibrated model would show {wording.points(task['ece_floor'])} by chance."
    )


def auc_chart(tasks: Mapping[str, Task]) -> Markup | None:
    """AUC of every task between popularity and oracle; None where there is only the AUC."""
    rows = [
        charts.Range(
            name=wording.words(name),
            value=task["auc"],
            interval=tuple(task["auc_ci95"]) if "auc_ci95" in task else None,
            floor=task.get("popularity_auc"),
            ceiling=task.get("oracle_auc"),
        )
        for name, task in tasks.items()
        if "auc" in task
    ]
    if all(row.floor is None and row.ceiling is None and row.interval is None for row in rows):
        return None
    texts = [
        f"{row.name}: model {row.value:.4f}"
        + (f", popularity {row.floor:.4f}" if row.floor is not None else "")
        + (f", oracle {row.ceiling:.4f}" if row.ceiling is not None else "")
        for row in rows
    ]
    return charts.interval_chart("auc", f"AUC by task. {'; '.join(texts)}.", rows, x_label="AUC")


def curve_charts(log: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Learning curves of loss and AUC from the records of log.jsonl."""
    result = []
    for name, title, line, points in _CURVES:
        curves = [
            curve
            for (key, label), is_points in ((line, False), (points, True))
            if (curve := _curve(log, key, label, is_points)) is not None
        ]
        if not curves:
            continue
        ends = "; ".join(f"{c.name} from {c.y[0]:.4f} to {c.y[-1]:.4f}" for c in curves)
        result.append(
            charts.curve_chart(
                f"curve-{name}",
                f"Learning curve, {title}: {ends}.",
                curves,
                x_label="step",
                y_label=title,
            )
        )
    return result


def _curve(
    log: Sequence[Mapping[str, Any]], key: str, label: str, points: bool
) -> charts.Curve | None:
    pairs = [
        (record["step"], record[key])
        for record in log
        if wording.is_number(record.get("step")) and wording.is_number(record.get(key))
    ]
    if not pairs:
        return None
    x, y = zip(*pairs, strict=True)
    return charts.Curve(name=label, x=x, y=y, points=points)


def position_sections(tasks: Mapping[str, Task]) -> list[dict[str, Any]]:
    """Rate and prediction by position, of the tasks that have them.

    Args:
        tasks: Metrics by task.

    Returns:
        ``{"label", "chart", "rows"}`` of every task with at least two positions.
    """
    result: list[dict[str, Any]] = []
    for name, task in tasks.items():
        rows = task.get("by_position") or []
        if len(rows) < 2:
            continue
        label = wording.words(name)
        ends = "; ".join(
            f"position {row['position']}: {wording.percent(row['rate'])} observed, "
            f"{wording.percent(row['prediction'])} predicted"
            for row in (rows[0], rows[-1])
        )
        chart = position_chart(
            f"position-{_element_id(name)}", f"Rate of {label} by position. {ends}.", rows
        )
        result.append({"label": label, "chart": chart, "rows": rows})
    return result


def slice_tables(
    slices: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]
) -> list[dict[str, Any]]:
    """Tables of slices, one a task; a dimension with one slice is left out.

    Args:
        slices: ``{dimension: {slice: entry}}`` of the split.
        tasks: Names of the tasks.

    Returns:
        ``{"label", "groups": [{"title", "rows"}], "has_oracle"}`` of every task with slices.
    """
    tables = []
    for task in tasks:
        groups: list[dict[str, Any]] = []
        for dimension, entries in slices.items():
            rows = [
                {"name": wording.slice_name(dimension, name), **_slice_row(entry["tasks"][task])}
                for name, entry in entries.items()
                if task in entry.get("tasks", {})
            ]
            if len(rows) > 1:
                title = wording.SLICE_TITLES.get(dimension, wording.words(dimension))
                groups.append({"title": title, "rows": rows})
        if groups:
            has_oracle = any(
                row["oracle_auc"] is not None for group in groups for row in group["rows"]
            )
            tables.append(
                {"label": wording.words(task), "groups": groups, "has_oracle": has_oracle}
            )
    return tables


def _slice_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    rows, positives = entry.get("rows", 0), entry.get("positives", 0)
    enough = min(positives, rows - positives) >= _MIN_OF_A_CLASS
    metrics = ("auc", "auc_standard_error", "oracle_auc", "ne", "pcoc")
    return {
        "rows": rows,
        "rate": positives / rows if rows else None,
        **{metric: entry.get(metric) if enough else None for metric in metrics},
    }


def importance_charts(content: Any, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Permutation importance as bars, the most important features first.

    Args:
        content: Entries of the first task, or ``{task: entries}``.
        tasks: Names of the tasks.

    Returns:
        ``{"label", "chart", "left_out": features without a bar}`` of every task.
    """
    if not content:
        return []
    entries_by_task: Mapping[str, Sequence[Mapping[str, Any]]] = (
        content
        if isinstance(content, Mapping)
        else {(tasks[0] if tasks else "first task"): content}
    )
    result: list[dict[str, Any]] = []
    for task, entries in entries_by_task.items():
        if not entries:
            continue
        entries = sorted(entries, key=lambda entry: -entry["auc_drop"])
        rows = [
            (entry["feature"], entry["auc_drop"], entry.get("auc_drop_deviation", 0.0))
            for entry in entries[:_MAX_BARS]
        ]
        label = wording.words(task)
        drops = ", ".join(f"{name} {drop:.4f}" for name, drop, _ in rows[:5])
        chart = charts.bar_chart(
            f"importance-{_element_id(task)}",
            f"AUC lost for {label}: {drops}",
            rows,
            x_label="AUC lost",
        )
        result.append({"label": label, "chart": chart, "left_out": len(entries) - len(rows)})
    return result


def _element_id(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name)
