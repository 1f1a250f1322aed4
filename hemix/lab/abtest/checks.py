"""Whether an experiment can be believed: equal shares of the users, and one policy for all shows no
effect. Knows arrays by user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.lab.abtest.analysis import Outcome, effect_of
from hemix.lab.abtest.effects import METRICS, sample_ratio_p
from hemix.lab.abtest.plan import arm_of

__all__ = ["REPETITIONS", "same_for_all", "shares"]

REPETITIONS = 100
"""Divisions of an A/A check"""
_MISMATCH_P = 0.001


def shares(counts: Mapping[str, int], *, complete: bool) -> dict[str, Any]:
    """p of the chi-square test of equal shares.

    Where not all arms are ``complete``, unequal ones are no mismatch.
    """
    p = sample_ratio_p(list(counts.values()))
    return {"p": p, "mismatch": complete and p < _MISMATCH_P}


def same_for_all(
    users: npt.NDArray[np.int64], lived: Outcome, before: Outcome, repetitions: int = REPETITIONS
) -> dict[str, Any]:
    """A/A in the split design with CUPED: users who all lived with one policy are divided into two
    sides so often, by the seeds 0, 1,



    ...; in how many divisions the 95 % interval holds 0, and in how many there is an interval,
    by metric.
    """
    covers, defined = dict.fromkeys(METRICS, 0), dict.fromkeys(METRICS, 0)
    for seed in range(repetitions):
        side = arm_of(users, seed, 2)
        (one, one_before), (two, two_before) = (
            [
                {m: values[side == which] for m, values in outcome.items()}
                for outcome in (lived, before)
            ]
            for which in (0, 1)
        )
        for metric in METRICS:
            found = effect_of(one, two, metric, before=(one_before, two_before))
            if found is not None:
                low, high = found.interval()
                defined[metric] += 1
                covers[metric] += low <= 0 <= high
    return {
        "repetitions": repetitions,
        "users": len(users),
        "covers_zero": covers,
        "defined": defined,
    }
