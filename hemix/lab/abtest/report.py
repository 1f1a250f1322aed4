"""``report.html`` of an experiment: effects with intervals, day by day, and where arms lie between
floor and ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemix.evaluation import charts, wording
from hemix.evaluation.report import render
from hemix.files import write_text

__all__ = ["write_experiment_report"]

_METRICS = {
    "pv_ctr": "PV_CTR",
    "uv_cvr": "UV_CVR",
    "gmv_per_user": "GMV per user",
    "requests_per_session": "session length, requests",
    "km_per_order": "distance travelled, km an order",
    "new_place_share": "share of new places",
}
_HEADLINE = ("pv_ctr", "uv_cvr", "gmv_per_user")
_WORDS = (
    (
        "PV_CTR",
        "Clicks over impressions shown; users are the units, so that a user's own clicks do not "
        "count as independent.",
    ),
    ("UV_CVR", "Users who ordered over users who opened the app."),
    (
        "always valid",
        "An interval that holds at all looks together: one may look every day and stop when it "
        "leaves 0 behind.",
    ),
)


def write_experiment_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write the page, atomically. Raises StorageError."""
    page = render(
        "study.html.j2",
        package="hemix.lab",
        kicker=f"Experiment · {content['plan']['design']} design",
        title="Live users, several rankers",
        headline=_headline(content),
        sections=[
            part
            for part in (
                _effects(content),
                _looks(content),
                _arms(content),
                _checks(content),
                _paused(content),
            )
            if part is not None
        ],
        facts=_facts(content),
        glossary=_WORDS,
    )
    write_text(path, page)


def _headline(content: Mapping[str, Any]) -> str:
    main = [e for e in content["effects"] if e["metric"] == "pv_ctr"]
    if not main:
        return f"{len(content['arms'])} arms."
    said = [
        f"{e['arm']} against {e['against']}: {e['relative_delta']:+.2%} ({e['ci95'][0]:+.2%} to "
        f"{e['ci95'][1]:+.2%})"
        for e in main[:3]
    ]
    return "PV_CTR, relative: " + "; ".join(said) + "."


def _effects(content: Mapping[str, Any]) -> dict[str, Any] | None:
    if not content["effects"]:
        return None
    drawn, tables = [], []
    columns = ["", "difference, %", "95 % interval", "always valid", "p"]
    for metric, name in _METRICS.items():
        entries = [e for e in content["effects"] if e["metric"] == metric]
        if not entries:
            continue
        if metric in _HEADLINE:
            ranges = [
                charts.Range(
                    name=f"{e['arm']} − {e['against']}",
                    value=100 * e["relative_delta"],
                    interval=(100 * e["ci95"][0], 100 * e["ci95"][1]),
                )
                for e in entries
            ]
            said = "; ".join(f"{row.name} {row.value:+.2f} %" for row in ranges)
            svg = charts.forest(
                f"forest-{metric}",
                f"Relative differences of {name}: {said}.",
                ranges,
                x_label="relative difference, %",
            )
            drawn.append(
                {
                    "title": name,
                    "svg": svg,
                    "caption": "95 % intervals; hollow: the interval holds 0.",
                }
            )
        rows = [
            [
                f"{e['arm']} − {e['against']}",
                f"{100 * e['relative_delta']:+.1f}",
                _span(e["ci95"]),
                _span(e["always_valid_ci95"]),
                f"{e['p']:.2g}",
            ]
            for e in entries
        ]
        tables.append({"title": name, "columns": columns, "rows": rows})
    return {"title": "Effects", "text": "", "charts": drawn, "tables": tables}


