"""Scaling laws: fits recover known constants, and report no asymptote that the data lack."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.evaluation.differences import MetricEstimate
from hemix.lab.studies.scaling_laws import (
    fit_scaling_law,
    log_linear,
    power_law,
    resample_values,
)

X = np.array([1e4, 1e5, 1e6, 1e7, 1e8])


def test_power_law_recovers_its_constants() -> None:
    values = 0.5 + 2 * X**-0.3
    a, b, c = (float(v[0]) for v in power_law(X, values))
    assert (a, c) == (pytest.approx(0.5, abs=2e-3), pytest.approx(0.3, rel=0.03))
    assert a + b * X**-c == pytest.approx(values, abs=1e-4)


def test_power_law_without_asymptote_has_a_of_zero() -> None:
    a, _, c = power_law(X, 3 * X**-0.2)
    assert (float(a[0]), float(c[0])) == (pytest.approx(0, abs=0.02), pytest.approx(0.2, rel=0.1))


def test_log_linear_recovers_its_constants() -> None:
    # log10 x is 1, 2, 3; the values fall by .1 each: .7 - .1 log10 x
    intercept, slope = log_linear(np.array([10.0, 100.0, 1000.0]), np.array([0.6, 0.5, 0.4]))
    assert (float(intercept[0]), float(slope[0])) == (pytest.approx(0.7), pytest.approx(0.1))


def test_resamples_vary_over_users_and_seeds() -> None:
    """Users: influences of +-.01 over 100 users have a standard error of .1; seeds .2 apart add .1
    / sqrt 2 for two of them.
    """
    user_influence = np.where(np.arange(100) % 2, 0.01, -0.01)
    one_seed = [[MetricEstimate(value=0.5, user_influence=user_influence)]]
    two_seeds = [
        [
            MetricEstimate(value=0.4, user_influence=0 * user_influence),
            MetricEstimate(value=0.6, user_influence=0 * user_influence),
        ]
    ]
    assert resample_values(one_seed, count=4000).std() == pytest.approx(0.1, rel=0.05)
    assert resample_values(two_seeds, count=4000).std() == pytest.approx(0.1 / np.sqrt(2), rel=0.05)


def test_resamples_use_the_same_users_for_all_sizes() -> None:
    user_influence = np.where(np.arange(50) % 2, 0.01, -0.01)
    values = resample_values(
        [[MetricEstimate(value=v, user_influence=user_influence)] for v in (0.5, 0.6)], count=200
    )
    assert np.allclose(values[:, 1] - values[:, 0], 0.1)


def test_asymptote_is_reported_only_above_the_noise() -> None:
    rng = np.random.default_rng(0)
    log_linear_values = 0.7 - 0.01 * np.log10(X)
    law = fit_scaling_law(
        X.tolist(),
        log_linear_values.tolist(),
        log_linear_values + 0.005 * rng.normal(size=(300, 5)),
    )
    assert not law.has_asymptote
    assert law.slope_ci95[0] < 0.01 < law.slope_ci95[1]
    curved = 0.5 + 20 * X**-0.5
    law = fit_scaling_law(X.tolist(), curved.tolist(), curved + 1e-4 * rng.normal(size=(300, 5)))
    assert law.has_asymptote
    assert law.a_ci95[0] < 0.5 < law.a_ci95[1]
    assert law.c_ci95[0] < 0.5 < law.c_ci95[1]


def test_three_sizes_have_no_power_law() -> None:
    law = fit_scaling_law(
        [1.0, 10.0, 100.0], [0.6, 0.5, 0.4], np.array([[0.6, 0.5, 0.4], [0.61, 0.5, 0.4]])
    )
    assert (law.a, law.has_asymptote) == (None, False)
    assert law.slope == pytest.approx(0.1)
