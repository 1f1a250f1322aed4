"""Bootstrap and standard errors: determinism, common resamples, coverage of intervals."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.errors import DataError
from hemix.evaluation import metrics
from hemix.evaluation.influence import FEWER_THAN_TWO_USERS, auc_influence
from hemix.evaluation.intervals import (
    auc_difference,
    auc_interval,
    auc_standard_error,
)
from hemix.evaluation.metrics import UndefinedMetric
from hemix.evaluation.resampling import (
    Interval,
    UserResamples,
    auc_replicates,
    percentile_interval,
    replicates,
)
from tests.refusals import raises

A = np.array


def simulated(seed, users=150, per_user=12, spread=1.0):
    """Labels that hang together within a user, and a score of each row."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), per_user)
    taste = rng.normal(size=users)[user] * spread
    score = rng.normal(size=user.size) + taste
    label = (rng.random(user.size) < 1 / (1 + np.exp(1.5 - score - taste))).astype(int)
    return label, score, user


def test_resamples_draw_whole_users_with_replacement():
    users = A([9, 9, 4, 9, 4, 2])
    for multiplicity in UserResamples(users, count=20):
        assert multiplicity[0] == multiplicity[1] == multiplicity[3]
        assert multiplicity[2] == multiplicity[4]
        assert multiplicity[0] + multiplicity[2] + multiplicity[5] == 3


def test_resamples_depend_on_seed_replicate_and_users_alone():
    users = A([5, 1, 5, 3])
    first_five = [m.tolist() for m in UserResamples(users, count=5, seed=7)]
    assert [m.tolist() for m in UserResamples(users, count=9, seed=7)][:5] == first_five
    assert [m.tolist() for m in UserResamples(users, count=5, seed=8)] != first_five
    reordered = UserResamples(users[::-1], count=5, seed=7)
    assert [m[::-1].tolist() for m in reordered] == first_five


def test_resamples_of_some_rows_use_the_same_draws():
    users = np.arange(6) // 2
    resamples = UserResamples(users, count=4)
    keep = A([True, False, False, True, True, False])
    for all_rows, some_rows in zip(resamples, resamples.of_rows(keep), strict=True):
        assert all_rows[keep].tolist() == some_rows.tolist()


def test_auc_replicates_equal_the_auc_of_repeated_rows():
    label, score, user = simulated(0, users=12, per_user=4)
    score = np.round(score)  # ties
    weight = np.random.default_rng(1).uniform(0.5, 2, label.size)
    resamples = UserResamples(user, count=25)
    fast = auc_replicates(label, score, resamples, weight)
    for value, multiplicity in zip(fast, resamples, strict=True):
        rows = np.repeat(np.arange(label.size), multiplicity)
        assert value == pytest.approx(metrics.auc(label[rows], score[rows], weight[rows]))
    general = replicates(lambda w: metrics.auc(label, score, w), resamples, weight)
    np.testing.assert_allclose(fast, general)


def test_any_metric_can_be_resampled():
    label, score, user = simulated(0, users=30)
    probability = 1 / (1 + np.exp(-score))
    values = replicates(
        lambda w: metrics.logloss(label, probability, w), UserResamples(user, count=200)
    )
    interval = percentile_interval(values)
    assert interval.low < metrics.logloss(label, probability) < interval.high


def test_percentile_interval_takes_the_2_5_and_97_5_percentiles():
    assert percentile_interval(np.arange(101.0)) == Interval(2.5, 97.5)


def test_an_interval_is_undefined_where_too_few_resamples_define_it():
    # Two users, one class each: half of the resamples draw one user twice.
    values = auc_replicates(A([1, 0]), A([0.9, 0.1]), UserResamples(A([0, 1]), count=100))
    interval = percentile_interval(values)
    assert isinstance(interval, UndefinedMetric)
    assert "of 100 resamples of users define it" in interval.reason


def test_auc_influence_sums_to_zero_and_predicts_the_change():
    label, score, _ = simulated(3, users=20)
    weight = np.random.default_rng(0).uniform(0.5, 2, label.size)
    influence = auc_influence(label, score, weight)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    for row in (0, 17, 101):
        nudged = weight.copy()
        nudged[row] *= 1 + 1e-6
        change = metrics.auc(label, score, nudged) - metrics.auc(label, score, weight)
        assert change / 1e-6 == pytest.approx(influence[row], abs=1e-8)


def test_standard_error_agrees_with_the_bootstrap():
    label, score, user = simulated(4, users=300)
    by_bootstrap = auc_replicates(label, score, UserResamples(user, count=600)).std()
    assert auc_standard_error(label, score, user) == pytest.approx(by_bootstrap, rel=0.1)


