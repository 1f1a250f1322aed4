"""Charts of a report, as inline SVG: no script, no external resource, text stays text, colours
follow the reader's theme.

Every function takes plain numbers and returns SVG for an HTML page whose style sheet defines the
variables of ``_COLOURS``. This module knows nothing of runs, files or templates.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

__all__ = ["Curve", "Range", "bars", "calibration", "curves", "forest", "laws", "ranges"]

INK, MUTED, GRID, MODEL, SECOND, ORACLE, PAPER = (f"#0{i}0{i}0{i}" for i in range(1, 8))
_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    MODEL: "var(--model)",
    SECOND: "var(--second)",
    ORACLE: "var(--oracle)",
    PAPER: "var(--paper)",
}
"""Colours that stand in the drawing for the style sheet's, which know light and dark."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hemix",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.8,
}
_WIDTH = 5.4
"""Inches at 72 to the inch: readable without scaling on a phone, two beside each other on a
desk.
"""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line, or with ``points`` single measurements, of a chart over steps."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    points: bool = False


@dataclass(frozen=True, kw_only=True)
class Range:
    """One row of :func:`ranges`: a value with its interval, and what to hold it against."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    floor: float | None = None
    ceiling: float | None = None


def curves(name: str, alt: str, lines: Sequence[Curve], *, x_label: str, y_label: str) -> Markup:
    """Lines and points over a shared axis.

    Long noisy lines are drawn faint, with their moving mean on top.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(3.1)
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
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=3,
            borderaxespad=0.1,
            columnspacing=1.0,
            labelcolor=INK,
        )
        return _svg(figure, name, alt)


def ranges(name: str, alt: str, rows: Sequence[Range], *, x_label: str) -> Markup:
    """One line a row: floor, value with interval, ceiling, along one axis."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(0.95 + 0.42 * len(rows))
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
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_yticks(range(len(rows) - 1, -1, -1), [_short(row.name) for row in rows], color=INK)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        axes.set_xlabel(x_label)
        return _svg(figure, name, alt)


def calibration(name: str, alt: str, points: Sequence[tuple[float, float, float]]) -> Markup:
    """(mean prediction, observed rate, standard error) of bins against the diagonal; logarithmic
    where they span much.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(4.0)
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
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        axes.plot(
            [low, high],
            [low, high],
            color=MUTED,
            linewidth=1.0,
            linestyle=(0, (4, 3)),
            label="perfect",
        )
        below = (
            np.minimum(1.96 * error, rate - low * 0.999)
            if logarithmic
            else np.minimum(1.96 * error, rate)
        )
        axes.errorbar(
            p,
            rate,
            yerr=[np.maximum(below, 0), 1.96 * error],
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
        return _svg(figure, name, alt)


def bars(name: str, alt: str, rows: Sequence[tuple[str, float, float]], *, x_label: str) -> Markup:
    """Horizontal bars of (name, value, deviation), in the order given."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(0.75 + 0.245 * len(rows))
        heights = np.arange(len(rows))[::-1]
        values, deviations = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
        axes.barh(heights, values, height=0.62, color=MODEL)
        axes.errorbar(
            values, heights, xerr=deviations, fmt="none", ecolor=INK, elinewidth=1.0, alpha=0.65
        )
        axes.set_yticks(heights, [_short(row[0]) for row in rows], color=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_xlabel(x_label)
        return _svg(figure, name, alt)


def forest(name: str, alt: str, rows: Sequence[Range], *, x_label: str) -> Markup:
    """Differences with their intervals against a line at 0; one whose interval holds 0 is
    hollow.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(0.85 + 0.3 * len(rows))
        axes.axvline(0, color=MUTED, linewidth=1.0)
        for height, row in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
            low, high = row.interval or (row.value, row.value)
            axes.plot([low, high], [height, height], color=MODEL, linewidth=2.0, zorder=2)
            face = PAPER if low <= 0 <= high else MODEL
            axes.plot(
                row.value, height, "o", color=MODEL, markerfacecolor=face, markersize=6.5, zorder=3
            )
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_yticks(
            range(len(rows) - 1, -1, -1), [_short(row.name, 36) for row in rows], color=INK
        )
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        axes.set_xlabel(x_label)
        return _svg(figure, name, alt)


def laws(
    name: str,
    alt: str,
    points: Sequence[tuple[float, float, float, float]],
    line: Sequence[tuple[float, float]],
    *,
    x_label: str,
    y_label: str,
) -> Markup:
    """Measurements (x, value, low, high) over a logarithmic x, with the line (x, value) of the law
    fitted to them.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(3.1)
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
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1, labelcolor=INK
        )
        return _svg(figure, name, alt)


def _rounded(count: float) -> str:
    """30, 100 k, 10 M"""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return f"{count:g}"


def _figure(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH, height), dpi=72, layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _moving_mean(values: np.ndarray[Any, Any], window: int) -> np.ndarray[Any, Any]:
    """Mean of the last ``window`` values, of fewer at the beginning."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    mean: np.ndarray[Any, Any] = (total[ends] - total[starts]) / (ends - starts)
    return mean


def _log_ticks(low: float, high: float) -> list[float]:
    steps = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [m * 10.0**e for e in decades for m in steps if low <= m * 10.0**e <= high]


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _svg(figure: Figure, name: str, alt: str) -> Markup:
    """The drawing as an inline element: ids made unique by ``name``, standing colours replaced,
    sizes left to the page.
    """
    stream = io.StringIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text; that matplotlib's own lacks a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(stream, format="svg", transparent=True)
    text = stream.getvalue()
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", body, flags=re.S)
    body = body.replace("xlink:href=", "href=")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    body = re.sub(r' transform="rotate\(-?0 [^"]*"', "", body)
    for standing, colour in _COLOURS.items():
        body = body.replace(standing, colour)
    body = re.sub(r"\n\s*", "\n", body)
    label = html.escape(alt)
    width = float(box[1].split()[2])
    return Markup(
        f'<svg class="chart" role="img" aria-label="{label}" viewBox="{box[1]}" style="--width: '
        f'{width:.0f}px">{body}'
    )