def _span(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def _looks(content: Mapping[str, Any]) -> dict[str, Any] | None:
    if content["plan"]["days"] < 2 or not content["looks"]:
        return None
    drawn = []
    pairs = list(dict.fromkeys((e["arm"], e["against"]) for e in content["looks"]))[:4]
    for metric in _HEADLINE:
        for arm, against in pairs:
            found = [
                e
                for e in content["looks"]
                if (e["metric"], e["arm"], e["against"]) == (metric, arm, against)
            ]
            if not found:
                continue
            days = [e["day"] for e in found]
            lines = [
                charts.Curve(
                    name="difference",
                    x=days,
                    y=[100 * e["relative_delta"] for e in found],
                    points=True,
                ),
                _ends("95 % interval", days, [e["ci95"] for e in found]),
                _ends("always valid", days, [e["always_valid_ci95"] for e in found]),
            ]
            name = _METRICS[metric]
            svg = charts.curves(
                f"look-{metric}-{arm}-{against}",
                f"{name} of {arm} against {against} by day.",
                lines,
                x_label="days",
                y_label=f"{name}, %",
            )
            drawn.append(
                {"title": f"{name}: {arm} − {against}", "svg": svg, "caption": "All days so far."}
            )
    return {"title": "Day by day", "text": "", "charts": drawn, "tables": []}


def _ends(name: str, days: Sequence[int], intervals: Sequence[Sequence[float]]) -> charts.Curve:
    """Lower and upper ends as one line with a gap."""
    low, high = ([100 * interval[which] for interval in intervals] for which in (0, 1))
    return charts.Curve(name=name, x=[*days, math.nan, *days], y=[*low, math.nan, *high])


def _arms(content: Mapping[str, Any]) -> dict[str, Any]:
    between = content["between_floor_and_ceiling"]
    lies = [f"{_METRICS[m]} between floor and ceiling" for m in _HEADLINE] if between else []
    rows = []
    for name, values in content["arms"].items():
        row = [name, wording.count(values["users"]), wording.count(values["requests"])]
        row += ["–" if values[m] is None else f"{values[m]:.4g}" for m in _METRICS]
        row += (
            [f"{between[name][m]:.1%}" if m in between[name] else "–" for m in _HEADLINE]
            if between
            else []
        )
        rows.append(row)
    columns = ["", "users", "requests", *_METRICS.values(), *lies]
    return {
        "title": "Arms",
        "text": "",
        "charts": [],
        "tables": [{"title": "", "columns": columns, "rows": rows}],
    }


def _checks(content: Mapping[str, Any]) -> dict[str, Any]:
    aa = content["checks"]["aa"]
    text = (
        f"A/A: {wording.count(aa['users'])} users of {aa['of']}, whom one policy served, divided "
        f"into two sides {aa['repetitions']} "
        "times: in how many divisions the 95 % interval of the difference, with CUPED, holds 0."
    )
    rows = [
        [_METRICS[m], f"{aa['covers_zero'][m]} of {count}"]
        for m, count in aa["defined"].items()
        if count
    ]
    tables = [{"title": "", "columns": ["metric", "intervals that hold 0"], "rows": rows}]
    return {"title": "Checks", "text": text, "charts": [], "tables": tables}


def _paused(content: Mapping[str, Any]) -> dict[str, Any] | None:
    if not content["paused"]:
        return None
    rows = [[name, why] for name, why in content["paused"].items()]
    return {
        "title": "Arms that did not answer",
        "text": "",
        "charts": [],
        "tables": [{"title": "", "columns": ["arm", "why"], "rows": rows}],
    }


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    plan, machine = content["plan"], content["machine"]
    facts = [
        ("users", wording.count(plan["users"])),
        ("days", str(plan["days"])),
        ("city", plan["logs"]),
    ]
    ratio = content["checks"]["sample_ratio"]
    if ratio is not None:
        facts.append(
            (
                "equal shares",
                f"p {ratio['p']:.2g}"
                + (": a mismatch, do not trust the effects" if ratio["mismatch"] else ""),
            )
        )
    if content["rankings_per_second"]:
        facts.append(("rankings a second", f"{content['rankings_per_second']:.0f}"))
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB of memory"
    versions = ", ".join(f"{name} {found}" for name, found in content["versions"].items())
    return [
        *facts,
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, {memory}"),
        ("versions", versions),
    ]
