"""From what users did in every arm to effects: by metric, by look, beside floor and ceiling.

Knows arrays by user and day, no arm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.lab.abtest.effects import (
    METRICS,
    Effect,
    Ratio,
    cuped,
    minimum_detectable,
    minimum_detectable_paired,
    relative_difference,
)

__all__ = ["Outcome", "analyse", "effect_of", "power"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Outcome = Mapping[str, Floats]
"""By measure of `living.MEASURES` [users, days]"""

_EXPECTED = 0.02
_HEADLINE = ("pv_ctr", "uv_cvr", "gmv_per_user")


def analyse(
    arms: Mapping[str, tuple[Ints, Outcome]],
    *,
    paired: bool,
    before: Mapping[str, Outcome] | None = None,
    expected: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """``arms``: by name the users and what they did.

    ``before``: what the same users did in the days before, by arm, for CUPED. ``expected``: by
    metric the relative effect that always-valid intervals are sharpest for, chosen before (by
    default 2 %).

    Paired effects are of the users that both arms have. Effects of all pairs, the earlier arm
    against the later one; with arms called ``oracle`` and ``popularity``, where each arm lies
    between them (0 the floor, 1 the ceiling): paired, of the users that all have.
    """
    effects, looks, absent = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    days = next(iter(arms.values()))[1]["shown"].shape[1]
    for a, b in combinations(arms, 2):
        one, two = _common([arms[a], arms[b]]) if paired else (arms[a][1], arms[b][1])
        then = None if paired or before is None else (before[a], before[b])
        for metric in METRICS:
            sharpest = (expected or {}).get(metric) or _EXPECTED
            of = {"arm": a, "against": b, "metric": metric}
            found = effect_of(one, two, metric, paired=paired, before=then)
            if found is None:
                if _few_users(one, two, metric):
                    absent.append({**of, "reason": "fewer than two users"})
                continue
            effects.append({**of, "users": len(one["shown"]), **_words(found, sharpest)})
            for day in range(1, days + 1):
                so_far = effect_of(one, two, metric, days=day, paired=paired, before=then)
                if so_far is not None:
                    looks.append({**of, "day": day, **_words(so_far, sharpest)})
    return {
        "arms": {name: _totals(outcome) for name, (_, outcome) in arms.items()},
        "effects": effects,
        "looks": looks,
        **({"absent_effects": absent} if absent else {}),
        "between_floor_and_ceiling": _between(arms, paired)
        if {"oracle", "popularity"} <= arms.keys()
        else {},
    }


def power(one: Outcome, two: Outcome, users: int, arms: int | None) -> dict[str, float | None]:
    """By metric, the relative difference between two arms that so many users would show with 80 %
    power, from what a few users did with two different rankers for as long. ``arms``: users are
    divided among so many; None: every user lives in every arm.
    """
    found = {
        metric: minimum_detectable_paired(_ratio(one, metric), _ratio(two, metric), users)
        if arms is None
        else minimum_detectable(_ratio(two, metric), users, arms)
        for metric in METRICS
    }
    return {metric: None if math.isnan(value) else value for metric, value in found.items()}


def effect_of(
    one: Outcome,
    two: Outcome,
    metric: str,
    *,
    days: int | None = None,
    paired: bool = False,
    before: tuple[Outcome, Outcome] | None = None,
) -> Effect | None:
    """Of the first ``days``, by default all. ``before``: of the same users on both sides, for
    CUPED, which is left out where the metric was not defined then. None where it is not defined
    now, or nothing to be relative to, or where one user is all that an arm has of it: the interval
    would have no width."""
    a, b = _ratio(one, metric, days), _ratio(two, metric, days)
    if math.isnan(a.value) or math.isnan(b.value) or b.value == 0 or min(a.counted, b.counted) < 2:
        return None
    if before is None:
        return relative_difference(a, b, paired=paired)
    earlier = [_ratio(outcome, metric) for outcome in before]
    whole = _ratio(
        {name: np.concatenate([before[0][name], before[1][name]]) for name in before[0]}, metric
    )
    if whole.value == 0 or any(math.isnan(ratio.value) for ratio in (*earlier, whole)):
        return relative_difference(a, b, paired=False)
    return relative_difference(
        a, b, paired=False, covariate=cuped(a, b, earlier[0], earlier[1], whole)
    )


def _few_users(one: Outcome, two: Outcome, metric: str) -> bool:
    """Whether a metric that both arms have is of one user in one of them."""
    return min(_ratio(outcome, metric).counted for outcome in (one, two)) == 1


def _totals(outcome: Outcome) -> dict[str, Any]:
    """An arm's users, requests and metrics; None for a metric that is not defined."""
    values = {metric: _ratio(outcome, metric).value for metric in METRICS}
    return {
        "users": len(outcome["shown"]),
        "requests": int(outcome["requests"].sum()),
        **{metric: None if math.isnan(value) else value for metric, value in values.items()},
    }


def _between(arms: Mapping[str, tuple[Ints, Outcome]], paired: bool) -> dict[str, dict[str, float]]:
    outcomes = _common(list(arms.values())) if paired else [outcome for _, outcome in arms.values()]
    values = {
        name: {metric: _ratio(outcome, metric).value for metric in _HEADLINE}
        for name, outcome in zip(arms, outcomes, strict=True)
    }
    span = {metric: values["oracle"][metric] - values["popularity"][metric] for metric in _HEADLINE}
    return {
        name: {
            metric: (own[metric] - values["popularity"][metric]) / span[metric]
            for metric in _HEADLINE
            if not math.isnan(own[metric] + span[metric]) and span[metric]
        }
        for name, own in values.items()
    }


def _ratio(outcome: Outcome, metric: str, days: int | None = None) -> Ratio:
    sums = {name: values[:, :days].sum(1) for name, values in outcome.items()}
    sums["ordered"] = (sums["orders"] > 0).astype(np.float64)
    sums["active"] = (sums["sessions"] > 0).astype(np.float64)
    sums["one"] = np.ones(len(sums["orders"]))
    top, bottom = METRICS[metric]
    return Ratio.of(sums[top], sums[bottom])


def _common(arms: Sequence[tuple[Ints, Outcome]]) -> Sequence[Outcome]:
    """The outcomes of the users that all have, in the same order."""
    users = reduce(np.intersect1d, [own for own, _ in arms])
    found = []
    for own, outcome in arms:
        _, rows, _ = np.intersect1d(own, users, return_indices=True)
        found.append({name: values[rows] for name, values in outcome.items()})
    return found


def _words(effect: Effect, expected: float) -> dict[str, Any]:
    return {
        "relative_delta": effect.relative,
        "ci95": list(effect.interval()),
        "always_valid_ci95": list(effect.always_valid(expected)),
        "p": effect.p,
    }
