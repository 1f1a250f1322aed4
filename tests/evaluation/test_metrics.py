"""Metrics against numbers worked out by hand, brute force, scikit-learn, and their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from hemix.errors import DataError
from hemix.evaluation import metrics
from hemix.evaluation.metrics import RankedLists, UndefinedMetric
from tests.refusals import raises

A = np.array
property_test = settings(deadline=None, max_examples=60)


def ndcg(y, s, requests, w=None, *, k=10):
    return RankedLists(y, s, requests, w).ndcg_at(k)


def pairwise_auc(y, s, w):
    wins = total = 0.0
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            total += w[i] * w[j]
            wins += w[i] * w[j] * (1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0)
    return wins / total if total else None


@st.composite
def rows(draw, min_size=1, max_size=40):
    n = draw(st.integers(min_size, max_size))
    y = A(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    s = A(draw(st.lists(st.sampled_from([0.05, 0.1, 0.2, 0.5, 0.7, 0.9]), min_size=n, max_size=n)))
    w = A(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    owner = A(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    return y, s, w, owner


def repeated(y, s, w, owner):
    return tuple(np.repeat(x, w) for x in (y, s, owner))


def equal(a, b):
    if isinstance(a, UndefinedMetric) or isinstance(b, UndefinedMetric):
        return a == b
    return a == pytest.approx(b, abs=1e-9)


# -- AUC -------------------------------------------------------------------------------------------


def test_auc_counts_a_tie_half():
    # Pairs: .8>.5, .8>.2, .5=.5 (half), .5>.2: 3.5 of 4.
    assert metrics.auc(A([1, 1, 0, 0]), A([0.8, 0.5, 0.5, 0.2])) == 0.875


def test_auc_weighs_a_pair_by_both_rows():
    # Positive .6 (weight 2) beats negative .4 (weight 1) and loses to negative .9 (weight 3): 2 of
    # 8.
    assert metrics.auc(A([1, 0, 0]), A([0.6, 0.4, 0.9]), A([2.0, 1.0, 3.0])) == 0.25


def test_auc_of_equal_scores_is_a_half():
    assert metrics.auc(A([1, 0, 1, 0, 0]), np.full(5, 0.3)) == 0.5


@pytest.mark.parametrize(
    ("labels", "reason"), [([1, 1], "no negatives"), ([0, 0], "no positives"), ([], "no rows")]
)
def test_auc_of_one_class_is_undefined(labels, reason):
    assert metrics.auc(A(labels, dtype=int), np.zeros(len(labels))) == UndefinedMetric(reason)


def test_auc_is_undefined_where_a_class_has_weight_zero():
    assert metrics.auc(A([1, 0]), A([0.9, 0.1]), A([0.0, 1.0])) == UndefinedMetric("no positives")


@property_test
@given(rows())
def test_auc_equals_the_count_of_pairs(case):
    y, s, w, _ = case
    expected = pairwise_auc(y, s, w)
    value = metrics.auc(y, s, w)
    assert (
        isinstance(value, UndefinedMetric) if expected is None else value == pytest.approx(expected)
    )


@property_test
@given(rows())
def test_auc_is_invariant_to_monotone_maps_and_mirrored_by_negation(case):
    y, s, w, _ = case
    plain = metrics.auc(y, s, w)
    assert equal(plain, metrics.auc(y, np.exp(3 * s) - 7, w))
    if not isinstance(plain, UndefinedMetric):
        assert metrics.auc(y, -s, w) == pytest.approx(1 - plain)


def test_auc_separates_adjacent_float32_scores():
    low = np.float32(0.5)
    assert metrics.auc(A([0, 1]), A([low, np.nextafter(low, np.float32(1))])) == 1.0


# -- GAUC and nDCG ---------------------------------------------------------------------------------


def test_gauc_weighs_users_by_their_impressions():
    # User 7: AUC 1 over 2 rows; user 3: AUC 1/2 (one of two pairs) over 3 rows; user 5 has no
    # positive and covers 1 of 6.
    users = A([7, 7, 3, 3, 3, 5])
    value, coverage = metrics.gauc(A([1, 0, 1, 0, 0, 0]), A([0.9, 0.1, 0.5, 0.4, 0.6, 0.99]), users)
    assert value == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    assert coverage == pytest.approx(5 / 6)


def test_gauc_by_positives_weighs_users_by_their_positives():
    # User 7: AUC 1, one positive of two rows; user 3: AUC 1/4 (half a pair of two positives and one
    # negative), two positives. User 5 has positives alone: 3 of 5 positives are covered.
    users = A([7, 7, 3, 3, 3, 5, 5])
    y, s = A([1, 0, 1, 1, 0, 1, 1]), A([0.9, 0.1, 0.4, 0.6, 0.6, 0.7, 0.2])
    value, coverage = metrics.gauc(y, s, users, by="positives")
    assert value == pytest.approx((1 * 1.0 + 2 * 0.25) / 3)
    assert coverage == pytest.approx(3 / 5)
    assert metrics.gauc(y, s, users)[0] == pytest.approx((2 * 1.0 + 3 * 0.25) / 5)


def test_gauc_ignores_the_ranking_between_users():
    # Between users the ranking is wrong, within each it is right.
    y, s, users = A([1, 0, 1, 0]), A([0.3, 0.2, 0.9, 0.8]), A([0, 0, 1, 1])
    assert metrics.auc(y, s) == 0.75
    assert metrics.gauc(y, s, users) == (1.0, 1.0)


def test_gauc_without_a_user_of_both_classes_is_undefined():
    value, coverage = metrics.gauc(A([1, 0]), A([0.9, 0.1]), A([0, 1]))
    assert value == UndefinedMetric("no user has both a positive and a negative")
    assert coverage == 0.0


@property_test
@given(rows())
def test_gauc_is_the_mean_of_user_aucs(case):
    y, s, w, users = case
    users_aucs = [
        (w[users == u].sum(), pairwise_auc(*(x[users == u] for x in (y, s, w))))
        for u in np.unique(users)
    ]
    both = [(mass, value) for mass, value in users_aucs if value is not None]
    value, coverage = metrics.gauc(y, s, users, w)
    if not both:
        assert isinstance(value, UndefinedMetric) and coverage == 0
        return
    covered = sum(mass for mass, _ in both)
    assert value == pytest.approx(sum(mass * v for mass, v in both) / covered)
    assert coverage == pytest.approx(covered / w.sum())


def test_ndcg_is_averaged_over_requests():
    # Request 0: positives at ranks 1 and 3 of 3: (1 + 1/2) / (1 + 1/log2 3). Request 1: the
    # positive at rank 2 of 2: 1/log2 3.
    y, s = A([1, 0, 1, 0, 1]), A([0.9, 0.5, 0.1, 0.8, 0.2])
    first = (1 + 0.5) / (1 + 1 / math.log2(3))
    assert ndcg(y, s, A([0, 0, 0, 1, 1])) == pytest.approx((first + 1 / math.log2(3)) / 2)


def test_ndcg_skips_requests_without_a_positive_or_with_one_candidate():
    y, s = A([1, 0, 0, 0, 1]), A([0.2, 0.8, 0.5, 0.4, 0.9])
    # Request 1 has no positive, request 2 one candidate.
    assert ndcg(y, s, A([0, 0, 1, 1, 2])) == pytest.approx(1 / math.log2(3))
    assert ndcg(y[2:], s[2:], A([1, 1, 2])) == UndefinedMetric(
        "no request has both a positive and more than one candidate"
    )


def test_ndcg_ignores_ranks_beyond_k():
    y, s = A([0, 0, 1]), A([0.9, 0.8, 0.7])
    assert ndcg(y, s, np.zeros(3, int), k=2) == 0.0
    assert ndcg(y, s, np.zeros(3, int), k=3) == pytest.approx(0.5)


def test_ndcg_divides_discounts_among_equal_scores_in_any_row_order():
    expected = (1 + 1 / math.log2(3)) / 2
    for y in ([1, 0], [0, 1]):
        assert ndcg(A(y), A([0.5, 0.5]), A([0, 0])) == pytest.approx(expected)


# -- top ranks within users and requests -----------------------------------------------------------


def test_ndcg_of_all_users_counts_those_without_positives_as_0_and_single_candidates():
    y, s = A([1, 0, 0, 0, 1]), A([0.2, 0.8, 0.5, 0.4, 0.9])
    # User 0: the positive at rank 2; user 1: no positive; user 2: one candidate, at rank 1.
    users = RankedLists(y, s, A([0, 0, 1, 1, 2]), owner="user")
    assert users.ndcg_at(5, no_positives="zero") == pytest.approx((1 / math.log2(3) + 0 + 1) / 3)
    assert users.ndcg_at(5) == pytest.approx(1 / math.log2(3))
    without = RankedLists(y[2:4], s[2:4], A([1, 1]), owner="user")
    assert without.ndcg_at(5, no_positives="zero") == UndefinedMetric(
        "no user has both a positive and more than one candidate"
    )


def test_recall_is_the_fraction_of_positives_in_the_first_ranks():
    # Owner 0: positives at ranks 1 and 3; owner 1: one at rank 2; owner 2 has none.
    lists = RankedLists(
        A([1, 0, 1, 0, 1, 0, 0]), A([0.9, 0.5, 0.1, 0.8, 0.2, 0.3, 0.4]), A([0, 0, 0, 1, 1, 2, 2])
    )
    assert lists.recall_at(1) == pytest.approx((1 / 2 + 0) / 2)
    assert lists.recall_at(2) == pytest.approx((1 / 2 + 1) / 2)
    assert lists.recall_at(3) == 1.0


def test_mrr_and_hit_rate_look_at_the_first_positive():
    # Request 0: first positive at rank 2 (and another at 3); request 1: at rank 1; request 2 has
    # none, request 3 one candidate.
    lists = RankedLists(
        A([0, 1, 1, 1, 0, 0, 0, 1]),
        A([0.9, 0.5, 0.1, 0.8, 0.2, 0.3, 0.4, 0.5]),
        A([0, 0, 0, 1, 1, 2, 2, 3]),
    )
    assert lists.mrr() == pytest.approx((1 / 2 + 1) / 2)
    assert lists.hit_rate_at(1) == 0.5
    assert lists.hit_rate_at(2) == 1.0


def test_ties_count_as_the_mean_over_their_orders():
    # One negative above three tied rows with one positive, which is at rank 2, 3 or 4.
    one = RankedLists(A([0, 1, 0, 0]), A([0.9, 0.5, 0.5, 0.5]), np.zeros(4, int))
    assert one.mrr() == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert one.hit_rate_at(2) == pytest.approx(1 / 3)
    assert one.recall_at(3) == pytest.approx(2 / 3)
    # Two positives of three: the first is at rank 1 with chance 2/3, else at rank 2.
    two = RankedLists(A([1, 1, 0]), np.full(3, 0.5), np.zeros(3, int))
    assert two.mrr() == pytest.approx(2 / 3 * 1 + 1 / 3 * 1 / 2)
    assert two.hit_rate_at(1) == pytest.approx(2 / 3)
    assert two.recall_at(1) == pytest.approx(1 / 3)


@settings(deadline=None, max_examples=20)
@given(rows(max_size=12), st.integers(1, 4))
def test_top_ranks_equal_the_mean_over_random_orders_of_ties(case, k):
    y, s, _, owner = case
    lists = RankedLists(y, s, owner)
    expected = []
    for o in np.unique(owner):
        y_o, s_o = y[owner == o], s[owner == o]
        if y_o.sum() == 0 or y_o.size == 1:
            continue
        rng = np.random.default_rng(0)
        orders = [np.lexsort((rng.random(y_o.size), -s_o)) for _ in range(400)]
        first = np.array([np.flatnonzero(y_o[order])[0] + 1 for order in orders])
        recall = np.mean([y_o[order][:k].sum() / y_o.sum() for order in orders])
        expected.append(((1 / first).mean(), (first <= k).mean(), recall))
    if not expected:
        assert isinstance(lists.mrr(), UndefinedMetric)
        return
    values = (lists.mrr(), lists.hit_rate_at(k), lists.recall_at(k))
    assert values == pytest.approx(np.mean(expected, axis=0), abs=0.12)


# -- probabilities ---------------------------------------------------------------------------------


def test_logloss_is_a_weighted_mean():
    assert metrics.logloss(A([1, 0]), A([0.8, 0.4])) == pytest.approx(
        -(math.log(0.8) + math.log(0.6)) / 2
    )
    assert metrics.logloss(A([1, 0]), A([0.8, 0.4]), A([3, 1])) == pytest.approx(
        -(3 * math.log(0.8) + math.log(0.6)) / 4
    )


def test_logloss_of_a_saturated_mistake_is_finite():
    assert metrics.logloss(A([0]), A([1.0])) == pytest.approx(-math.log(1e-15), rel=1e-2)


def test_ne_of_the_base_rate_is_one():
    y = A([1, 0, 0, 0])
    assert metrics.ne(y, np.full(4, 0.25)) == pytest.approx(1.0)
    assert metrics.ne(A([1, 0]), np.full(2, 0.75), A([3.0, 1.0])) == pytest.approx(1.0)
    assert metrics.ne(A([0, 0]), A([0.1, 0.2])) == UndefinedMetric("no positives")


def test_pcoc_is_predicted_over_observed_positives():
    assert metrics.pcoc(A([1, 0, 1]), A([0.9, 0.3, 0.6])) == pytest.approx(0.9)
    assert metrics.pcoc(A([1, 0]), A([0.5, 0.5]), A([1.0, 3.0])) == pytest.approx(2.0)
    assert metrics.pcoc(A([0]), A([0.5])) == UndefinedMetric("no positives")


def test_ece_averages_the_bins():
    # Two bins: predictions .1, .3 (mean .2) with no positive, .6, .8 (mean .7) with both.
    assert metrics.ece(A([0, 0, 1, 1]), A([0.1, 0.3, 0.6, 0.8]), bins=2) == pytest.approx(
        (0.2 + 0.3) / 2
    )


def test_ece_bins_have_equal_weight():
    # Mass 4: the first row alone fills the first of two bins.
    value = metrics.ece(A([1, 0, 1]), A([0.2, 0.4, 0.6]), A([2.0, 1.0, 1.0]), bins=2)
    assert value == pytest.approx((0.8 + 0.0) / 2)


def test_ece_of_a_constant_is_its_distance_from_the_rate():
    assert metrics.ece(A([1, 1, 0, 0, 0]), np.full(5, 0.1)) == pytest.approx(0.3)


def test_ece_is_near_its_floor_only_when_calibrated():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 9, 20_000)
    y = (rng.random(p.size) < p).astype(int)
    floor = metrics.ece_floor(y, p)
    assert 0.3 * floor < metrics.ece(y, p) < 2 * floor
    assert metrics.ece(y, p**1.3) > 5 * metrics.ece_floor(y, p**1.3)


def test_ece_floor_falls_with_the_square_root_of_the_size():
    rng = np.random.default_rng(1)
    p = rng.beta(1, 9, 1_000)
    small = metrics.ece_floor(np.zeros(1_000), p)
    large = metrics.ece_floor(np.zeros(16_000), np.tile(p, 16))
    assert small / large == pytest.approx(4, rel=0.1)


def test_ece_floor_of_one_bin_is_the_mean_absolute_deviation_of_a_binomial():
    # n = 400, p = .5: sd of the rate .025, mean absolute deviation .025 * sqrt(2 / pi).
    value = metrics.ece_floor(np.zeros(400), np.full(400, 0.5), bins=1, repetitions=4000)
    assert value == pytest.approx(0.025 * math.sqrt(2 / math.pi), rel=0.04)


def test_ece_floor_of_sampled_negatives_matches_that_of_fresh_samples():
    rng = np.random.default_rng(2)
    p = np.full(20_000, 0.05)

    def sampled():
        y = rng.random(p.size) < p
        keep = y | (rng.random(p.size) < 0.1)
        return y[keep].astype(int), p[keep], np.where(y[keep], 1.0, 10.0)

    floor = metrics.ece_floor(*sampled(), bins=1)
    shown = np.mean([metrics.ece(*sampled(), bins=1) for _ in range(200)])
    assert floor == pytest.approx(shown, rel=0.25)


def test_ece_floor_depends_on_the_seed_alone():
    p = np.linspace(0.01, 0.5, 200)
    first, again, other = (metrics.ece_floor(np.zeros(200), p, seed=s) for s in (3, 3, 4))
    assert first == again != other


def test_calibration_curve_of_two_bins():
    low, high = metrics.calibration_curve(A([0, 1, 1, 1]), A([0.1, 0.3, 0.6, 0.8]), bins=2)
    assert (low.prediction, low.rate, low.rows) == pytest.approx((0.2, 0.5, 2))
    assert (high.prediction, high.rate, high.rows) == pytest.approx((0.7, 1.0, 2))
    assert low.standard_error == pytest.approx(math.sqrt(0.09 + 0.21) / 2)


def test_every_metric_is_undefined_without_rows():
    none, p = np.zeros(0, int), np.zeros(0)
    for metric in (
        metrics.auc,
        metrics.logloss,
        metrics.ne,
        metrics.pcoc,
        metrics.ece,
        metrics.ece_floor,
    ):
        assert metric(none, p) == UndefinedMetric("no rows")
    assert isinstance(metrics.gauc(none, p, none)[0], UndefinedMetric)
    assert isinstance(ndcg(none, p, none), UndefinedMetric)
    assert metrics.calibration_curve(none, p) == []


# -- properties of all metrics ------------------------------------------------------------------


@property_test
@given(rows())
def test_an_integer_weight_equals_repeated_rows(case):
    y, s, w, owner = case
    y2, s2, owner2 = repeated(*case)
    for metric in (metrics.auc, metrics.logloss, metrics.ne, metrics.pcoc, metrics.ece):
        assert equal(metric(y, s, w), metric(y2, s2)), metric.__name__
    assert equal(metrics.gauc(y, s, owner, w)[0], metrics.gauc(y2, s2, owner2)[0])
    rows_of = np.bincount(owner, w > 0, minlength=5)
    if (
        rows_of[np.unique(owner2)] > 1
    ).all():  # copies of one candidate do not make a ranking of it
        weighted, copies = RankedLists(y, s, owner, w), RankedLists(y2, s2, owner2)
        assert equal(weighted.ndcg_at(3), copies.ndcg_at(3))
        assert equal(weighted.recall_at(3), copies.recall_at(3))
        assert equal(weighted.hit_rate_at(3), copies.hit_rate_at(3))
        assert equal(weighted.mrr(), copies.mrr())


@property_test
@given(rows(), st.integers(0, 1000))
def test_the_order_of_rows_changes_no_metric(case, seed):
    y, s, w, owner = case
    o = np.random.default_rng(seed).permutation(y.size)
    for metric in (metrics.auc, metrics.logloss, metrics.ne, metrics.pcoc, metrics.ece):
        assert equal(metric(y, s, w), metric(y[o], s[o], w[o])), metric.__name__
    assert equal(metrics.gauc(y, s, owner, w)[0], metrics.gauc(y[o], s[o], owner[o], w[o])[0])
    assert equal(ndcg(y, s, owner, w), ndcg(y[o], s[o], owner[o], w[o]))


@property_test
@given(rows())
def test_bounded_metrics_stay_between_0_and_1(case):
    y, s, w, owner = case
    values = [
        metrics.auc(y, s, w),
        metrics.gauc(y, s, owner, w)[0],
        ndcg(y, s, owner, w),
        metrics.ece(y, s, w),
    ]
    assert all(isinstance(v, UndefinedMetric) or -1e-12 <= v <= 1 + 1e-12 for v in values)


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "field", "code", "values"),
    [
        ([0, 2], [0.1, 0.2], None, "labels", None, [0, 1, 2, "row 1"]),
        ([0, 1], [0.1, math.nan], None, "scores", None, ["nan", "row 1"]),
        ([0, 1], [0.1], None, "scores", "wrong_shape", [(2,), (1,)]),
        ([0, 1], [0.1, 0.2], [1.0, -1.0], "weights", None, [0, -1.0, "row 1"]),
    ],
)
def test_an_invalid_array_is_refused_by_name_and_row(labels, scores, weights, field, code, values):
    with raises(DataError, *values, code=code, field=field):
        metrics.auc(A(labels), A(scores), None if weights is None else A(weights))


def test_a_probability_above_one_is_refused_by_row():
    with raises(DataError, 0, 1, 1.5, "row 1", field="probabilities"):
        metrics.logloss(A([0, 1]), A([0.5, 1.5]))


# -- the same numbers as scikit-learn --------------------------------------------------------------


def weighted_rows(rows: int = 5000):
    """Labels, probabilities with ties, and weights."""
    rng = np.random.default_rng(8)
    p = rng.choice(np.round(rng.beta(1, 4, 200), 3).clip(0.001, 0.999), rows)
    return (rng.random(rows) < p).astype(int), p, rng.uniform(0.2, 5, rows)


def test_auc_and_logloss_equal_scikit_learn():
    y, p, w = weighted_rows()
    assert metrics.auc(y, p, w) == pytest.approx(
        sklearn.metrics.roc_auc_score(y, p, sample_weight=w), rel=1e-12
    )
    assert metrics.auc(y, p) == pytest.approx(sklearn.metrics.roc_auc_score(y, p), rel=1e-12)
    assert metrics.logloss(y, p, w) == pytest.approx(
        sklearn.metrics.log_loss(y, p, sample_weight=w), rel=1e-12
    )


def test_auc_under_resampled_weights_equals_scikit_learn():
    y, p, w = weighted_rows(500)
    pairs = metrics.RankedPairs(y, p)
    for seed in range(10):
        drawn = w * np.random.default_rng(seed).integers(0, 3, y.size)
        assert pairs.auc(drawn) == pytest.approx(
            sklearn.metrics.roc_auc_score(y, p, sample_weight=drawn), rel=1e-12
        )


@pytest.mark.parametrize("k", [1, 3, 10, 30])
def test_ndcg_equals_scikit_learn_with_ties(k):
    y, p, _ = weighted_rows()
    labels_RC, scores_RC = y.reshape(-1, 20), p.reshape(-1, 20)
    positive = labels_RC.any(axis=1)
    assert ndcg(y, p, np.arange(y.size) // 20, k=k) == pytest.approx(
        sklearn.metrics.ndcg_score(labels_RC[positive], scores_RC[positive], k=k), rel=1e-12
    )
