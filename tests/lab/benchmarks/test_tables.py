"""The benchmark of the tables at a thousandth of its size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemix.errors import HemixError
from hemix.lab.benchmarks import tables
from hemix.training import fbgemm


def test_a_small_run_compares_equal_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [tables._CASES[0], tables._CASES[2], tables._CASES[4]]
    monkeypatch.setattr(tables, "_CASES", few)
    figures = tables.run(scale=0.001, steps=2, rounds=1, threads=1)
    names = [case["name"] for case in figures["cases"]]
    assert names == [name for name, _, ours, _ in few if ours != "fused" or fbgemm.installed()]
    for case in figures["cases"]:
        assert case["max_abs_difference"] <= tables.TOLERANCE
        assert case["speedup"] == pytest.approx(
            case["plain_seconds"] / case["ours_seconds"], rel=0.05
        )
        assert min(case["ours_peak_bytes"], case["plain_peak_bytes"]) > 0


def test_sides_that_differ_are_an_error(tmp_path: Path) -> None:
    found = {}
    for at, side in enumerate(("tables", "bags")):
        np.save(tmp_path / f"{side}.npy", np.full(3, float(at)))
        found[side, "adam"] = {
            "seconds": [1.0],
            "cpu_seconds": [1.0],
            "peak_bytes": 1,
            "path": tmp_path / f"{side}.npy",
        }
    with pytest.raises(HemixError, match=r"bench tables: two sides: vectors differ by 1\.00e\+00"):
        tables._case("two sides", "adam", "tables", "bags", found, {}, 1)
