"""Chart of the rate and the mean prediction by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hemix.evaluation.intervals import NORMAL_97_5
from hemix.evaluation.svg import INK, MODEL, MUTED, SECOND, chart_style, new_figure, to_svg

__all__ = ["position_chart"]


def position_chart(name: str, alt: str, rows: Sequence[Mapping[str, float]]) -> Markup:
    """Observed rate and mean prediction by position.

    Args:
        name: Unique in the page.
        alt: Text alternative.
        rows: ``position``, ``rate``, ``standard_error`` and ``prediction`` of every position.

    Returns:
        Inline SVG.
    """
    with chart_style():
        figure, axes = new_figure(3.1)
        columns = ("position", "rate", "standard_error", "prediction")
        x, rate, error, prediction = (np.array([row[key] for row in rows]) for key in columns)
        half_width = NORMAL_97_5 * error
        axes.errorbar(
            x,
            rate,
            yerr=[np.minimum(half_width, rate), half_width],
            fmt="o",
            color=SECOND,
            ecolor=SECOND,
            markersize=5.5,
            elinewidth=1.4,
            label="observed",
        )
        axes.plot(x, prediction, color=MODEL, label="predicted")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("position")
        axes.set_title("rate", loc="left", fontsize=9.5, color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1, labelcolor=INK
        )
        return to_svg(figure, name, alt)
