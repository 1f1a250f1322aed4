"""The sweeps of a benchmark, drawn: seconds against lengths and numbers, on logarithmic axes, with
growth exponents.

Knows the figures that a benchmark returns, nothing of what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hemix.files import storage_errors

__all__ = ["draw"]

_OURS, _PLAIN = "#2563eb", "#b45309"
_GROWTH = {
    "history_length": ("score sweep length", "events in the history"),
    "candidates": ("score sweep candidates", "candidates"),
    "impressions_per_user": ("train sweep impressions", "impressions a user"),
}
_PANEL_INCHES = (4.2, 3.4)


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Write the SVG file ``path`` with one panel a sweep of ``figures``, and one for the crossover
    where they hold it.
    """
    growth, crossover = figures["growth"], figures.get("crossover")
    panels = len(growth) + (crossover is not None)
    figure = Figure(figsize=(_PANEL_INCHES[0] * panels, _PANEL_INCHES[1]), layout="constrained")
    FigureCanvasSVG(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for (key, exponents), ax in zip(growth.items(), axes, strict=False):
        name, label = _GROWTH[key]
        cases = [case for case in figures["cases"] if case["name"] == name]
        x = [case[key] for case in cases]
        _lines(ax, x, {"user once": cases, "plain": cases}, ("ours_seconds", "plain_seconds"))
        for (before, after), step in zip(pairwise(cases), exponents, strict=True):
            place = [
                (a * b) ** 0.5
                for a, b in (
                    (before[key], after[key]),
                    (_ms(before["ours_seconds"]), _ms(after["ours_seconds"])),
                )
            ]
            ax.annotate(
                f"{step['exponent']:.2f}",
                place,
                color=_OURS,
                fontsize=7,
                ha="center",
                va="top",
                textcoords="offset points",
                xytext=(4, -6),
            )
        _finish(ax, x, label, "in blue: growth exponents of user once")
    if crossover is not None:
        points = {"absorbed": crossover, "projected": crossover}
        x = [point["queries_per_history"] for point in crossover]
        _lines(axes[-1], x, points, ("absorbed_seconds", "projected_seconds"))
        _finish(
            axes[-1],
            x,
            "queries that read a history",
            "projections at the queries, or at keys and values",
        )
    with storage_errors(path):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _lines(
    ax: Axes,
    x: Sequence[float],
    cases: Mapping[str, Sequence[Mapping[str, float]]],
    keys: tuple[str, str],
) -> None:
    for (name, rows), key, colour in zip(cases.items(), keys, (_OURS, _PLAIN), strict=True):
        ax.plot(
            x,
            [_ms(row[key]) for row in rows],
            marker="o",
            markersize=3.5,
            linewidth=1.6,
            color=colour,
            label=name,
        )


def _ms(seconds: float) -> float:
    return 1000 * seconds


def _finish(ax: Axes, measured: Sequence[float], label: str, title: str) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.margins(0.08, 0.15)
    ax.set_xticks(measured, [f"{x:,.0f}" for x in measured])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())
    if ax.get_ylim()[1] < 10 * ax.get_ylim()[0]:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.tick_params(labelsize=8)
    ax.set_xlabel(label)
    ax.set_ylabel("ms")
    ax.set_title(title, fontsize=8)
    ax.grid(True, linewidth=0.4, alpha=0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
