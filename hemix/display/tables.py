"""Text tables, values and lists of facts that several commands print."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = [
    "counts_line",
    "facts",
    "format_metric",
    "format_value",
    "render_table",
    "text_table",
    "undefined_difference_lines",
]

_WIDTH = 110
_MISSING = "-"


def text_table(title: str, columns: Sequence[str], *, left: Sequence[str] = ()) -> Table:
    """A table without rows.

    Args:
        title: Shown above the table.
        columns: Headers of the columns.
        left: Headers of the columns that are aligned to the left; the others to the right.

    Returns:
        The table.
    """
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right")
    return table


def render_table(table: Table) -> str:
    """The table as text."""
    output = io.StringIO()
    Console(file=output, width=_WIDTH, highlight=False).print(table)
    return output.getvalue().rstrip("\n")


def format_metric(value: Any, form: str) -> str:
    """A metric as text.

    Args:
        value: A number, a pair for an interval, or None for a metric that is not there.
        form: A format specification, or ``interval``.

    Returns:
        The text.
    """
    if value is None:
        return _MISSING
    return f"{value[0]:.4f} - {value[1]:.4f}" if form == "interval" else format(value, form)


def format_value(value: Any) -> str:
    """Any JSON value as short text: ``1,234``, ``0.1235``, ``1 / 2``, ``key: 3``."""
    if isinstance(value, list):
        return " / ".join(format_value(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_value(item)}" for key, item in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _MISSING if value is None else str(value)


def counts_line(counts: Mapping[str, Any]) -> str:
    """``240,123 impressions, 1,034,221 events``: the whole numbers among ``counts``."""
    return ", ".join(
        f"{value:,} {name.replace('_', ' ')}"
        for name, value in counts.items()
        if isinstance(value, int) and value is not True
    )


def facts(values: Mapping[str, Any], indent: str = "") -> str:
    """Nested facts, one a line.

    Args:
        values: JSON-able values by name.
        indent: White space before every line.

    Returns:
        The lines.
    """
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", facts(value, indent + "  ")]
        else:
            text = (
                ", ".join(str(item) for item in value)
                if isinstance(value, list)
                else format_value(value)
            )
            lines.append(f"{indent}{name:<16} {text}")
    return "\n".join(lines)


def undefined_difference_lines(
    entries: Sequence[Mapping[str, Any]], first: str, second: str
) -> list[str]:
    """Why differences are undefined, one line for every pair and reason.

    Args:
        entries: Undefined differences with ``metric`` and ``reason``.
        first: Key of the first name of the pair.
        second: Key of the second name of the pair.

    Returns:
        The lines.
    """
    metrics = dict[tuple[str, str], list[str]]()
    for entry in entries:
        pair = f"{entry[first]} - {entry[second]}"
        metrics.setdefault((pair, entry["reason"]), []).append(entry["metric"])
    return [
        f"absent: {pair}: {', '.join(names)}: {reason}" for (pair, reason), names in metrics.items()
    ]
