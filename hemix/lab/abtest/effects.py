"""Ratio metrics of arms and their relative differences with intervals.

A metric is sum(numerator) / sum(denominator) over users. By the delta method (Deng, Knoblich and
Lu, 2018), its error is to first order a sum of one influence per user. Users are the units: all
that a user does is one observation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from hemix.evaluation.intervals import NORMAL_97_5
from hemix.lab.simulator.arrays import Float64Array

__all__ = [
    "METRICS",
    "CupedAdjustment",
    "Effect",
    "Ratio",
    "cuped_adjustment",
    "minimum_detectable_effect",
    "minimum_detectable_effect_paired",
    "relative_difference",
    "sample_ratio_p_value",
]

METRICS: dict[str, tuple[str, str]] = {
    "pv_ctr": ("clicks", "shown"),
    "uv_cvr": ("ordering_users", "active_users"),
    "gmv_per_user": ("gmv", "users"),
    "requests_per_session": ("requests", "sessions"),
    "km_per_order": ("km", "orders"),
    "new_place_share": ("new_places", "orders"),
}
"""Numerator and denominator of every metric."""

_DETECTION_Z = NORMAL_97_5 + float(special.ndtri(0.8))
"""Standard errors of an effect that a two-sided test at 5 % detects with 80 % power."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Hold a ratio metric of U users."""

    value: float
    influence: Float64Array
    """[U]: effect of every user on the value, to first order; sums to 0."""
    contributing_users: int
    """Users whose denominator is not 0."""

    @classmethod
    def of(cls, numerator: Float64Array, denominator: Float64Array) -> Ratio:
        """Compute a ratio metric.

        Args:
            numerator: Numerators [U] by user.
            denominator: Denominators [U] by user.

        Returns:
            The metric; NaN with influences of 0 if all denominators are 0.
        """
        total, contributing = float(denominator.sum()), int(np.count_nonzero(denominator))
        if total == 0:
            return cls(
                value=math.nan,
                influence=np.zeros(len(numerator)),
                contributing_users=contributing,
            )
        value = float(numerator.sum()) / total
        return cls(
            value=value,
            influence=(numerator - value * denominator) / total,
            contributing_users=contributing,
        )


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Hold a relative difference: 0.02 is 2 % more."""

    relative: float
    standard_error: float

    def interval(self, z: float = NORMAL_97_5) -> tuple[float, float]:
        """Return the interval of z standard errors on either side, by default 95 %."""
        return self.relative - z * self.standard_error, self.relative + z * self.standard_error

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference, from the normal distribution."""
        if self.standard_error == 0:
            return 1.0 if self.relative == 0 else 0.0
        return 2 * float(special.ndtr(-abs(self.relative) / self.standard_error))

    def always_valid_interval(self, expected: float, alpha: float = 0.05) -> tuple[float, float]:
        """Return an interval that holds at all looks together.

        The mixture sequential probability ratio test gives it (Johari, Pekelis and Walsh, "Always
        valid inference", 2015, theorem 2). One may stop as soon as the interval excludes 0.

        Args:
            expected: Relative effect at which the interval is narrowest.
            alpha: Probability that the interval misses the effect at any look.

        Returns:
            Lower and upper end.
        """
        variance = self.standard_error**2
        if variance == 0:
            return self.relative, self.relative
        mixture_variance = expected**2
        half_width = math.sqrt(
            variance
            * (variance + mixture_variance)
            / mixture_variance
            * (math.log((variance + mixture_variance) / variance) - 2 * math.log(alpha))
        )
        return self.relative - half_width, self.relative + half_width


@dataclass(frozen=True, kw_only=True)
class CupedAdjustment:
    """Hold what the pre-period explains of a relative difference, to subtract from it."""

    arm_influence: Float64Array
    base_influence: Float64Array
    difference: float


