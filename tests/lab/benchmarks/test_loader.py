"""``hemix bench loader`` on planted logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.errors import HemixError
from hemix.lab.benchmarks import loader
from tests.lab.benchmarks.figures import assert_figures
from tests.refusals import raises

KEYS = {
    "name",
    "ours_seconds",
    "plain_seconds",
    "batch_seconds",
    "step_seconds",
    "share_waited",
    "share_to_make",
    "within_target",
    "ours_peak_bytes",
    "dense_parameters",
    "impressions",
    "events",
    "steps",
    "threads",
}


def test_fractions_follow_from_the_times(planted_data: Path) -> None:
    figures = loader.run(data=planted_data, sizes=("tiny",), batch_size=64, steps=3, threads=1)
    (case,) = figures["cases"]
    assert_figures(case, KEYS)
    assert (case["name"], case["steps"], case["impressions"]) == ("loader, tiny", 3, 64)
    for key, seconds in (("share_waited", "ours_seconds"), ("share_to_make", "batch_seconds")):
        expected = case[seconds] / (case[seconds] + case["step_seconds"])
        assert case[key] == pytest.approx(expected, abs=1e-3)
    assert case["within_target"] is (case["share_waited"] < loader.TARGET)
    assert min(case["ours_peak_bytes"], case["events"]) > 0


def test_too_few_impressions_are_an_error(planted_data: Path) -> None:
    config = loader._Config(
        data=str(planted_data), size="tiny", batch_size=1_000_000, steps=7, threads=1
    )
    with raises(HemixError, 3, 1000000, code="too_few_rows", field=planted_data):
        loader._measure(config)
