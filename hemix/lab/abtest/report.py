"""Write ``report.html`` of an experiment: effects with intervals, by day, arms and checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemix.evaluation import charts, wording
from hemix.evaluation.report import render
from hemix.files import write_text

__all__ = ["write_experiment_report"]

_METRIC_TITLES = {
    "pv_ctr": "PV_CTR",
    "uv_cvr": "UV_CVR",
    "gmv_per_user": "GMV per user",
    "requests_per_session": "requests per session",
    "km_per_order": "distance per order, km",
    "new_place_share": "fraction of orders at new venues",
}
_HEADLINE_METRICS = ("pv_ctr", "uv_cvr", "gmv_per_user")
_MAX_CHART_PAIRS = 4
_MAX_HEADLINE_PAIRS = 3
_NOT_DEFINED = "–"
_GLOSSARY = (
    (
        "PV_CTR",
        "Clicks divided by impressions. Intervals treat users, not impressions, as independent.",
    ),
    ("UV_CVR", "Users who ordered divided by users who opened the app."),
    (
        "always valid",
        "An interval that holds at all looks together: you may look every day, and stop as soon "
        "as it excludes 0.",
    ),
)


def write_experiment_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write the page atomically.

    Args:
        path: File to write.
        content: Content of experiment.json.

    Raises:
        StorageError: If the disk cannot be written.
    """
    sections = (
        _effects_section(content),
        _days_section(content),
        _arms_section(content),
        _checks_section(content),
        _paused_section(content),
    )
    page = render(
        "study.html.j2",
        package="hemix.lab",
        kicker=f"Experiment · {content['plan']['design']} design",
        title="Simulated A/B test",
        headline=_headline(content),
        sections=[section for section in sections if section is not None],
        facts=_facts(content),
        glossary=_GLOSSARY,
    )
    write_text(path, page)


def _section(
    title: str, *, text: str = "", charts: Sequence[Any] = (), tables: Sequence[Any] = ()
) -> dict[str, Any]:
    return {"title": title, "text": text, "charts": charts, "tables": tables}


def _table(columns: Sequence[str], rows: Sequence[Any], title: str = "") -> dict[str, Any]:
    return {"title": title, "columns": columns, "rows": rows}


def _headline(content: Mapping[str, Any]) -> str:
    effects = [effect for effect in content["effects"] if effect["metric"] == "pv_ctr"]
    if not effects:
        return f"{len(content['arms'])} arms."
    texts = []
    for effect in effects[:_MAX_HEADLINE_PAIRS]:
        low, high = effect["ci95"]
        texts.append(
            f"{effect['arm']} against {effect['against']}: {effect['relative_delta']:+.2%} "
            f"({low:+.2%} to {high:+.2%})"
        )
    return "PV_CTR, relative: " + "; ".join(texts) + "."


def _pair_title(effect: Mapping[str, Any]) -> str:
    return f"{effect['arm']} − {effect['against']}"


def _effects_section(content: Mapping[str, Any]) -> dict[str, Any] | None:
    if not content["effects"]:
        return None
    forests, tables = [], []
    columns = ["", "difference, %", "95 % interval", "always valid", "p"]
    for metric, title in _METRIC_TITLES.items():
        effects = [effect for effect in content["effects"] if effect["metric"] == metric]
        if not effects:
            continue
        if metric in _HEADLINE_METRICS:
            forests.append(_forest(metric, effects))
        rows = [
            [
                _pair_title(effect),
                f"{100 * effect['relative_delta']:+.1f}",
                _interval_text(effect["ci95"]),
                _interval_text(effect["always_valid_ci95"]),
                f"{effect['p']:.2g}",
            ]
            for effect in effects
        ]
        tables.append(_table(columns, rows, title))
    return _section("Effects", charts=forests, tables=tables)


