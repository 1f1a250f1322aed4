"""Differences between models: numbers by hand, against auc_difference, coverage of intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from hemix.evaluation import metrics
from hemix.evaluation.differences import (
    PAIRED_METRICS,
    MetricEstimate,
    PairedDifference,
    estimate_metric,
    holm,
    paired_difference,
)
from hemix.evaluation.influence import gauc_influence, logloss_influence
from hemix.evaluation.intervals import auc_difference
from hemix.evaluation.metrics import UndefinedMetric

A = np.array


def test_holm_adjusts_from_the_smallest_p_value():
    # sorted .01 .03 .04: 3 x .01 = .03, 2 x .03 = .06, and 1 x .04 may not fall below .06
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def users_difference(users: int, t: float) -> PairedDifference:
    """One origin and seed: a difference of ``t`` standard errors between ``users`` users."""
    influence = np.where(np.arange(users) % 2, 1.0, -1.0) * 1e-3
    influence -= influence.mean()
    error = math.sqrt(float(influence @ influence) * users / (users - 1))
    a = MetricEstimate(value=0.5 + t * error, user_influence=influence)
    b = MetricEstimate(value=0.5, user_influence=np.zeros(users))
    return paired_difference([[a]], [[b]])


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423), (10**6, 1.95997)]
)
def test_interval_and_p_value_agree_with_printed_tables_of_student_t(freedom: int, t: float):
    difference = users_difference(freedom + 1, t)
    half_width = (difference.ci95.high - difference.ci95.low) / 2
    assert difference.freedom == pytest.approx(freedom)
    assert half_width / math.sqrt(difference.user_variance) == pytest.approx(t, rel=1e-4)
    assert difference.p == pytest.approx(0.05, rel=1e-3)
    assert users_difference(freedom + 1, -t).p == pytest.approx(0.05, rel=1e-3)


def test_p_values_of_far_tails_do_not_vanish():
    assert users_difference(10**6, 8.0).p == pytest.approx(math.erfc(8 / math.sqrt(2)), rel=2e-3)
    assert users_difference(10**6, 30.0).p == pytest.approx(
        2 * scipy.stats.t.sf(30.0, 10**6 - 1), rel=1e-6
    )
    assert users_difference(4, 0.0).p == 1.0


def rows(
    seed: int, users: int = 40, per_user: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), per_user)
    truth = rng.normal(size=users)[user] + rng.normal(size=user.size)
    return (rng.random(user.size) < 1 / (1 + np.exp(-truth))).astype(float), truth, user


def scored(truth: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(truth + noise * rng.normal(size=truth.size))))


def test_one_seed_and_one_test_day_give_the_difference_of_auc():
    label, truth, user = rows(0)
    rng = np.random.default_rng(1)
    a, b = scored(truth, rng, 0.5), scored(truth, rng, 1.0)
    ours = paired_difference(
        [[estimate_metric("auc", label, a, user, 40)]],
        [[estimate_metric("auc", label, b, user, 40)]],
    )
    theirs = auc_difference(label, a, b, user)
    assert ours.delta == pytest.approx(theirs.delta, abs=1e-15)
    assert math.sqrt(ours.user_variance) == pytest.approx(theirs.standard_error, rel=1e-12)
    assert ours.seed_variance == 0


def estimate(value: float, *of_user: float) -> MetricEstimate:
    return MetricEstimate(value=value, user_influence=A(of_user))


def test_two_seeds_add_their_variance():
    # deltas .02 and .04; influences of the differences (.01, -.01) and (.03, -.03), their mean
    # (.02, -.02)
    a = [[estimate(0.52, 0.01, -0.01), estimate(0.54, 0.03, -0.03)]]
    b = [[estimate(0.50, 0.0, 0.0), estimate(0.50, 0.0, 0.0)]]
    difference = paired_difference(a, b)
    assert difference.delta == pytest.approx(0.03)
    # seeds: variance of (.02, .04) is 2e-4, over two seeds 1e-4
    assert difference.seed_variance == pytest.approx(1e-4)
    # users: (.02^2 + .02^2) * 2 / 1 = 1.6e-3, less what differs from seed to seed: 4 * .01^2 / 1 /
    # 2 = 2e-4
    assert difference.user_variance == pytest.approx(1.4e-3)
    freedom = (1.5e-3) ** 2 / ((1.4e-3) ** 2 / 1 + (1e-4) ** 2 / 1)
    assert difference.freedom == pytest.approx(freedom)
    assert difference.ci95.high - difference.delta == pytest.approx(
        scipy.stats.t.ppf(0.975, freedom) * math.sqrt(1.5e-3)
    )


def test_influences_of_a_user_add_over_origins():
    """Opposite influences of one user cancel; those of two users would not."""
    zero = estimate(0.5, 0.0, 0.0)
    opposite = paired_difference(
        [[estimate(0.5, 0.1, -0.1)], [estimate(0.5, -0.1, 0.1)]], [[zero], [zero]]
    )
    same = paired_difference(
        [[estimate(0.5, 0.1, -0.1)], [estimate(0.5, 0.1, -0.1)]], [[zero], [zero]]
    )
    assert opposite.user_variance == 0
    assert same.user_variance == pytest.approx(2 * 2 * 0.1**2)


def test_origins_have_equal_weight():
    zero = estimate(0.5, 0.0, 0.0)
    difference = paired_difference(
        [[estimate(0.6, 0.0, 0.0)], [estimate(0.5, 0.0, 0.0)]], [[zero], [zero]]
    )
    assert difference.delta == pytest.approx(0.05)


def test_a_model_does_not_differ_from_itself():
    label, truth, user = rows(3)
    runs = [
        [
            estimate_metric("auc", label, scored(truth, np.random.default_rng(s), 1.0), user, 40)
            for s in range(3)
        ]
    ]
    difference = paired_difference(runs, runs)
    assert (difference.delta, difference.p) == (0.0, 1.0)


def test_one_user_defines_no_difference():
    assert paired_difference([[estimate(0.5, 0.0)]], [[estimate(0.5, 0.0)]]) == UndefinedMetric(
        "fewer than two users"
    )


@pytest.mark.parametrize("metric", PAIRED_METRICS)
def test_user_influences_sum_to_zero_and_predict_one_more_copy_of_a_user(metric: str):
    label, truth, user = rows(4)
    score = scored(truth, np.random.default_rng(0), 1.0)
    weight = np.random.default_rng(1).uniform(0.5, 2, label.size)

    def value(weights: np.ndarray) -> float:
        if metric == "gauc":
            return metrics.gauc(label, score, user, weights)[0]
        return (metrics.auc if metric == "auc" else metrics.logloss)(label, score, weights)

    difference = estimate_metric(metric, label, score, user, 40, weight)
    assert difference.value == value(weight)
    assert difference.user_influence.sum() == pytest.approx(0, abs=1e-12)
    for one in (0, 7, 31):
        change = value(np.where(user == one, weight * (1 + 1e-6), weight)) - value(weight)
        assert change / 1e-6 == pytest.approx(difference.user_influence[one], abs=1e-7)


def test_undefined_estimates_give_the_reason():
    assert estimate_metric("auc", A([1.0, 1.0]), A([0.1, 0.2]), A([0, 1]), 2) == UndefinedMetric(
        "no negatives"
    )
    assert estimate_metric("gauc", A([1.0, 0.0]), A([0.1, 0.2]), A([0, 1]), 2) == UndefinedMetric(
        "no user has both a positive and a negative"
    )
    assert logloss_influence(A([]), A([])) == UndefinedMetric("no rows")
    assert isinstance(gauc_influence(A([1.0]), A([0.1]), A([0])), UndefinedMetric)


@pytest.mark.parametrize("runs_differ", [0.0, 0.5])
def test_intervals_cover_the_truth_at_the_nominal_rate(runs_differ: float):
    """Two models that are equally good on average, in two origins of the same users; training makes
    every run better or worse.
    """
    rng = np.random.default_rng(7)
    covered, trials, users = 0, 120, 60
    for _ in range(trials):
        taste = rng.normal(size=users)
        sides: tuple[list[list[MetricEstimate]], ...] = ([], [])
        for _day in range(2):
            user = np.repeat(np.arange(users), 8)
            truth = taste[user] + rng.normal(size=user.size)
            label = (rng.random(user.size) < 1 / (1 + np.exp(-truth))).astype(float)
            for side in sides:
                noises = 0.8 * np.exp(runs_differ * rng.normal(size=3))
                side.append(
                    [
                        estimate_metric("auc", label, scored(truth, rng, noise), user, users)
                        for noise in noises
                    ]
                )
        interval = paired_difference(*sides).ci95
        covered += interval.low <= 0 <= interval.high
    assert covered >= 108  # of 120, expected 114; 107 or fewer has a chance below 1 %


@pytest.mark.parametrize("metric", ["auc", "gauc", "logloss"])
def test_a_metric_of_one_user_is_undefined(metric):
    """Others are in the split, but have no row of this task, or rows of weight 0."""
    label, truth, user = rows(4)
    of_one_user = user == user[0]
    few = UndefinedMetric("fewer than two users")
    score = scored(truth, np.random.default_rng(0), 0.5)
    assert (
        estimate_metric(metric, label[of_one_user], score[of_one_user], user[of_one_user], 40)
        == few
    )
    assert estimate_metric(metric, label, score, user, 40, of_one_user.astype(float)) == few
    assert not isinstance(estimate_metric(metric, label, score, user, 40), UndefinedMetric)