def test_clustering_by_user_widens_the_standard_error():
    label, score, user = simulated(5, users=200, spread=1.5)
    by_user = auc_standard_error(label, score, user)
    by_row = auc_standard_error(label, score, np.arange(label.size))
    assert by_user > 1.3 * by_row


def test_bootstrap_intervals_cover_the_true_auc_at_the_nominal_rate():
    label, score, _ = simulated(99, users=20_000)
    truth = metrics.auc(label, score)
    covered = 0
    for seed in range(60):
        label, score, user = simulated(seed, users=80, per_user=8)
        interval = percentile_interval(
            auc_replicates(label, score, UserResamples(user, count=150, seed=seed))
        )
        covered += interval.low <= truth <= interval.high
    assert covered >= 51  # of 60, expected 57; 50 or fewer has a chance below 1 %


def test_a_paired_difference_has_a_smaller_standard_error():
    label, score, user = simulated(6)
    worse = score + np.random.default_rng(0).normal(size=score.size) * 0.7
    resamples = UserResamples(user, count=300)
    difference = auc_difference(label, score, worse, user, resamples=resamples)
    assert difference.delta == pytest.approx(metrics.auc(label, score) - metrics.auc(label, worse))
    assert difference.ci95.low < difference.delta < difference.ci95.high
    alone = auc_replicates(label, score, resamples) - auc_replicates(
        label, worse, UserResamples(user, count=300, seed=1)
    )
    assert difference.standard_error < 0.8 * alone.std()
    without = auc_difference(label, score, worse, user)
    assert without.ci95.low == pytest.approx(
        difference.ci95.low, abs=0.2 * (difference.ci95.high - difference.ci95.low)
    )


def test_a_score_and_its_monotone_map_do_not_differ():
    label, score, user = simulated(7, users=20)
    difference = auc_difference(
        label, score, np.exp(score), user, resamples=UserResamples(user, count=50)
    )
    assert difference.delta == 0
    assert difference.ci95 == Interval(0.0, 0.0)
    assert difference.standard_error == pytest.approx(0, abs=1e-15)


def test_undefined_standard_errors_and_differences_give_the_reason():
    assert auc_standard_error(A([1, 1]), A([0.1, 0.2]), A([0, 1])) == UndefinedMetric(
        "no negatives"
    )
    assert auc_standard_error(A([1, 0]), A([0.1, 0.2]), A([0, 0])) == UndefinedMetric(
        "fewer than two users"
    )
    assert auc_difference(A([0, 0]), A([0.1, 0.2]), A([0.1, 0.2]), A([0, 1])) == UndefinedMetric(
        "no positives"
    )
    with raises(DataError, 3, 2, field="labels"):
        auc_replicates(A([1, 0]), A([0.1, 0.2]), UserResamples(A([0, 1, 2]), count=2))
    with raises(DataError, 1, 0, field="count"):
        UserResamples(A([0]), count=0)


def test_one_user_defines_no_interval():
    label, score, user = simulated(8, users=20)
    one = np.zeros(label.size, dtype=int)
    assert auc_standard_error(label, score, one) == FEWER_THAN_TWO_USERS
    assert auc_interval(label, score, UserResamples(one, count=20)) == FEWER_THAN_TWO_USERS
    difference = auc_difference(
        label, score, score[::-1], one, resamples=UserResamples(one, count=20)
    )
    assert difference.delta != 0
    assert (difference.ci95, difference.standard_error) == (
        FEWER_THAN_TWO_USERS,
        FEWER_THAN_TWO_USERS,
    )
    both = next(u for u in range(20) if 0 < label[user == u].mean() < 1)
    weight = (user == both).astype(float)
    assert auc_standard_error(label, score, user, weight) == FEWER_THAN_TWO_USERS, (
        "the others weigh nothing"
    )
    alone = np.where(label == 1, 0, user)
    assert auc_standard_error(label, score, alone) == UndefinedMetric(
        "all positives are of one user"
    )
    assert auc_interval(label, score, UserResamples(alone, count=20)) == UndefinedMetric(
        "all positives are of one user"
    )


def test_rows_of_weight_zero_change_no_standard_error():
    label, score, user = simulated(9, users=20)
    more = [np.concatenate([column, column[:50]]) for column in (label, score)]
    weight = np.concatenate([np.ones(label.size), np.zeros(50)])
    strangers = np.concatenate([user, 100 + np.arange(50)])
    assert auc_standard_error(*more, strangers, weight) == pytest.approx(
        auc_standard_error(label, score, user)
    )
