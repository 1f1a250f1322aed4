"""``hemix bench growth`` at a two-thousandth of its size."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hemix.lab.benchmarks.growth import run
from hemix.runs.folder import Run
from tests.lab.benchmarks.figures import assert_figures

COST_KEYS = ("seconds", "processor_seconds", "peak_bytes")
KEYS = {
    "name",
    "impressions",
    "events",
    "users",
    "steps",
    "limit_bytes",
    "within_limit",
    *(f"{command}_{key}" for command in ("prepare", "train") for key in COST_KEYS),
}
RATIO_KEYS = {"prepare_times", "train_times", "times", "processor_times"}


@pytest.mark.slow
def test_both_cases_are_prepared_and_trained(tmp_path: Path) -> None:
    figures = run(scale=0.0005, out=tmp_path)
    small, large = figures["cases"]
    assert [(c["impressions"], c["events"], c["users"]) for c in (small, large)] == [
        (1000, 5000, 100),
        (10_000, 50_000, 1000),
    ]
    assert large["steps"] > 5 * small["steps"] and large["within_limit"] is True
    assert 0 < large["train_peak_bytes"] < large["limit_bytes"] and large["prepare_peak_bytes"] > 0
    seconds = [case["prepare_seconds"] + case["train_seconds"] for case in (small, large)]
    assert large["times"] == round(seconds[1] / seconds[0], 2)
    processor_seconds = [
        case["prepare_processor_seconds"] + case["train_processor_seconds"]
        for case in (small, large)
    ]
    assert large["processor_times"] == round(processor_seconds[1] / processor_seconds[0], 2)
    for case in figures["cases"]:
        assert_figures(case, KEYS | (RATIO_KEYS if case is large else set()))
    spans = [
        pq.read_table(tmp_path / name / "logs" / "impressions.parquet", columns=["time_ms"])[
            "time_ms"
        ].to_pylist()
        for name in ("small", "large")
    ]
    assert abs((spans[0][-1] - spans[0][0]) / (spans[1][-1] - spans[1][0]) - 1) < 0.02, (
        "both cases cover the same days"
    )
    assert Run.load(tmp_path / "large" / "run").info["data"]["train"]["rows"] > 9000
