"""Differences between models: by hand, against the other way to compute them, and by how often
their intervals hold the truth.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from hemix.evaluation import metrics
from hemix.evaluation.differences import (
    PAIRED_METRICS,
    Measured,
    holm,
    measure,
    paired_difference,
    student_p,
    student_quantile,
)
from hemix.evaluation.intervals import auc_difference, gauc_influence, logloss_influence
from hemix.evaluation.metrics import Absent

A = np.array


def test_holm_by_hand():
    # sorted .01 .03 .04: 3 x .01 = .03, 2 x .03 = .06, and 1 x .04 may not fall below .06
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423), (1e6, 1.95997)]
)
def test_student_agrees_with_the_printed_tables(freedom: float, t: float):
    assert student_quantile(freedom) == pytest.approx(t, rel=1e-4)
    assert student_p(t, freedom) == pytest.approx(0.05, rel=1e-3)


def test_far_tails_do_not_vanish():
    assert student_p(8.0, 1e7) == pytest.approx(math.erfc(8 / math.sqrt(2)), rel=1e-3)
    assert student_p(0.0, 3) == 1.0


def rows(
    seed: int, users: int = 40, per_user: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), per_user)
    truth = rng.normal(size=users)[user] + rng.normal(size=user.size)
    return (rng.random(user.size) < 1 / (1 + np.exp(-truth))).astype(float), truth, user


def scored(truth: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(truth + noise * rng.normal(size=truth.size))))


def test_with_one_seed_and_one_origin_it_is_the_difference_of_auc():
    label, truth, user = rows(0)
    rng = np.random.default_rng(1)
    a, b = scored(truth, rng, 0.5), scored(truth, rng, 1.0)
    ours = paired_difference(
        [[measure("auc", label, a, user, 40)]], [[measure("auc", label, b, user, 40)]]
    )
    theirs = auc_difference(label, a, b, user)
    assert ours.delta == pytest.approx(theirs.delta, abs=1e-15)
    assert math.sqrt(ours.user_variance) == pytest.approx(theirs.standard_error, rel=1e-12)
    assert ours.seed_variance == 0


def made(value: float, *of_user: float) -> Measured:
    return Measured(value=value, of_user=A(of_user))


def test_two_seeds_by_hand():
    # deltas .02 and .04; influences of the differences (.01, -.01) and (.03, -.03), their mean
    # (.02, -.02)
    a = [[made(0.52, 0.01, -0.01), made(0.54, 0.03, -0.03)]]
    b = [[made(0.50, 0.0, 0.0), made(0.50, 0.0, 0.0)]]
    found = paired_difference(a, b)
    assert found.delta == pytest.approx(0.03)
    # seeds: variance of (.02, .04) is 2e-4, over two seeds 1e-4
    assert found.seed_variance == pytest.approx(1e-4)
    # users: (.02^2 + .02^2) * 2 / 1 = 1.6e-3, less what differs from seed to seed: 4 * .01^2 / 1 /
    # 2 = 2e-4
    assert found.user_variance == pytest.approx(1.4e-3)
    freedom = (1.5e-3) ** 2 / ((1.4e-3) ** 2 / 1 + (1e-4) ** 2 / 1)
    assert found.freedom == pytest.approx(freedom)
    assert found.ci95.high - found.delta == pytest.approx(
        student_quantile(freedom) * math.sqrt(1.5e-3)
    )


def test_a_user_of_two_origins_is_one_user():
    """What a user adds in one origin and takes in the other cancels; two users would not."""
    zero = made(0.5, 0.0, 0.0)
    opposite = paired_difference([[made(0.5, 0.1, -0.1)], [made(0.5, -0.1, 0.1)]], [[zero], [zero]])
    same = paired_difference([[made(0.5, 0.1, -0.1)], [made(0.5, 0.1, -0.1)]], [[zero], [zero]])
    assert opposite.user_variance == 0
    assert same.user_variance == pytest.approx(2 * 2 * 0.1**2)


def test_origins_count_alike():
    zero = made(0.5, 0.0, 0.0)
    found = paired_difference([[made(0.6, 0.0, 0.0)], [made(0.5, 0.0, 0.0)]], [[zero], [zero]])
    assert found.delta == pytest.approx(0.05)


def test_no_difference_of_a_model_to_itself():
    label, truth, user = rows(3)
    runs = [
        [
            measure("auc", label, scored(truth, np.random.default_rng(s), 1.0), user, 40)
            for s in range(3)
        ]
    ]
    found = paired_difference(runs, runs)
    assert (found.delta, found.p) == (0.0, 1.0)


def test_one_user_is_too_few():
    assert paired_difference([[made(0.5, 0.0)]], [[made(0.5, 0.0)]]) == Absent(
        "fewer than two users"
    )


@pytest.mark.parametrize("metric", PAIRED_METRICS)
def test_influences_sum_to_zero_and_foresee_one_more_copy_of_a_user(metric: str):
    label, truth, user = rows(4)
    score = scored(truth, np.random.default_rng(0), 1.0)
    weight = np.random.default_rng(1).uniform(0.5, 2, label.size)

    def value(weights: np.ndarray) -> float:
        if metric == "gauc":
            return metrics.gauc(label, score, user, weights)[0]
        return (metrics.auc if metric == "auc" else metrics.logloss)(label, score, weights)

    found = measure(metric, label, score, user, 40, weight)
    assert found.value == value(weight)
    assert found.of_user.sum() == pytest.approx(0, abs=1e-12)
    for one in (0, 7, 31):
        change = value(np.where(user == one, weight * (1 + 1e-6), weight)) - value(weight)
        assert change / 1e-6 == pytest.approx(found.of_user[one], abs=1e-7)


def test_what_is_not_defined_says_why():
    assert measure("auc", A([1.0, 1.0]), A([0.1, 0.2]), A([0, 1]), 2) == Absent("no negatives")
    assert measure("gauc", A([1.0, 0.0]), A([0.1, 0.2]), A([0, 1]), 2) == Absent(
        "no user has both a positive and a negative"
    )
    assert logloss_influence(A([]), A([])) == Absent("no rows")
    assert isinstance(gauc_influence(A([1.0]), A([0.1]), A([0])), Absent)


@pytest.mark.parametrize("runs_differ", [0.0, 0.5])
def test_intervals_hold_the_truth_about_as_often_as_they_say(runs_differ: float):
    """Two models that are equally good on average, in two origins of the same users; training makes
    every run better or worse.
    """
    rng = np.random.default_rng(7)
    held, trials, users = 0, 120, 60
    for _ in range(trials):
        taste = rng.normal(size=users)
        sides: tuple[list[list[Measured]], ...] = ([], [])
        for _origin in range(2):
            user = np.repeat(np.arange(users), 8)
            truth = taste[user] + rng.normal(size=user.size)
            label = (rng.random(user.size) < 1 / (1 + np.exp(-truth))).astype(float)
            for side in sides:
                noises = 0.8 * np.exp(runs_differ * rng.normal(size=3))
                side.append(
                    [
                        measure("auc", label, scored(truth, rng, noise), user, users)
                        for noise in noises
                    ]
                )
        interval = paired_difference(*sides).ci95
        held += interval.low <= 0 <= interval.high
    assert held >= 108  # of 120, expected 114; 107 or fewer has a chance below 1 %


@pytest.mark.parametrize("metric", ["auc", "gauc", "logloss"])
def test_a_metric_of_one_user_says_nothing_of_a_difference(metric):
    """Others are in the split, but have no row of this task, or rows of weight 0."""
    label, truth, user = rows(4)
    one = user == user[0]
    few = Absent("fewer than two users")
    score = scored(truth, np.random.default_rng(0), 0.5)
    assert measure(metric, label[one], score[one], user[one], 40) == few
    assert measure(metric, label, score, user, 40, one.astype(float)) == few
    assert not isinstance(measure(metric, label, score, user, 40), Absent)
