"""From what users did in every arm to effects: by metric, by look, beside floor and ceiling. Knows arrays by user and day, no arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.experimenting.effects import METRICS, Effect, Ratio, cuped, minimum_detectable, relative_difference

__all__ = ["Outcome", "analyse", "power"]

Floats = npt.NDArray[np.float64]
Outcome = Mapping[str, Floats]
"""By measure of `living.MEASURES` [users, days]"""

_EXPECTED = 0.02


def analyse(
    arms: Mapping[str, tuple[npt.NDArray[np.int64], Outcome]],
    *,
    paired: bool,
    before: Mapping[str, Outcome] | None = None,
    expected: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """``arms``: by name the users and what they did. ``before``: what the same users did in the days before, by arm, for CUPED.
    ``expected``: by metric the relative effect that always-valid intervals are sharpest for, chosen before (by default 2 %).

    Paired effects are of the users that both arms have. Effects of all pairs, the earlier arm against the later one; with arms called
    ``oracle`` and ``popularity``, where each arm lies between them (0 the floor, 1 the ceiling).
    """
    values = {name: {metric: _ratio(outcome, metric).value for metric in METRICS} for name, (_, outcome) in arms.items()}
    effects, looks = list[dict[str, Any]](), list[dict[str, Any]]()
    days = next(iter(arms.values()))[1]["shown"].shape[1]
    for a, b in combinations(arms, 2):
        one, two = _common(arms[a], arms[b]) if paired else (arms[a][1], arms[b][1])
        for metric in METRICS:
            found = _effect(one, two, metric, days, paired, None if before is None else (before[a], before[b]))
            if found is None:
                continue
            sharpest = (expected or {}).get(metric) or _EXPECTED
            effects.append({"arm": a, "against": b, "metric": metric, "users": len(one["shown"]), **_words(found, sharpest)})
            for day in range(1, days + 1):
                so_far = _effect(one, two, metric, day, paired, None if before is None else (before[a], before[b]))
                if so_far is not None:
                    looks.append({"arm": a, "against": b, "metric": metric, "day": day, **_words(so_far, sharpest)})
    between = {}
    if {"oracle", "popularity"} <= arms.keys():
        floor, ceiling = values["popularity"], values["oracle"]
        between = {
            name: {
                m: (own[m] - floor[m]) / (ceiling[m] - floor[m])
                for m in ("pv_ctr", "uv_cvr", "gmv_per_user")
                if ceiling[m] != floor[m]
            }
            for name, own in values.items()
        }
    clean = {name: {m: None if math.isnan(v) else v for m, v in own.items()} for name, own in values.items()}
    return {"arms": clean, "effects": effects, "looks": looks, "between_floor_and_ceiling": between}


def power(before: Outcome, users: int, arms: int) -> dict[str, float | None]:
    """By metric, the relative difference between two arms that so many users would show with 80 % power, from the days before."""
    found = {metric: minimum_detectable(_ratio(before, metric), users, arms) for metric in METRICS}
    return {metric: None if math.isnan(value) else value for metric, value in found.items()}


def _effect(
    one: Outcome, two: Outcome, metric: str, days: int, paired: bool, before: tuple[Outcome, Outcome] | None
) -> Effect | None:
    a, b = _ratio(one, metric, days), _ratio(two, metric, days)
    if not (a.value and b.value) or math.isnan(a.value) or math.isnan(b.value):
        return None
    if paired or before is None:
        return relative_difference(a, b, paired=paired)
    earlier = [_ratio(outcome, metric) for outcome in before]
    whole = _ratio({name: np.concatenate([before[0][name], before[1][name]]) for name in before[0]}, metric)
    if not whole.value or math.isnan(whole.value):
        return relative_difference(a, b, paired=False)
    return relative_difference(a, b, paired=False, covariate=cuped(a, b, earlier[0], earlier[1], whole))


def _ratio(outcome: Outcome, metric: str, days: int | None = None) -> Ratio:
    sums = {name: values[:, :days].sum(1) for name, values in outcome.items()}
    sums["ordered"] = (sums["orders"] > 0).astype(np.float64)
    sums["active"] = (sums["sessions"] > 0).astype(np.float64)
    sums["one"] = np.ones(len(sums["orders"]))
    top, bottom = METRICS[metric]
    return Ratio.of(sums[top], sums[bottom])


def _common(one: tuple[npt.NDArray[np.int64], Outcome], two: tuple[npt.NDArray[np.int64], Outcome]) -> Sequence[Outcome]:
    """Both outcomes of the users that both have, in the same order."""
    _, first, second = np.intersect1d(one[0], two[0], return_indices=True)
    return [{name: values[rows] for name, values in outcome.items()} for (_, outcome), rows in ((one, first), (two, second))]


def _words(effect: Effect, expected: float) -> dict[str, Any]:
    return {
        "relative": effect.relative,
        "ci95": list(effect.interval()),
        "always_valid_ci95": list(effect.always_valid(expected)),
        "p": effect.p,
    }
