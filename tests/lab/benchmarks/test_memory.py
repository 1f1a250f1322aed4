"""Memory trends of known series."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.lab.benchmarks.memory import memory_trend

MIB = 2**20


def test_variation_within_a_minute_has_no_trend() -> None:
    seconds = np.arange(0, 1800, 0.5)
    memory = (300 + seconds % 60) * MIB
    trend = memory_trend(seconds, memory)
    assert trend["slope_mib_per_minute"] == pytest.approx(0, abs=1e-3) and trend[
        "slope_error"
    ] == pytest.approx(0, abs=1e-3)
    assert trend["least_slope_mib_per_minute"] == pytest.approx(0, abs=1e-3)
    assert trend["least_mib"] == pytest.approx(300, abs=1)


def test_leak_raises_both_slopes_and_the_warm_up_is_ignored() -> None:
    seconds = np.arange(0, 1800, 0.5)
    memory = (300 + 0.25 * seconds / 60 + seconds % 60 + np.where(seconds < 360, -200, 0)) * MIB
    trend = memory_trend(seconds, memory)
    assert trend["slope_mib_per_minute"] == pytest.approx(0.25, abs=1e-3)
    assert trend["least_slope_mib_per_minute"] == pytest.approx(0.25, abs=1e-3)


def test_twice_the_standard_error_covers_the_slope_under_noise() -> None:
    rng, covered = np.random.default_rng(0), 0
    seconds = np.arange(0, 1800, 60.0)
    for _ in range(200):
        trend = memory_trend(seconds, (300 + seconds / 60 + rng.normal(0, 3, len(seconds))) * MIB)
        covered += abs(trend["slope_mib_per_minute"] - 1) <= trend["slope_error"]
    assert 180 <= covered <= 197


def test_too_few_minutes_have_no_trend() -> None:
    seconds = np.arange(0, 300, 0.5)
    assert memory_trend(seconds, np.full(len(seconds), 300.0 * MIB)) == {}
