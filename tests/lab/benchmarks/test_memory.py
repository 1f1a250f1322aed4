"""Does a process's memory grow: slopes of whole minutes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.lab.benchmarks.memory import trend

MIB = 2**20


def test_what_swings_within_a_minute_has_no_trend() -> None:
    seconds = np.arange(0, 1800, 0.5)
    held = (300 + seconds % 60) * MIB
    found = trend(seconds, held)
    assert found["slope_mib_per_minute"] == pytest.approx(0, abs=1e-3) and found[
        "slope_error"
    ] == pytest.approx(0, abs=1e-3)
    assert found["least_slope_mib_per_minute"] == pytest.approx(0, abs=1e-3)
    assert found["least_mib"] == pytest.approx(300, abs=1)


def test_a_leak_lifts_both_and_the_warm_up_does_not_count() -> None:
    seconds = np.arange(0, 1800, 0.5)
    held = (300 + 0.25 * seconds / 60 + seconds % 60 + np.where(seconds < 360, -200, 0)) * MIB
    found = trend(seconds, held)
    assert found["slope_mib_per_minute"] == pytest.approx(0.25, abs=1e-3)
    assert found["least_slope_mib_per_minute"] == pytest.approx(0.25, abs=1e-3)


def test_twice_the_standard_error_covers_a_line_under_noise() -> None:
    rng, covered = np.random.default_rng(0), 0
    seconds = np.arange(0, 1800, 60.0)
    for _ in range(200):
        found = trend(seconds, (300 + seconds / 60 + rng.normal(0, 3, len(seconds))) * MIB)
        covered += abs(found["slope_mib_per_minute"] - 1) <= found["slope_error"]
    assert 180 <= covered <= 197


def test_too_few_minutes_have_no_slope() -> None:
    seconds = np.arange(0, 300, 0.5)
    assert trend(seconds, np.full(len(seconds), 300.0 * MIB)) == {}
