"""What an arm does to clicks, orders and money: ratios of sums over users, and their relative
differences with intervals.

A metric is sum(numerator) / sum(denominator) over users; to first order its error is a sum over
users of an influence (the delta method), also that of a relative difference (Deng, Knoblich and Lu,
"Applying the delta method in metric analytics", 2018). Users are the units: whatever one user does
is one observation. Knows numbers by user, neither arms nor the city.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "METRICS",
    "Covariate",
    "Effect",
    "Ratio",
    "cuped",
    "minimum_detectable",
    "minimum_detectable_paired",
    "relative_difference",
    "sample_ratio_p",
]

Floats = npt.NDArray[np.float64]

METRICS: dict[str, tuple[str, str]] = {
    "pv_ctr": ("clicks", "shown"),
    "uv_cvr": ("ordered", "active"),
    "gmv_per_user": ("gmv", "one"),
    "requests_per_session": ("requests", "sessions"),
    "km_per_order": ("km", "orders"),
    "new_place_share": ("new_places", "orders"),
}
"""Numerator and denominator of every metric, by user: clicks over impressions, users who ordered
over users who came, money a user...
"""

_Z95 = 1.959963984540054
_Z80 = 0.8416212335729143
"""Above the 5 % threshold, for 80 % power"""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """sum(numerator) / sum(denominator) over users, and every user's influence on it: value +
    sum(influence) follows any reweighting to first order.
    """

    value: float
    influence: Floats
    """[U]; sums to 0"""
    counted: int
    """Users whose denominator is not 0"""

    @classmethod
    def of(cls, numerator: Floats, denominator: Floats) -> Ratio:
        """NaN with influences of 0 where the denominator is 0 throughout."""
        total, counted = float(denominator.sum()), int(np.count_nonzero(denominator))
        if total == 0:
            return cls(value=math.nan, influence=np.zeros(len(numerator)), counted=counted)
        value = float(numerator.sum()) / total
        return cls(
            value=value, influence=(numerator - value * denominator) / total, counted=counted
        )


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A relative difference to another arm: .02 is 2 % more."""

    relative: float
    standard_error: float

    def interval(self, z: float = _Z95) -> tuple[float, float]:
        """relative -+ z standard errors: by default 95 %."""
        return self.relative - z * self.standard_error, self.relative + z * self.standard_error

    @property
    def p(self) -> float:
        """Two-sided, of no difference."""
        if self.standard_error == 0:
            return 1.0 if self.relative == 0 else 0.0
        return math.erfc(abs(self.relative) / self.standard_error / math.sqrt(2))

    def always_valid(self, expected: float, alpha: float = 0.05) -> tuple[float, float]:
        """An interval that holds at all looks together (mixture sequential test: Johari, Pekelis
        and Walsh, "Always valid inference", 2015, theorem 2): one may stop whenever it leaves 0
        behind. ``expected``: the relative effect that it is sharpest for.
        """
        variance = self.standard_error**2
        if variance == 0:
            return self.relative, self.relative
        gain = expected**2
        half = math.sqrt(
            variance
            * (variance + gain)
            / gain
            * (math.log((variance + gain) / variance) - 2 * math.log(alpha))
        )
        return self.relative - half, self.relative + half


def relative_difference(
    arm: Ratio, base: Ratio, *, paired: bool, covariate: Covariate | None = None
) -> Effect:
    """arm / base - 1.

    ``paired``: both influences [U] are of the same users, in the same order; else of different
    ones. ``covariate``: what is known of different users from before (:func:`cuped`).
    """
    of_arm, of_base = _relative_influences(arm, base)
    relative = arm.value / base.value - 1
    if paired:
        return Effect(relative=relative, standard_error=math.sqrt(_sum_variance(of_arm + of_base)))
    if covariate is not None:
        of_arm, of_base = of_arm - covariate.of_arm, of_base - covariate.of_base
        relative -= covariate.difference
    return Effect(
        relative=relative, standard_error=math.sqrt(_sum_variance(of_arm) + _sum_variance(of_base))
    )


@dataclass(frozen=True, kw_only=True)
class Covariate:
    """What a period that one policy served for all takes off a difference."""

    of_arm: Floats
    of_base: Floats
    difference: float


def cuped(
    arm: Ratio, base: Ratio, arm_before: Ratio, base_before: Ratio, whole_before: Ratio
) -> Covariate:
    """CUPED (Deng et al. 2013) on influences: theta times what the same users did before, relative
    to all users then (``whole_before``), with the theta that leaves the least variance.
    """
    of_arm, of_base = _relative_influences(arm, base)
    before = [one.influence / whole_before.value for one in (arm_before, base_before)]
    before[1] = -before[1]
    spread = float((before[0] ** 2).sum() + (before[1] ** 2).sum())
    theta = (
        float((of_arm * before[0]).sum() + (of_base * before[1]).sum()) / spread
        if spread > 0
        else 0.0
    )
    difference = (arm_before.value - base_before.value) / whole_before.value
    return Covariate(
        of_arm=theta * before[0], of_base=theta * before[1], difference=theta * difference
    )


def _relative_influences(arm: Ratio, base: Ratio) -> tuple[Floats, Floats]:
    # Where an arm has nothing at all, neither its own influences nor the ratio says how sure that
    # is: then the base's error does.
    ratio = arm.value / base.value if arm.value else 1.0
    return arm.influence / base.value, -(base.influence / base.value) * ratio


def minimum_detectable(ratio: Ratio, users: int, arms: int = 2) -> float:
    """The relative difference between two arms that ``users``, divided evenly among ``arms``, show
    with 80 % power at 5 %, from what some users did in as much time.
    """
    if not ratio.value or ratio.counted < 2:
        return math.nan
    one = math.sqrt(_sum_variance(ratio.influence) * len(ratio.influence)) / abs(ratio.value)
    return (_Z95 + _Z80) * one * math.sqrt(2 / (users / arms))


def minimum_detectable_paired(one: Ratio, two: Ratio, users: int) -> float:
    """The relative difference that ``users`` who live in both arms show with 80 % power at 5 %,
    from what the same users, in the same order, did with two rankers: the more these differ, the
    more differences between users vary.
    """
    if not (one.value and two.value) or min(one.counted, two.counted) < 2:
        return math.nan
    difference = one.influence / one.value - two.influence / two.value
    return (_Z95 + _Z80) * math.sqrt(_sum_variance(difference) * len(difference) / users)


def sample_ratio_p(counts: Sequence[int]) -> float:
    """p of the chi-square test that arms got equal shares of the users.

    Below .001 something divides them wrongly.
    """
    expected = sum(counts) / len(counts)
    statistic = sum((count - expected) ** 2 for count in counts) / expected
    degrees = len(counts) - 1
    return _chi_square_above(statistic, degrees)


def _sum_variance(influence: Floats) -> float:
    users = len(influence)
    return float((influence**2).sum()) * users / (users - 1) if users > 1 else 0.0


def _chi_square_above(statistic: float, degrees: int) -> float:
    """1 - the distribution function, by its recurrence over degrees of freedom."""
    half = statistic / 2
    if degrees % 2:
        above, term, start = (
            math.erfc(math.sqrt(half)),
            math.sqrt(half / math.pi) * 2 * math.exp(-half),
            3,
        )
    else:
        above, term, start = math.exp(-half), half * math.exp(-half), 4
    for of in range(start, degrees + 1, 2):
        above += term
        term *= half / (of / 2)
    return min(1.0, above)
