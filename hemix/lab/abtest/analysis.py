"""Analyse arm results: totals, effects by metric and day, and positions between the bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np

from hemix.lab.abtest.effects import (
    METRICS,
    Effect,
    Ratio,
    cuped_adjustment,
    minimum_detectable_effect,
    minimum_detectable_effect_paired,
    relative_difference,
)
from hemix.lab.abtest.measures import ArmResult, DailyMeasures

__all__ = ["analyse_arms", "analyse_power", "metric_effect"]

_DEFAULT_EXPECTED_EFFECT = 0.02
_HEADLINE_METRICS = ("pv_ctr", "uv_cvr", "gmv_per_user")
"""Clicks per shown venue (page views); active users who order (unique visitors); amount of all
orders (gross merchandise value) per user."""


def analyse_arms(
    arms: Mapping[str, ArmResult],
    *,
    paired: bool,
    pre_period: Mapping[str, DailyMeasures] | None = None,
    expected: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """Analyse the arms of an experiment.

    Every pair of arms has its effects, of the earlier arm relative to the later one. Paired effects
    are of the users that both arms have. With arms named ``oracle`` and ``popularity``, every arm
    has its position between them, 0 for popularity and 1 for the oracle.

    Args:
        arms: Results by arm.
        paired: Whether every user is in every arm.
        pre_period: Measures of the same users before the experiment by arm, for CUPED.
        expected: Relative effect by metric, chosen before, at which always-valid intervals are
            narrowest; by default 2 %.

    Returns:
        The keys ``arms``, ``effects``, ``looks``, ``between_floor_and_ceiling`` of
        experiment.json, and ``absent_effects`` if there are any.
    """
    effects, looks, absent = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for arm, base in combinations(arms, 2):
        pair = _pair_measures(arms[arm], arms[base], paired=paired)
        before = None if paired or pre_period is None else (pre_period[arm], pre_period[base])
        for metric in METRICS:
            expected_effect = (expected or {}).get(metric) or _DEFAULT_EXPECTED_EFFECT
            header = {"arm": arm, "against": base, "metric": metric}
            effect = metric_effect(*pair, metric, paired=paired, pre_period=before)
            if effect is None:
                if _has_one_user(pair, metric):
                    absent.append({**header, "reason": "fewer than two users"})
                continue
            user_count = {"users": len(pair[0]["shown"])}
            effects.append({**header, **user_count, **_effect_entry(effect, expected_effect)})
            for day in range(1, pair[0]["shown"].shape[1] + 1):
                look = metric_effect(*pair, metric, days=day, paired=paired, pre_period=before)
                if look is not None:
                    looks.append({**header, "day": day, **_effect_entry(look, expected_effect)})
    has_bounds = {"oracle", "popularity"} <= arms.keys()
    return {
        "arms": {name: _totals(result.measures) for name, result in arms.items()},
        "effects": effects,
        "looks": looks,
        **({"absent_effects": absent} if absent else {}),
        "between_floor_and_ceiling": _relative_to_bounds(arms, paired) if has_bounds else {},
    }


def analyse_power(
    first: DailyMeasures, second: DailyMeasures, users: int, arm_count: int | None
) -> dict[str, float | None]:
    """Compute the relative differences that the experiment detects with 80 % power.

    Args:
        first: Measures of some users with one ranker, over the planned number of days.
        second: Measures of the same users with another ranker.
        users: Planned number of users.
        arm_count: Arms among which the users are split; None for the paired design.

    Returns:
        Relative difference by metric; None if a metric is not defined.
    """
    differences = {
        metric: minimum_detectable_effect_paired(
            _ratio(first, metric), _ratio(second, metric), users
        )
        if arm_count is None
        else minimum_detectable_effect(_ratio(second, metric), users, arm_count)
        for metric in METRICS
    }
    return {metric: _none_if_nan(difference) for metric, difference in differences.items()}


def metric_effect(
    arm: DailyMeasures,
    base: DailyMeasures,
    metric: str,
    *,
    days: int | None = None,
    paired: bool = False,
    pre_period: tuple[DailyMeasures, DailyMeasures] | None = None,
) -> Effect | None:
    """Compute the effect of one metric.

    Args:
        arm: Measures of the arm.
        base: Measures of the other arm.
        metric: Name of METRICS.
        days: Number of first days to use, by default all.
        paired: Whether both arms have the same users in the same order.
        pre_period: Measures of both arms' users before the experiment, for CUPED. It is not used if
            the metric was not defined then.

    Returns:
        The effect. None if the metric is not defined in an arm or is 0 in the other arm. None also
        if an arm has fewer than two users with the metric: the interval would have no width.
    """
    ratio, base_ratio = _ratio(arm, metric, days), _ratio(base, metric, days)
    if math.isnan(ratio.value) or math.isnan(base_ratio.value) or base_ratio.value == 0:
        return None
    if min(ratio.contributing_users, base_ratio.contributing_users) < 2:
        return None
    if pre_period is None:
        return relative_difference(ratio, base_ratio, paired=paired)
    arm_before, base_before = (_ratio(measures, metric) for measures in pre_period)
    all_users = {
        name: np.concatenate([measures[name] for measures in pre_period]) for name in pre_period[0]
    }
    all_before = _ratio(all_users, metric)
    values_before = (arm_before.value, base_before.value, all_before.value)
    if all_before.value == 0 or any(math.isnan(value) for value in values_before):
        return relative_difference(ratio, base_ratio, paired=False)
    adjustment = cuped_adjustment(ratio, base_ratio, arm_before, base_before, all_before)
    return relative_difference(ratio, base_ratio, paired=False, adjustment=adjustment)


def _has_one_user(pair: Sequence[DailyMeasures], metric: str) -> bool:
    """Whether both arms have the metric, and one arm has it of one user only."""
    return min(_ratio(measures, metric).contributing_users for measures in pair) == 1


def _totals(measures: DailyMeasures) -> dict[str, Any]:
    """An arm's users, requests and metrics; None for a metric that is not defined."""
    values = {metric: _none_if_nan(_ratio(measures, metric).value) for metric in METRICS}
    return {"users": len(measures["shown"]), "requests": int(measures["requests"].sum()), **values}