def relative_difference(
    arm: Ratio, base: Ratio, *, paired: bool, adjustment: CupedAdjustment | None = None
) -> Effect:
    """Compute arm / base - 1 with its standard error.

    Args:
        arm: Metric of the arm.
        base: Metric of the other arm.
        paired: Whether both are of the same users in the same order.
        adjustment: What the pre-period explains, for unpaired users.

    Returns:
        The relative difference.
    """
    arm_influence, base_influence = _relative_influences(arm, base)
    relative = arm.value / base.value - 1
    if paired:
        variance = _variance_of_sum(arm_influence + base_influence)
        return Effect(relative=relative, standard_error=math.sqrt(variance))
    if adjustment is not None:
        arm_influence = arm_influence - adjustment.arm_influence
        base_influence = base_influence - adjustment.base_influence
        relative -= adjustment.difference
    variance = _variance_of_sum(arm_influence) + _variance_of_sum(base_influence)
    return Effect(relative=relative, standard_error=math.sqrt(variance))


def cuped_adjustment(
    arm: Ratio, base: Ratio, arm_before: Ratio, base_before: Ratio, all_before: Ratio
) -> CupedAdjustment:
    """Compute the CUPED adjustment (Deng et al. 2013) on influences.

    Args:
        arm: Metric of the arm.
        base: Metric of the other arm, with other users.
        arm_before: Pre-period metric of the arm's users.
        base_before: Pre-period metric of the other arm's users.
        all_before: Pre-period metric of all users, to which the adjustment is relative.

    Returns:
        Theta times the pre-period's relative difference, with the theta of the least variance.
    """
    arm_influence, base_influence = _relative_influences(arm, base)
    arm_covariate = arm_before.influence / all_before.value
    base_covariate = -(base_before.influence / all_before.value)
    covariate_variance = float((arm_covariate**2).sum() + (base_covariate**2).sum())
    theta = 0.0
    if covariate_variance > 0:
        covariance = float(
            (arm_influence * arm_covariate).sum() + (base_influence * base_covariate).sum()
        )
        theta = covariance / covariate_variance
    difference = (arm_before.value - base_before.value) / all_before.value
    return CupedAdjustment(
        arm_influence=theta * arm_covariate,
        base_influence=theta * base_covariate,
        difference=theta * difference,
    )


def _relative_influences(arm: Ratio, base: Ratio) -> tuple[Float64Array, Float64Array]:
    # with a numerator of 0 neither the arm nor the ratio has an error: the base's error stands in
    ratio = arm.value / base.value if arm.value else 1.0
    return arm.influence / base.value, -(base.influence / base.value) * ratio


def minimum_detectable_effect(ratio: Ratio, users: int, arm_count: int = 2) -> float:
    """Compute the relative difference that a split design detects with 80 % power at 5 %.

    Args:
        ratio: Metric of some users over the same number of days.
        users: Number of users, divided evenly among the arms.
        arm_count: Number of arms.

    Returns:
        The relative difference; NaN if the metric is 0 or of fewer than two users.
    """
    if not ratio.value or ratio.contributing_users < 2:
        return math.nan
    user_deviation = math.sqrt(_variance_of_sum(ratio.influence) * len(ratio.influence)) / abs(
        ratio.value
    )
    return _DETECTION_Z * user_deviation * math.sqrt(2 / (users / arm_count))


def minimum_detectable_effect_paired(first: Ratio, second: Ratio, users: int) -> float:
    """Compute the relative difference that a paired design detects with 80 % power at 5 %.

    Args:
        first: Metric of some users with one ranker.
        second: Metric of the same users, in the same order, with another ranker; the more the
            rankers differ, the larger the result.
        users: Number of users in both arms.

    Returns:
        The relative difference; NaN if a metric is 0 or of fewer than two users.
    """
    if not (first.value and second.value):
        return math.nan
    if min(first.contributing_users, second.contributing_users) < 2:
        return math.nan
    difference = first.influence / first.value - second.influence / second.value
    return _DETECTION_Z * math.sqrt(_variance_of_sum(difference) * len(difference) / users)


def sample_ratio_p_value(counts: Sequence[int]) -> float:
    """Return the p-value of the chi-square test that all arms have equally many users."""
    expected = sum(counts) / len(counts)
    statistic = sum((count - expected) ** 2 for count in counts) / expected
    return float(special.chdtrc(len(counts) - 1, statistic))


def _variance_of_sum(influence: Float64Array) -> float:
    users = len(influence)
    return float((influence**2).sum()) * users / (users - 1) if users > 1 else 0.0
