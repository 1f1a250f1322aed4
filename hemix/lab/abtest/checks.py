"""Checks of an experiment's assumptions: equal arm sizes, and no effect of equal rankers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hemix.lab.abtest.analysis import metric_effect
from hemix.lab.abtest.effects import METRICS, sample_ratio_p_value
from hemix.lab.abtest.measures import DailyMeasures
from hemix.lab.abtest.plan import assign_arms
from hemix.lab.simulator.arrays import BoolArray, Int64Array

__all__ = ["AA_REPETITIONS", "check_aa", "check_sample_ratio"]

AA_REPETITIONS = 100
"""Assignments of users in an A/A check."""

_MISMATCH_P_VALUE = 0.001


def check_sample_ratio(counts: Mapping[str, int], *, complete: bool) -> dict[str, Any]:
    """Test that the arms have equally many users.

    Args:
        counts: Number of users by arm.
        complete: Whether all arms have finished; otherwise unequal counts are no mismatch.

    Returns:
        ``p`` of the chi-square test, and ``mismatch``.
    """
    p_value = sample_ratio_p_value(list(counts.values()))
    return {"p": p_value, "mismatch": complete and p_value < _MISMATCH_P_VALUE}


def check_aa(
    users: Int64Array,
    measures: DailyMeasures,
    pre_period: DailyMeasures,
    repetitions: int = AA_REPETITIONS,
) -> dict[str, Any]:
    """Count how often 95 % intervals contain 0 where there is no effect.

    Users who all had the same ranker are split into two sides by the seeds 0, 1, ... Each split is
    analysed as a split design with CUPED.

    Args:
        users: Indices [U] of the users.
        measures: What they did, [U, days].
        pre_period: What they did before, [U, pre-period days].
        repetitions: Number of splits.

    Returns:
        By metric, in how many splits the interval contains 0 (``covers_zero``), and in how many
        there is an interval (``defined``).
    """
    covers_zero, defined = dict.fromkeys(METRICS, 0), dict.fromkeys(METRICS, 0)
    for seed in range(repetitions):
        side = assign_arms(users, seed, 2)
        first, second = (_select(measures, side == index) for index in (0, 1))
        before = (_select(pre_period, side == 0), _select(pre_period, side == 1))
        for metric in METRICS:
            effect = metric_effect(first, second, metric, pre_period=before)
            if effect is not None:
                low, high = effect.interval()
                defined[metric] += 1
                covers_zero[metric] += low <= 0 <= high
    return {
        "repetitions": repetitions,
        "users": len(users),
        "covers_zero": covers_zero,
        "defined": defined,
    }


def _select(measures: DailyMeasures, rows: BoolArray) -> DailyMeasures:
    return {name: values[rows] for name, values in measures.items()}
