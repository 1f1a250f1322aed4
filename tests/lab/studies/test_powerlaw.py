"""The laws of scale: what was put in comes out, and what few sizes cannot tell is not told."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.evaluation.differences import MetricEstimate
from hemix.lab.studies.powerlaw import fit_laws, log_linear, power_law, replicate_values

X = np.array([1e4, 1e5, 1e6, 1e7, 1e8])


def test_a_power_law_is_found_again():
    values = 0.5 + 2 * X**-0.3
    a, b, c = (float(v[0]) for v in power_law(X, values))
    assert (a, c) == (pytest.approx(0.5, abs=2e-3), pytest.approx(0.3, rel=0.03))
    assert a + b * X**-c == pytest.approx(values, abs=1e-4)


def test_without_an_end_a_is_zero():
    a, _, c = power_law(X, 3 * X**-0.2)
    assert (float(a[0]), float(c[0])) == (pytest.approx(0, abs=0.02), pytest.approx(0.2, rel=0.1))


def test_log_linear_by_hand():
    # log10 x is 1, 2, 3; the values fall by .1 each: .7 - .1 log10 x
    intercept, slope = log_linear(np.array([10.0, 100.0, 1000.0]), np.array([0.6, 0.5, 0.4]))
    assert (float(intercept[0]), float(slope[0])) == (pytest.approx(0.7), pytest.approx(0.1))


def test_replicates_spread_as_users_and_seeds_do():
    """Users: influences of +-.01 over 100 users have a standard error of .1; seeds .2 apart add .1
    / sqrt 2 for two of them.
    """
    influence = np.where(np.arange(100) % 2, 0.01, -0.01)
    one = [[MetricEstimate(value=0.5, user_influence=influence)]]
    two = [
        [
            MetricEstimate(value=0.4, user_influence=0 * influence),
            MetricEstimate(value=0.6, user_influence=0 * influence),
        ]
    ]
    assert replicate_values(one, count=4000).std() == pytest.approx(0.1, rel=0.05)
    assert replicate_values(two, count=4000).std() == pytest.approx(0.1 / np.sqrt(2), rel=0.05)


def test_users_are_the_same_for_all_sizes():
    influence = np.where(np.arange(50) % 2, 0.01, -0.01)
    same = replicate_values(
        [[MetricEstimate(value=v, user_influence=influence)] for v in (0.5, 0.6)], count=200
    )
    assert np.allclose(same[:, 1] - same[:, 0], 0.1)


def test_noise_leaves_the_end_open():
    rng = np.random.default_rng(0)
    straight = 0.7 - 0.01 * np.log10(X)
    law = fit_laws(X.tolist(), straight.tolist(), straight + 0.005 * rng.normal(size=(300, 5)))
    assert not law.asymptote_told
    assert law.slope_ci95[0] < 0.01 < law.slope_ci95[1]
    bent = 0.5 + 20 * X**-0.5
    law = fit_laws(X.tolist(), bent.tolist(), bent + 1e-4 * rng.normal(size=(300, 5)))
    assert law.asymptote_told
    assert law.a_ci95[0] < 0.5 < law.a_ci95[1]
    assert law.c_ci95[0] < 0.5 < law.c_ci95[1]


def test_three_sizes_have_no_power_law():
    law = fit_laws(
        [1.0, 10.0, 100.0], [0.6, 0.5, 0.4], np.array([[0.6, 0.5, 0.4], [0.61, 0.5, 0.4]])
    )
    assert (law.a, law.asymptote_told) == (None, False)
    assert law.slope == pytest.approx(0.1)
