"""The growth benchmark at a two-thousandth of its size."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from hemix.lab.benchmarks.growth import run
from hemix.runs.folder import Run


def test_ten_times_the_users_over_the_same_days_are_prepared_and_trained_on(tmp_path: Path) -> None:
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
    used = [
        case["prepare_processor_seconds"] + case["train_processor_seconds"]
        for case in (small, large)
    ]
    assert large["processor_times"] == round(used[1] / used[0], 2) and used[0] > 0
    spans = [
        pq.read_table(tmp_path / name / "logs" / "impressions.parquet", columns=["time_ms"])[
            "time_ms"
        ].to_pylist()
        for name in ("small", "large")
    ]
    assert abs((spans[0][-1] - spans[0][0]) / (spans[1][-1] - spans[1][0]) - 1) < 0.02, (
        "the days are the same"
    )
    assert Run.load(tmp_path / "large" / "run").info["data"]["train"]["rows"] > 9000
