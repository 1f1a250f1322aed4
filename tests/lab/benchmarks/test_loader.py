"""The benchmark of the loader on planted logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.errors import HemixError
from hemix.lab.benchmarks import loader


def test_a_small_run_says_what_was_waited_for(planted_data: Path) -> None:
    figures = loader.run(data=planted_data, sizes=("tiny",), batch_size=64, steps=3, threads=1)
    (case,) = figures["cases"]
    assert case["name"] == "loader, tiny" and case["steps"] == 3
    assert 0 < case["share_to_make"] < 1
    assert case["within_target"] is (case["share_waited"] < loader.TARGET)
    assert (
        min(case["batch_seconds"], case["step_seconds"], case["ours_peak_bytes"], case["events"])
        > 0
    )


def test_too_little_data_is_refused(planted_data: Path) -> None:
    with pytest.raises(
        HemixError,
        match=r"bench loader: tiny failed: .*too few impressions for 3 batches of 1000000",
    ):
        loader.run(data=planted_data, sizes=("tiny",), batch_size=1_000_000, threads=1)
