"""Charts of a report: curves, ranges, calibration, bars, forest plots and scaling laws.

Every function takes plain numbers, a ``name`` that is unique in the page and the text alternative
``alt``, and returns inline SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from hemix.evaluation.intervals import NORMAL_97_5
from hemix.evaluation.svg import (
    GRID,
    INK,
    MODEL,
    MUTED,
    ORACLE,
    PAPER,
    SECOND,
    chart_style,
    new_figure,
    to_svg,
)

__all__ = [
    "Curve",
    "Range",
    "bar_chart",
    "calibration_chart",
    "curve_chart",
    "forest_plot",
    "interval_chart",
    "scaling_law_chart",
]

_STEPS = [1, 2, 2.5, 5, 10]
"""Tick distances, times a power of ten."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of a chart over steps; with ``points`` single measurements."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    points: bool = False


@dataclass(frozen=True, kw_only=True)
class Range:
    """A row of :func:`interval_chart` or :func:`forest_plot`: a value with interval and limits."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    floor: float | None = None
    """A trivial baseline."""
    ceiling: float | None = None
    """The best value possible."""


def curve_chart(
    name: str, alt: str, lines: Sequence[Curve], *, x_label: str, y_label: str
) -> Markup:
    """Lines and points over a common x axis.

    Long noisy lines are drawn faint, with their moving mean on top.

    Args:
        name: Unique in the page.
        alt: Text alternative.
        lines: In the order of the legend.
        x_label: Name of the x axis.
        y_label: Title of the chart.

    Returns:
        Inline SVG.
    """
    with chart_style():
        figure, axes = new_figure(3.1)
        for line, colour in zip(lines, (MODEL, SECOND, ORACLE, MUTED), strict=False):
            x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
            if line.points:
                axes.plot(
                    x, y, color=colour, marker="o", markersize=5.5, linewidth=1.0, label=line.name
                )
                continue
            window = max(1, len(y) // 30)
            if window > 1:
                axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.3)
            axes.plot(
                x, _moving_mean(y, window) if window > 1 else y, color=colour, label=line.name
            )
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", fontsize=9.5, color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=_STEPS))
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=3,
            borderaxespad=0.1,
            columnspacing=1.0,
            labelcolor=INK,
        )
        return to_svg(figure, name, alt)


def interval_chart(name: str, alt: str, rows: Sequence[Range], *, x_label: str) -> Markup:
    """Floor, value with interval and ceiling along one axis, one line a row.

    Args:
        name: Unique in the page.
        alt: Text alternative.
        rows: From top to bottom.
        x_label: Name of the x axis.

    Returns:
        Inline SVG.
    """
    with chart_style():
        figure, axes = new_figure(0.95 + 0.42 * len(rows))
        for height, row in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
            ends = [v for v in (row.floor, row.value, row.ceiling) if v is not None]
            axes.plot(
                [min(ends), max(ends)],
                [height, height],
                color=GRID,
                linewidth=5,
                solid_capstyle="round",
                zorder=1,
            )
            if row.floor is not None:
                axes.plot(
                    row.floor,
                    height,
                    "o",
                    color=MUTED,
                    markerfacecolor=PAPER,
                    markersize=7,
                    zorder=3,
                )
            if row.ceiling is not None:
                axes.plot(row.ceiling, height, "D", color=ORACLE, markersize=6, zorder=3)
            if row.interval is not None:
                axes.plot(row.interval, [height, height], color=MODEL, linewidth=2.4, zorder=2)
            axes.plot(row.value, height, "o", color=MODEL, markersize=8, zorder=4)
        _name_rows(axes, [_short(row.name) for row in rows])
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=_STEPS))
        axes.set_xlabel(x_label)
        return to_svg(figure, name, alt)


def calibration_chart(name: str, alt: str, points: Sequence[tuple[float, float, float]]) -> Markup:
    """Observed rate of bins against their mean prediction, with the diagonal.

    Axes are logarithmic where the values span more than a factor of 15.

    Args:
        name: Unique in the page.
        alt: Text alternative.
        points: (mean prediction, observed rate, standard error) of every bin.

    Returns:
        Inline SVG.
    """
    with chart_style():
        figure, axes = new_figure(4.0)
        p, rate, error = (np.asarray(column, dtype=float) for column in zip(*points, strict=True))
        both = np.concatenate([p, rate])
        logarithmic = bool(both.min() > 0) and both.max() / both.min() > 15
        if logarithmic:
            low, high = both.min() / 1.6, min(both.max() * 1.6, 1.0)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_yticks(_log_ticks(low, high))
            axes.set_xticks(_log_ticks(low, high))
        else:
            low, high = 0.0, min(both.max() * 1.12, 1.0) or 1.0
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=_STEPS))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=_STEPS))
        axes.plot(
            [low, high],
            [low, high],
            color=MUTED,
            linewidth=1.0,
            linestyle=(0, (4, 3)),
            label="perfect",
        )
        half_width = NORMAL_97_5 * error
        below = np.minimum(half_width, rate - low * 0.999 if logarithmic else rate)
        axes.errorbar(
            p,
            rate,
            yerr=[np.maximum(below, 0), half_width],
            fmt="o",
            color=MODEL,
            ecolor=MODEL,
            markersize=6,
            elinewidth=1.4,
            label="this model",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("mean prediction")
        axes.set_title("observed rate", loc="left", fontsize=9.5, color=MUTED)
        axes.legend(loc="upper left", labelcolor=INK)
        return to_svg(figure, name, alt)


def bar_chart(
    name: str, alt: str, rows: Sequence[tuple[str, float, float]], *, x_label: str
) -> Markup:
    """Horizontal bars with their deviations.

    Args:
        name: Unique in the page.
        alt: Text alternative.
        rows: (name, value, deviation) from top to bottom.
        x_label: Name of the x axis.

    Returns:
        Inline SVG.
    """
    with chart_style():
        figure, axes = new_figure(0.75 + 0.245 * len(rows))
        heights = np.arange(len(rows))[::-1]
        values, deviations = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
        axes.barh(heights, values, height=0.62, color=MODEL)
        axes.errorbar(
            values, heights, xerr=deviations, fmt="none", ecolor=INK, elinewidth=1.0, alpha=0.65
        )
        axes.axvline(0, color=MUTED, linewidth=0.8)
        _name_rows(axes, [_short(row[0]) for row in rows])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_xlabel(x_label)
        return to_svg(figure, name, alt)


def forest_plot(name: str, alt: str, rows: Sequence[Range], *, x_label: str) -> Markup:
    """Forest plot: differences with their intervals and a line at 0.

    A difference whose interval holds 0 is hollow.

    Args:
        name: Unique in the page.
        alt: Text alternative.
        rows: From top to bottom.
        x_label: Name of the x axis.

    Returns:
        Inline SVG.
    """
    with chart_style():
        figure, axes = new_figure(0.85 + 0.3 * len(rows))
        axes.axvline(0, color=MUTED, linewidth=1.0)
        for height, row in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
            low, high = row.interval or (row.value, row.value)
            axes.plot([low, high], [height, height], color=MODEL, linewidth=2.0, zorder=2)
            face = PAPER if low <= 0 <= high else MODEL
            axes.plot(
                row.value, height, "o", color=MODEL, markerfacecolor=face, markersize=6.5, zorder=3
            )
        _name_rows(axes, [_short(row.name, 36) for row in rows])
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=_STEPS))
        axes.set_xlabel(x_label)
        return to_svg(figure, name, alt)


def scaling_law_chart(
    name: str,
    alt: str,
    points: Sequence[tuple[float, float, float, float]],
    line: Sequence[tuple[float, float]],
    *,
    x_label: str,
    y_label: str,
) -> Markup:
    """Measurements over a logarithmic x axis, with the power law fitted to them.

    Args:
        name: Unique in the page.
        alt: Text alternative.
        points: (x, value, low, high) of every measurement.
        line: (x, value) along the fitted law; empty without a fit.
        x_label: Name of the x axis.
        y_label: Title of the chart.

    Returns:
        Inline SVG.
    """
    with chart_style():
        figure, axes = new_figure(3.1)
        x, y, low, high = (np.asarray(column, dtype=float) for column in zip(*points, strict=True))
        if line:
            axes.plot(*zip(*line, strict=True), color=SECOND, label="fit")
        axes.errorbar(
            x,
            y,
            yerr=[y - low, high - y],
            fmt="o",
            color=MODEL,
            markersize=6,
            elinewidth=1.4,
            label="measured",
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _rounded(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", fontsize=9.5, color=MUTED)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=_STEPS))
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1, labelcolor=INK
        )
        return to_svg(figure, name, alt)


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    """Label the rows from top to bottom and hide the y axis."""
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(range(len(names) - 1, -1, -1), names, color=INK)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _rounded(count: float) -> str:
    """30, 100 k, 10 M"""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return f"{count:g}"


def _moving_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean of the last ``window`` values, of fewer at the beginning."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    mean: npt.NDArray[np.float64] = (total[ends] - total[starts]) / (ends - starts)
    return mean


def _log_ticks(low: float, high: float) -> list[float]:
    steps = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [m * 10.0**e for e in decades for m in steps if low <= m * 10.0**e <= high]


def _short(text: str, max_length: int = 30) -> str:
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
