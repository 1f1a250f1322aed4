"""The load tool: a server and a driver, for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.bench import run_benchmark
from hemix.errors import UsageError


@pytest.mark.slow
def test_every_load_is_answered_and_counted(rich_run: Path) -> None:
    figures = run_benchmark("serve", scale=0.03, run=rich_run)
    cases = {(case["name"], case["stream"]): case for case in figures["cases"]}
    assert len(cases) == 7
    for case in cases.values():
        assert case["errors"] == {} and case["degraded"] == 0, case
        assert 0 < case["latency_ms"][0] <= case["latency_ms"][1] <= case["latency_ms"][2]
        assert case["server_peak_bytes"] > 2**20
    assert cases["serve mix", "rank 50"]["score_ms"][0] > 0
    body = cases["serve events 50", "events 50"]
    assert body["accepted_events"] == 50 * body["requests"] > 0
    assert figures["ready_seconds"]["rest"] > 0


@pytest.mark.slow
def test_seconds_drive_the_mix_alone(rich_run: Path) -> None:
    figures = run_benchmark("serve", scale=0.03, run=rich_run, seconds=2)
    assert {case["name"] for case in figures["cases"]} == {"serve mix"}
    assert {case["stream"] for case in figures["cases"]} == {"rank 500", "rank 50", "events 10"}


def test_other_benchmarks_take_no_run(rich_run: Path) -> None:
    with pytest.raises(UsageError, match="--run: hemix bench mfu has no such option"):
        run_benchmark("mfu", run=rich_run)
