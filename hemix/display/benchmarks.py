"""Benchmarks: a table of their cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from hemix.display.tables import format_value, render_table, text_table

__all__ = ["benchmark_table"]

_MAX_COLUMNS, _CASES_A_TABLE = 8, 6


def benchmark_table(content: Mapping[str, Any]) -> str:
    """The cases of a benchmark, one a row; one a column where they have more than 8 values.

    ``content`` is the benchmark's JSON.
    """
    cases = content["cases"]
    keys = list(dict.fromkeys(key for case in cases for key in case))
    title = f"{content['machine']['cpu']}, {content['machine']['cores']} cores"
    if len(keys) > _MAX_COLUMNS:
        starts = range(0, len(cases), _CASES_A_TABLE)
        return "\n".join(
            _transposed_table(cases[start : start + _CASES_A_TABLE], keys, title)
            for start in starts
        )
    table = text_table(title, [key.replace("_", " ") for key in keys])
    for case in cases:
        table.add_row(*(format_value(case.get(key)) for key in keys))
    return render_table(table)


def _transposed_table(cases: Sequence[Mapping[str, Any]], keys: Sequence[str], title: str) -> str:
    table = Table(title=title, title_justify="left", show_header=False)
    for key in keys:
        table.add_row(key.replace("_", " "), *(format_value(case.get(key)) for case in cases))
    return render_table(table)