def _forest(metric: str, effects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    title = _METRIC_TITLES[metric]
    ranges = [
        charts.Range(
            name=_pair_title(effect),
            value=100 * effect["relative_delta"],
            interval=(100 * effect["ci95"][0], 100 * effect["ci95"][1]),
        )
        for effect in effects
    ]
    values = "; ".join(f"{row.name} {row.value:+.2f} %" for row in ranges)
    svg = charts.forest_plot(
        f"forest-{metric}",
        f"Relative differences of {title}: {values}.",
        ranges,
        x_label="relative difference, %",
    )
    caption = "95 % intervals; hollow: the interval contains 0."
    return {"title": title, "svg": svg, "caption": caption}


def _interval_text(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def _days_section(content: Mapping[str, Any]) -> dict[str, Any] | None:
    if content["plan"]["days"] < 2 or not content["looks"]:
        return None
    pairs = list(dict.fromkeys((look["arm"], look["against"]) for look in content["looks"]))
    figures = []
    for metric in _HEADLINE_METRICS:
        for pair in pairs[:_MAX_CHART_PAIRS]:
            looks = [
                look
                for look in content["looks"]
                if (look["metric"], look["arm"], look["against"]) == (metric, *pair)
            ]
            if looks:
                figures.append(_looks_figure(metric, looks))
    return _section("Day by day", charts=figures)


def _looks_figure(metric: str, looks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    title, arm, base = _METRIC_TITLES[metric], looks[0]["arm"], looks[0]["against"]
    days = [look["day"] for look in looks]
    differences = [100 * look["relative_delta"] for look in looks]
    curves = [
        charts.Curve(name="difference", x=days, y=differences, points=True),
        _interval_curve("95 % interval", days, [look["ci95"] for look in looks]),
        _interval_curve("always valid", days, [look["always_valid_ci95"] for look in looks]),
    ]
    svg = charts.curve_chart(
        f"look-{metric}-{arm}-{base}",
        f"{title} of {arm} against {base} by day.",
        curves,
        x_label="days",
        y_label=f"{title}, %",
    )
    caption = "Each point uses all days up to it."
    return {"title": f"{title}: {_pair_title(looks[0])}", "svg": svg, "caption": caption}


def _interval_curve(
    name: str, days: Sequence[int], intervals: Sequence[Sequence[float]]
) -> charts.Curve:
    """Lower and upper ends as one line with a gap."""
    low, high = ([100 * interval[end] for interval in intervals] for end in (0, 1))
    return charts.Curve(name=name, x=[*days, math.nan, *days], y=[*low, math.nan, *high])


def _arms_section(content: Mapping[str, Any]) -> dict[str, Any]:
    positions = content["between_floor_and_ceiling"]
    position_metrics = _HEADLINE_METRICS if positions else ()
    rows = []
    for name, values in content["arms"].items():
        row = [name, wording.count(values["users"]), wording.count(values["requests"])]
        row += [
            _NOT_DEFINED if values[metric] is None else f"{values[metric]:.4g}"
            for metric in _METRIC_TITLES
        ]
        row += [
            f"{positions[name][metric]:.1%}" if metric in positions[name] else _NOT_DEFINED
            for metric in position_metrics
        ]
        rows.append(row)
    columns = ["", "users", "requests", *_METRIC_TITLES.values()]
    columns += [
        f"{_METRIC_TITLES[metric]} between popularity and oracle" for metric in position_metrics
    ]
    return _section("Arms", tables=[_table(columns, rows)])


def _checks_section(content: Mapping[str, Any]) -> dict[str, Any]:
    aa = content["checks"]["aa"]
    text = (
        f"A/A: {wording.count(aa['users'])} users of {aa['of']}, who all had the same ranker, were "
        f"split into two sides {aa['repetitions']} times. The table counts the splits in which the "
        "95 % interval of the difference, with CUPED, contains 0."
    )
    rows = [
        [_METRIC_TITLES[metric], f"{aa['covers_zero'][metric]} of {count}"]
        for metric, count in aa["defined"].items()
        if count
    ]
    return _section(
        "Checks", text=text, tables=[_table(["metric", "intervals that contain 0"], rows)]
    )


def _paused_section(content: Mapping[str, Any]) -> dict[str, Any] | None:
    if not content["paused"]:
        return None
    rows = [[name, reason] for name, reason in content["paused"].items()]
    return _section("Arms that did not answer", tables=[_table(["arm", "reason"], rows)])


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    plan, machine = content["plan"], content["machine"]
    facts = [
        ("users", wording.count(plan["users"])),
        ("days", str(plan["days"])),
        ("city", plan["logs"]),
    ]
    ratio = content["checks"]["sample_ratio"]
    if ratio is not None:
        warning = ": a mismatch, do not trust the effects" if ratio["mismatch"] else ""
        facts.append(("equal arm sizes", f"p {ratio['p']:.2g}{warning}"))
    if content["rankings_per_second"]:
        facts.append(("rankings per second", f"{content['rankings_per_second']:.0f}"))
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB of memory"
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return [
        *facts,
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, {memory}"),
        ("versions", versions),
    ]
