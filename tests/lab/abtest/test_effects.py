"""Statistics of experiments: worked out by hand, and right in repetition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hemix.lab.abtest.effects import (
    Effect,
    Ratio,
    cuped,
    minimum_detectable,
    minimum_detectable_paired,
    relative_difference,
    sample_ratio_p,
)


def test_a_ratio_and_its_influences_by_hand() -> None:
    """Clicks 1, 3 over 4, 4 impressions: .5; the first user is 1 below what 4 impressions should
    give, the second 1 above.
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
    assert (effect.relative, effect.standard_error, effect.p) == (0.0, 0.0, 1.0)
    assert relative_difference(ratio, ratio, paired=False).standard_error > 0


def test_cuped_takes_off_what_was_there_before() -> None:
    """What users do now is what they did before, exactly: the difference between the sides was
    there before, and nothing is left.
    """
    rng = np.random.default_rng(0)
    shown = np.full(50, 10.0)
    one, two = rng.integers(0, 5, 50).astype(float), rng.integers(1, 6, 50).astype(float)
    a, b = Ratio.of(one, shown), Ratio.of(two, shown)
    whole = Ratio.of(np.concatenate([one, two]), np.concatenate([shown, shown]))
    plain = relative_difference(a, b, paired=False)
    adjusted = relative_difference(a, b, paired=False, covariate=cuped(a, b, a, b, whole))
    assert abs(plain.relative) > 0.2
    assert abs(adjusted.relative) < abs(plain.relative) / 3
    assert adjusted.standard_error < plain.standard_error / 3


def test_intervals_with_and_without_cuped_hold_the_truth() -> None:
    """Two arms of users whose rates differ from user to user; the second clicks 10 % more. 400
    repetitions.
    """
    rng, held, widths = np.random.default_rng(1), [0, 0], [0.0, 0.0]
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
        whole = Ratio.of(np.concatenate([before_a, before_b]), np.full(600, 30.0))
        covariate = cuped(a, b, Ratio.of(before_a, thirty), Ratio.of(before_b, thirty), whole)
        for which, found in enumerate((None, covariate)):
            effect = relative_difference(a, b, paired=False, covariate=found)
            low, high = effect.interval()
            held[which] += low <= 0.1 <= high
            widths[which] += effect.standard_error
    assert all(370 <= count <= 392 for count in held)
    assert widths[1] < 0.85 * widths[0]


def test_always_valid_intervals_are_wider_and_hold_at_all_looks_together() -> None:
    """A walk without drift, looked at 50 times: the fixed interval leaves 0 out at some look far
    too often, the other one rarely.
    """
    rng, fixed, always = np.random.default_rng(2), 0, 0
    for _ in range(300):
        means = rng.normal(size=5000).cumsum()[99::100] / np.arange(100, 5001, 100)
        effects = [
            Effect(relative=m, standard_error=1 / math.sqrt(n))
            for m, n in zip(means, range(100, 5001, 100), strict=True)
        ]
        fixed += any(not low <= 0 <= high for low, high in (e.interval() for e in effects))
        always += any(not low <= 0 <= high for low, high in (e.always_valid(0.05) for e in effects))
    assert fixed > 60 and always <= 20


def test_equal_shares_by_hand() -> None:
    """50 against 50: 1. 60 against 40: chi-square 4 with 1 degree, p .0455; 40, 30, 30 and 20: 6.67
    with 3, .0833; 9 of 3: .0111.
    """
    assert sample_ratio_p([50, 50]) == 1
    assert sample_ratio_p([60, 40]) == pytest.approx(0.0455, abs=1e-4)
    assert sample_ratio_p([40, 30, 30, 20]) == pytest.approx(0.0833, abs=1e-4)
    assert sample_ratio_p([60, 40, 35]) == pytest.approx(
        math.exp(-(15**2 + 5**2 + 10**2) / 45 / 2), abs=1e-9
    )


def test_the_power_by_hand() -> None:
    """One order each by half of the users: mean .5, a user's deviation .5, relatively 1: 2.8016
    sqrt(2 / 100), and n / (n - 1).
    """
    ratio = Ratio.of(np.array([0.0, 1] * 50), np.ones(100))
    assert minimum_detectable(ratio, 200, 2) == pytest.approx(
        2.8016 * math.sqrt(2 / 100) * math.sqrt(100 / 99), rel=1e-3
    )


def test_the_power_of_users_who_live_twice_by_hand() -> None:
    """Half of 100 users do .5 more and half .5 less with the other ranker, around 1: relative
    deviation .5 of the differences.
    """
    rng = np.random.default_rng(0)
    own = rng.uniform(0, 2, 100)
    own += 1 - own.mean()
    one, two = Ratio.of(own, np.ones(100)), Ratio.of(own + np.array([0.5, -0.5] * 50), np.ones(100))
    assert minimum_detectable_paired(one, two, 400) == pytest.approx(
        2.8016 * 0.5 / math.sqrt(400) * math.sqrt(100 / 99), rel=1e-3
    )
    assert minimum_detectable_paired(one, one, 400) == 0
    assert minimum_detectable_paired(one, two, 400) < minimum_detectable(two, 400, 2)


def test_the_power_said_before_holds_in_repetition() -> None:
    """Users whose orders differ much from each other and little between arms: the effect said to be
    seen is seen in about 80 %.
    """
    rng, seen = np.random.default_rng(3), 0

    def lives(lift: float, users: int) -> tuple[Ratio, Ratio]:
        own = rng.gamma(1.0, 5.0, users)
        return tuple(
            Ratio.of(own * (1 + by) + rng.normal(0, 1, users), np.ones(users)) for by in (lift, 0.0)
        )  # type: ignore[return-value]

    visible = minimum_detectable_paired(*lives(0.0, 5000), 600)
    for _ in range(300):
        seen += relative_difference(*lives(visible, 600), paired=True).p < 0.05
    assert 210 <= seen <= 270
