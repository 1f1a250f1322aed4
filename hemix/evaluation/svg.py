"""Matplotlib figures as inline SVG: no script, no external resource, colours of the reader's theme.

The style sheet of the page defines the variables of ``_COLOURS``. Matplotlib lays out axes, ticks
and legends, but it writes fixed colours, fonts and ids; :func:`to_svg` replaces them in its text. A
chart library would bring scripts, and a report has none. Tests refuse a drawing with a colour of
its own, so a change of matplotlib's text fails there.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = [
    "GRID",
    "INK",
    "MODEL",
    "MUTED",
    "ORACLE",
    "PAPER",
    "SECOND",
    "chart_style",
    "new_figure",
    "to_svg",
]

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
"""Placeholder colours of the drawing, and the style sheet's variables for light and dark."""

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
"""Inches at 72 dots per inch: readable on a phone, two columns on a desk."""


def chart_style() -> Any:
    """Context manager with matplotlib's settings for all charts."""
    return matplotlib.rc_context(_STYLE)


def new_figure(height: float) -> tuple[Figure, Any]:
    """A figure of ``height`` inches with one pair of axes."""
    figure = Figure(figsize=(_WIDTH, height), dpi=72, layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def to_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Convert a figure to an inline element with the page's colours, sized by the page.

    Args:
        figure: Of :func:`new_figure`.
        name: Makes the element's ids unique in the page.
        alt: Text alternative.

    Returns:
        The element.
    """
    stream = io.StringIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text, so matplotlib's own may lack a glyph.
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
    for placeholder, colour in _COLOURS.items():
        body = body.replace(placeholder, colour)
    body = re.sub(r"\n\s*", "\n", body)
    label = html.escape(alt)
    width = float(box[1].split()[2])
    return Markup(
        f'<svg class="chart" role="img" aria-label="{label}" viewBox="{box[1]}" style="--width: '
        f'{width:.0f}px">{body}'
    )
