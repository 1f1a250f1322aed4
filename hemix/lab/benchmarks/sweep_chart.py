"""Chart of a benchmark's sweeps: time against length or count, on logarithmic axes."""

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

__all__ = ["draw_sweeps"]

_BLUE, _BROWN = "#2563eb", "#b45309"
_SWEEPS = {
    "history_length": ("score sweep length", "events in the history"),
    "candidates": ("score sweep candidates", "candidates"),
    "impressions_per_user": ("train sweep impressions", "impressions per user"),
}
"""Key of the growth exponents -> (name of the cases, label of the axis)"""
_PANEL_INCHES = (4.2, 3.4)


def draw_sweeps(figures: Mapping[str, Any], path: Path) -> None:
    """Draw every sweep with its growth exponents, and the crossover of projections if measured.

    Args:
        figures: The JSON of ``hemix bench score --sweep`` or ``train --sweep``.
        path: The SVG file.

    Raises:
        StorageError: The file cannot be written.
    """
    growth, crossover = figures["growth"], figures.get("crossover")
    panels = len(growth) + (crossover is not None)
    figure = Figure(figsize=(_PANEL_INCHES[0] * panels, _PANEL_INCHES[1]), layout="constrained")
    FigureCanvasSVG(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for (key, exponents), ax in zip(growth.items(), axes, strict=False):
        name, label = _SWEEPS[key]
        cases = [case for case in figures["cases"] if case["name"] == name]
        _draw_sweep(ax, cases, key, exponents)
        _format_axes(ax, [case[key] for case in cases], label, "blue: growth exponents")
    if crossover is not None:
        x = [point["queries_per_history"] for point in crossover]
        _plot(
            axes[-1],
            x,
            crossover,
            {"absorbed_seconds": "absorbed", "projected_seconds": "projected"},
        )
        _format_axes(
            axes[-1],
            x,
            "queries per history",
            "projections absorbed into queries, or of keys and values",
        )
    with storage_errors(path):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_sweep(
    ax: Axes,
    cases: Sequence[Mapping[str, Any]],
    key: str,
    exponents: Sequence[Mapping[str, float]],
) -> None:
    labels = {"ours_seconds": "deduplicated", "plain_seconds": "per impression"}
    _plot(ax, [case[key] for case in cases], cases, labels)
    for (before, after), step in zip(pairwise(cases), exponents, strict=True):
        x = (before[key] * after[key]) ** 0.5
        y = (_ms(before["ours_seconds"]) * _ms(after["ours_seconds"])) ** 0.5
        ax.annotate(
            f"{step['exponent']:.2f}",
            (x, y),
            color=_BLUE,
            fontsize=7,
            ha="center",
            va="top",
            textcoords="offset points",
            xytext=(4, -6),
        )


def _plot(
    ax: Axes,
    x: Sequence[float],
    points: Sequence[Mapping[str, float]],
    labels: Mapping[str, str],
) -> None:
    """Plot one line for every key of ``labels``."""
    for (key, label), colour in zip(labels.items(), (_BLUE, _BROWN), strict=True):
        ax.plot(
            x,
            [_ms(point[key]) for point in points],
            marker="o",
            markersize=3.5,
            linewidth=1.6,
            color=colour,
            label=label,
        )


def _ms(seconds: float) -> float:
    return 1000 * seconds


def _format_axes(ax: Axes, ticks: Sequence[float], label: str, title: str) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.margins(0.08, 0.15)
    ax.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
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