def _relative_to_bounds(arms: Mapping[str, ArmResult], paired: bool) -> dict[str, dict[str, float]]:
    """The positions of arms between popularity (0) and the oracle (1), by metric."""
    measures = [result.measures for result in arms.values()]
    if paired:
        measures = _common_users(list(arms.values()))
    values = {
        name: {metric: _ratio(own, metric).value for metric in _HEADLINE_METRICS}
        for name, own in zip(arms, measures, strict=True)
    }
    floor, ceiling = values["popularity"], values["oracle"]
    width = {metric: ceiling[metric] - floor[metric] for metric in _HEADLINE_METRICS}
    return {
        name: {
            metric: (own[metric] - floor[metric]) / width[metric]
            for metric in _HEADLINE_METRICS
            if not math.isnan(own[metric] + width[metric]) and width[metric]
        }
        for name, own in values.items()
    }


def _ratio(measures: DailyMeasures, metric: str, days: int | None = None) -> Ratio:
    sums = {name: values[:, :days].sum(1) for name, values in measures.items()}
    sums["ordering_users"] = (sums["orders"] > 0).astype(np.float64)
    sums["active_users"] = (sums["sessions"] > 0).astype(np.float64)
    sums["users"] = np.ones(len(sums["orders"]))
    numerator, denominator = METRICS[metric]
    return Ratio.of(sums[numerator], sums[denominator])


def _pair_measures(
    arm: ArmResult, base: ArmResult, *, paired: bool
) -> tuple[DailyMeasures, DailyMeasures]:
    if not paired:
        return arm.measures, base.measures
    arm_measures, base_measures = _common_users([arm, base])
    return arm_measures, base_measures


def _common_users(arms: Sequence[ArmResult]) -> list[DailyMeasures]:
    """The measures of the users that all arms have, in the same order."""
    users = reduce(np.intersect1d, [arm.users for arm in arms])
    measures = list[DailyMeasures]()
    for arm in arms:
        _, rows, _ = np.intersect1d(arm.users, users, return_indices=True)
        measures.append({name: values[rows] for name, values in arm.measures.items()})
    return measures


def _effect_entry(effect: Effect, expected: float) -> dict[str, Any]:
    return {
        "relative_delta": effect.relative,
        "ci95": list(effect.interval()),
        "always_valid_ci95": list(effect.always_valid_interval(expected)),
        "p": effect.p_value,
    }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
