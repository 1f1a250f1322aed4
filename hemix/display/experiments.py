"""Simulated A/B tests: their power before they run, then arms and effects as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hemix.display.tables import (
    format_metric,
    render_table,
    text_table,
    undefined_difference_lines,
)

__all__ = ["experiment_table", "power_line"]

_POWER_METRICS = {"pv_ctr": "PV_CTR", "uv_cvr": "UV_CVR", "gmv_per_user": "GMV per user"}
_ARM_METRICS = {
    "pv_ctr": ".4f",
    "uv_cvr": ".4f",
    "gmv_per_user": ".2f",
    "requests_per_session": ".2f",
    "km_per_order": ".2f",
    "new_place_share": ".3f",
}


def power_line(detectable: Mapping[str, float | None], design: str) -> str:
    """Which differences an experiment can detect, before it runs.

    Args:
        detectable: By metric the smallest relative difference; None where it is unknown.
        design: ``paired`` or another design.

    Returns:
        One line.
    """
    differences = ", ".join(
        f"{name} {detectable[key]:.1%}"
        for key, name in _POWER_METRICS.items()
        if detectable.get(key) is not None
    )
    remark = ", less between similar arms" if design == "paired" else "; CUPED may help"
    return (
        f"80 % power for relative differences of: {differences or 'nothing, too few users'}{remark}"
    )


def experiment_table(content: Mapping[str, Any]) -> str:
    """Metrics of the arms, effects with intervals, and checks. ``content`` is experiment.json."""
    lines = [_arms_table(content)]
    if content["effects"]:
        lines.append(_effects_table(content))
    lines += undefined_difference_lines(content.get("absent_effects", ()), "arm", "against")
    lines += [
        f"{name} was left out from some point on: {reason}"
        for name, reason in content["paused"].items()
    ]
    return "\n".join([*lines, *_check_lines(content)])


def _arms_table(content: Mapping[str, Any]) -> str:
    plan = content["plan"]
    metrics = [name.replace("_", " ") for name in _ARM_METRICS]
    table = text_table(
        f"{plan['design']} design, {plan['days']} days",
        ["arm", "users", "requests", *metrics],
        left=["arm"],
    )
    for name, arm in content["arms"].items():
        table.add_row(
            name,
            f"{arm['users']:,}",
            f"{arm['requests']:,}",
            *(format_metric(arm[key], form) for key, form in _ARM_METRICS.items()),
        )
    return render_table(table)


def _effects_table(content: Mapping[str, Any]) -> str:
    columns = ["", "metric", "relative", "95 % interval", "always valid", "p"]
    table = text_table("differences", columns, left=["", "metric"])
    for effect in content["effects"]:
        intervals = (
            f"{effect[key][0]:+.2%} to {effect[key][1]:+.2%}"
            for key in ("ci95", "always_valid_ci95")
        )
        table.add_row(
            f"{effect['arm']} - {effect['against']}",
            effect["metric"],
            f"{effect['relative_delta']:+.2%}",
            *intervals,
            f"{effect['p']:.2g}",
        )
    return render_table(table)


def _check_lines(content: Mapping[str, Any]) -> list[str]:
    lines = []
    ratio, aa = content["checks"]["sample_ratio"], content["checks"]["aa"]
    if ratio is not None and ratio["mismatch"]:
        lines.append(f"sample ratio mismatch (p {ratio['p']:.2g}): do not trust these effects")
    covered = ", ".join(
        f"{metric} {aa['covers_zero'][metric]} of {count}"
        for metric, count in aa["defined"].items()
        if count
    )
    lines.append(
        f"A/A, {aa['users']:,} users of {aa['of']} divided {aa['repetitions']} times; intervals "
        f"that hold 0: {covered}"
    )
    if content["rankings_per_second"]:
        lines.append(f"{content['rankings_per_second']:.0f} rankings a second")
    return lines
