"""``hemix bench tables`` at a thousandth of its size: the implementations agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from hemix.errors import HemixError
from hemix.lab.benchmarks import tables
from hemix.lab.benchmarks.table_step import Implementation, TableWorkload, measure_steps
from hemix.training import fbgemm
from tests.lab.benchmarks.figures import assert_figures
from tests.refusals import raises

KEYS = {
    "name",
    "optimizer",
    "ours_seconds",
    "plain_seconds",
    "speedup",
    "ours_cpu_seconds",
    "plain_cpu_seconds",
    "ours_peak_bytes",
    "plain_peak_bytes",
    "max_abs_difference",
    "steps",
    "fields",
    "rows",
    "width",
    "impressions",
    "ids_per_field",
    "threads",
}
WORKLOAD = TableWorkload(
    fields=2, rows=100, width=8, impressions=16, ids_per_field=4, steps=2, threads=1
)


def test_implementations_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """All comparisons, with the steps in this process."""

    def in_process(_module: str, *arguments: str, name: str) -> str:
        implementation, optimizer, content, vectors = arguments
        assert implementation in name
        load = TableWorkload(**json.loads(content))
        name_of = cast(Implementation, implementation)
        return json.dumps(measure_steps(name_of, optimizer, load, Path(vectors)))

    monkeypatch.setattr(tables, "run_module", in_process)
    figures = tables.run(scale=0.001, steps=2, rounds=2, threads=1)
    expected = [c for c in tables._COMPARISONS if c.ours != "fbgemm" or fbgemm.installed()]
    assert [case["name"] for case in figures["cases"]] == [c.name for c in expected]
    for case in figures["cases"]:
        assert_figures(case, KEYS)
        assert case["max_abs_difference"] <= tables.TOLERANCE
        assert (case["rows"], case["fields"], case["steps"]) == (200, 26, 4)
        assert min(case["ours_peak_bytes"], case["plain_peak_bytes"]) > 0


def test_implementations_run_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One comparison in two processes, because each starts slowly."""
    monkeypatch.setattr(tables, "_COMPARISONS", tables._COMPARISONS[-1:])
    (case,) = tables.run(scale=0.001, steps=2, rounds=1, threads=1)["cases"]
    assert (case["optimizer"], case["steps"]) == ("adam", 2)
    assert case["max_abs_difference"] <= tables.TOLERANCE


def test_different_vectors_are_an_error(tmp_path: Path) -> None:
    measurements = []
    for value in (0.0, 1.0):
        path = tmp_path / f"{value}.npy"
        np.save(path, np.full(3, value))
        measurements.append(
            tables._Measurement(vectors=path, seconds=[1.0], cpu_seconds=[1.0], peak_bytes=1)
        )
    comparison = tables._Comparison("two", "adam", "tables", "sparse_bags")
    with raises(HemixError, "1.00e+00", code="disagreement", field="two"):
        tables._case(comparison, *measurements, WORKLOAD)
