"""Statistics of experiments: values worked out by hand, and coverage in repetition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hemix.lab.abtest.effects import (
    Effect,
    Ratio,
    cuped_adjustment,
    minimum_detectable_effect,
    minimum_detectable_effect_paired,
    relative_difference,
    sample_ratio_p_value,
)


def test_a_ratio_and_its_influences_by_hand() -> None:
    """Clicks 1 and 3 of 4 and 4 impressions: the ratio is .5; the first user has 1 click less than
    the ratio gives, the second 1 more.
    """
    ratio = Ratio.of(np.array([1.0, 3]), np.array([4.0, 4]))
    assert ratio.value == 0.5
    assert ratio.influence.tolist() == [-1 / 8, 1 / 8]
    assert math.isnan(Ratio.of(np.zeros(2), np.zeros(2)).value)


def test_a_paired_difference_by_hand() -> None:
    """.5 against .25: +100 %.

    Influences relative to the base: (-1/8, 1/8) / .25 - (0, 0) * .5 / .0625 = (-.5, .5).
    """
    arm = Ratio.of(np.array([1.0, 3]), np.array([4.0, 4]))
    base = Ratio.of(np.array([1.0, 1]), np.array([4.0, 4]))
    effect = relative_difference(arm, base, paired=True)
    assert effect.relative == 1.0
    assert effect.standard_error == pytest.approx(math.sqrt((0.25 + 0.25) * 2 / 1))
    low, high = effect.interval()
    assert (low + high) / 2 == 1 and high - low == pytest.approx(
        2 * 1.959964 * effect.standard_error
    )


def test_an_arm_against_itself_has_no_difference_and_no_error_when_paired() -> None:
    ratio = Ratio.of(np.array([1.0, 3, 0]), np.array([4.0, 4, 2]))
    effect = relative_difference(ratio, ratio, paired=True)
    assert (effect.relative, effect.standard_error, effect.p_value) == (0.0, 0.0, 1.0)
    assert relative_difference(ratio, ratio, paired=False).standard_error > 0


def test_cuped_removes_a_difference_from_before_the_experiment() -> None:
    """Users do exactly what they did before, so the whole difference existed before."""
    rng = np.random.default_rng(0)
    shown = np.full(50, 10.0)
    clicks_a = rng.integers(0, 5, 50).astype(float)
    clicks_b = rng.integers(1, 6, 50).astype(float)
    a, b = Ratio.of(clicks_a, shown), Ratio.of(clicks_b, shown)
    both = Ratio.of(np.concatenate([clicks_a, clicks_b]), np.concatenate([shown, shown]))
    plain = relative_difference(a, b, paired=False)
    adjustment = cuped_adjustment(a, b, a, b, both)
    adjusted = relative_difference(a, b, paired=False, adjustment=adjustment)
    assert abs(plain.relative) > 0.2
    assert abs(adjusted.relative) < abs(plain.relative) / 3
    assert adjusted.standard_error < plain.standard_error / 3


def test_95_percent_intervals_with_and_without_cuped_cover_the_true_effect() -> None:
    """Users with different click rates; those of the first arm click 10 % more. 400 repetitions."""
    rng, covered, widths = np.random.default_rng(1), [0, 0], [0.0, 0.0]
    for _ in range(400):
        sides = []
        for lift in (1.1, 1.0):
            rate, shown = rng.beta(2, 18, 300), rng.integers(5, 40, 300)
            sides.append(
                (
                    Ratio.of(rng.binomial(shown, np.minimum(1, rate * lift)) * 1.0, shown * 1.0),
                    rng.binomial(30, rate) * 1.0,
                )
            )
        (a, before_a), (b, before_b) = sides
        thirty = np.full(300, 30.0)
        both = Ratio.of(np.concatenate([before_a, before_b]), np.full(600, 30.0))
        cuped = cuped_adjustment(a, b, Ratio.of(before_a, thirty), Ratio.of(before_b, thirty), both)
        for index, adjustment in enumerate((None, cuped)):
            effect = relative_difference(a, b, paired=False, adjustment=adjustment)
            low, high = effect.interval()
            covered[index] += low <= 0.1 <= high
            widths[index] += effect.standard_error
    assert all(370 <= count <= 392 for count in covered)
    assert widths[1] < 0.85 * widths[0]


def test_always_valid_intervals_cover_0_at_all_looks_together() -> None:
    """No effect, 50 looks: the fixed interval excludes 0 at some look far too often."""
    rng, fixed_errors, always_valid_errors = np.random.default_rng(2), 0, 0
    for _ in range(300):
        means = rng.normal(size=5000).cumsum()[99::100] / np.arange(100, 5001, 100)
        effects = [
            Effect(relative=m, standard_error=1 / math.sqrt(n))
            for m, n in zip(means, range(100, 5001, 100), strict=True)
        ]
        fixed = [effect.interval() for effect in effects]
        always_valid = [effect.always_valid_interval(0.05) for effect in effects]
        fixed_errors += any(not low <= 0 <= high for low, high in fixed)
        always_valid_errors += any(not low <= 0 <= high for low, high in always_valid)
    assert fixed_errors > 60 and always_valid_errors <= 20


def test_the_sample_ratio_test_by_hand() -> None:
    """60 and 40 users: chi-square 4 with 1 degree of freedom; 40, 30, 30 and 20: 6.67 with 3."""
    assert sample_ratio_p_value([50, 50]) == 1
    assert sample_ratio_p_value([60, 40]) == pytest.approx(0.0455, abs=1e-4)
    assert sample_ratio_p_value([40, 30, 30, 20]) == pytest.approx(0.0833, abs=1e-4)
    assert sample_ratio_p_value([60, 40, 35]) == pytest.approx(
        math.exp(-(15**2 + 5**2 + 10**2) / 45 / 2), abs=1e-9
    )


def test_the_detectable_effect_of_the_split_design_by_hand() -> None:
    """Half of the users order once: mean .5, deviation .5, so the relative deviation is 1."""
    ratio = Ratio.of(np.array([0.0, 1] * 50), np.ones(100))
    assert minimum_detectable_effect(ratio, 200, 2) == pytest.approx(
        2.8016 * math.sqrt(2 / 100) * math.sqrt(100 / 99), rel=1e-3
    )


def test_the_detectable_effect_of_the_paired_design_by_hand() -> None:
    """With the second ranker half of the users do .5 more and half .5 less, around a mean of 1: the
    relative deviation of the differences is .5.
    """
    rng = np.random.default_rng(0)
    orders = rng.uniform(0, 2, 100)
    orders += 1 - orders.mean()
    first = Ratio.of(orders, np.ones(100))
    second = Ratio.of(orders + np.array([0.5, -0.5] * 50), np.ones(100))
    assert minimum_detectable_effect_paired(first, second, 400) == pytest.approx(
        2.8016 * 0.5 / math.sqrt(400) * math.sqrt(100 / 99), rel=1e-3
    )
    assert minimum_detectable_effect_paired(first, first, 400) == 0
    assert minimum_detectable_effect_paired(first, second, 400) < minimum_detectable_effect(
        second, 400, 2
    )


def test_the_detectable_effect_is_detected_in_about_80_percent_of_repetitions() -> None:
    """Users differ much from each other in their orders, and little between the arms."""
    rng, detected = np.random.default_rng(3), 0

    def simulate_arms(lift: float, users: int) -> tuple[Ratio, Ratio]:
        orders = rng.gamma(1.0, 5.0, users)
        return tuple(
            Ratio.of(orders * (1 + effect) + rng.normal(0, 1, users), np.ones(users))
            for effect in (lift, 0.0)
        )  # type: ignore[return-value]

    detectable = minimum_detectable_effect_paired(*simulate_arms(0.0, 5000), 600)
    for _ in range(300):
        effect = relative_difference(*simulate_arms(detectable, 600), paired=True)
        detected += effect.p_value < 0.05
    assert 210 <= detected <= 270
