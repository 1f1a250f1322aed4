"""``hemix bench prepare`` at a thousandth of its size."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from hemix.errors import HemixError
from hemix.lab.benchmarks import BenchOptions, run_benchmark
from hemix.lab.benchmarks.prepare import run
from hemix.lab.benchmarks.synthetic_logs import write_logs
from tests.lab.benchmarks.figures import assert_figures
from tests.refusals import raises

KEYS = {
    "name",
    "impressions",
    "events",
    "users",
    "items",
    "processes",
    "partitions",
    "rows_per_second",
    "ours_seconds",
    "ours_processor_seconds",
    "ours_peak_bytes",
    "limit_bytes",
    "within_limit",
    "dataset_bytes",
    "draw_seconds",
}


def test_small_run_measures_time_and_memory(tmp_path: Path) -> None:
    figures = run(scale=0.001, out=tmp_path)
    (case,) = figures["cases"]
    assert_figures(case, KEYS)
    assert (case["impressions"], case["events"]) == (5000, 20_000)
    assert 0 < case["ours_peak_bytes"] < case["limit_bytes"] and case["within_limit"] is True
    assert case["rows_per_second"] > 0
    assert figures["machine"]["cores"] >= 1
    assert pq.read_metadata(tmp_path / "logs" / "impressions.parquet").num_rows == 5000
    assert (tmp_path / "data" / "manifest.json").is_file()


def test_processes_and_partitions_are_those_asked_for() -> None:
    options = BenchOptions(processes=2, partitions=3)
    (case,) = run_benchmark("prepare", scale=0.0001, options=options)["cases"]
    assert (case["processes"], case["partitions"]) == (2, 3)
    assert case["ours_processor_seconds"] > 0


def test_same_seed_gives_the_same_logs(tmp_path: Path) -> None:
    size = {"impressions": 100, "events": 200, "users": 10, "items": 10}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_logs(tmp_path / name, **size, seed=seed)
    for table in ("impressions", "events", "items", "users"):
        a, b, c = (pq.read_table(tmp_path / name / f"{table}.parquet") for name in "abc")
        assert a.equals(b) and not a.equals(c)


def test_failed_preparation_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    with raises(HemixError, f"--out {tmp_path / 'data'}", code="process_failed"):
        run(scale=0.0001, out=tmp_path)
