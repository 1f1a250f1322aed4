"""The chart of a sweep has one panel per sweep and one for the crossover."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hemix.lab.benchmarks import BenchOptions, run_benchmark
from hemix.lab.benchmarks.comparison import growth_exponents
from hemix.lab.benchmarks.sweep_chart import draw_sweeps


def panels(path: Path) -> int:
    root = ElementTree.parse(path).getroot()
    return sum((element.get("id") or "").startswith("axes_") for element in root.iter())


def sweep(name: str, key: str) -> list[dict[str, Any]]:
    return [
        {"name": name, key: n, "ours_seconds": 0.01 * n, "plain_seconds": 0.01 * n**2}
        for n in (1, 10, 100)
    ]


def test_chart_has_a_panel_per_sweep(tmp_path: Path) -> None:
    by_length = sweep("score sweep length", "history_length")
    by_count = sweep("score sweep candidates", "candidates")
    growth = {
        "history_length": growth_exponents(by_length, "history_length"),
        "candidates": growth_exponents(by_count, "candidates"),
    }
    draw_sweeps({"cases": by_length + by_count, "growth": growth}, tmp_path / "chart.svg")
    assert panels(tmp_path / "chart.svg") == 2


def test_chart_has_a_panel_for_the_crossover(tmp_path: Path) -> None:
    cases = sweep("train sweep impressions", "impressions_per_user")
    growth = {"impressions_per_user": growth_exponents(cases, "impressions_per_user")}
    crossover = [
        {"queries_per_history": n, "absorbed_seconds": 0.1 * n, "projected_seconds": 0.2}
        for n in (1, 4)
    ]
    figures = {"cases": cases, "growth": growth, "crossover": crossover}
    draw_sweeps(figures, tmp_path / "chart.svg")
    assert panels(tmp_path / "chart.svg") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("no_peaks")
@pytest.mark.parametrize("name", ["score", "train"])
def test_measured_sweep_is_drawn(tmp_path: Path, name: str) -> None:
    figures = run_benchmark(name, scale=0.02, options=BenchOptions(sweep=True))
    draw_sweeps(figures, tmp_path / "sweep.svg")
    assert panels(tmp_path / "sweep.svg") == 2
    if name == "train":
        queries = [point["queries_per_history"] for point in figures["crossover"]]
        assert queries == [8, 16, 24, 32, 48, 64]
