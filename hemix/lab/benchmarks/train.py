"""``hemix bench train``: training steps with deduplicated user work, against steps without."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from hemix.lab.benchmarks.common import benchmark_json
from hemix.lab.benchmarks.comparison import check_agreement, compare_steps, growth_exponents
from hemix.lab.benchmarks.model_step import ModelStep, Scope, StepCase
from hemix.lab.benchmarks.workload import Workload
from hemix.measure import keep_freed_memory

__all__ = ["run"]

_USERS = 256
_SHAPES = ((8, 1_000), (8, 5_000), (1, 1_000))
"""(impressions per user, history length)"""
_SWEEP_IMPRESSIONS = (1, 2, 4, 8, 16)
_CROSSOVER_IMPRESSIONS = (1, 2, 3, 4, 6, 8)
_SWEEP_LENGTH = 1_000
_SCOPES: tuple[Scope, ...] = ("core", "whole")
_CROSSOVER_TOLERANCE = 5e-3


def run(*, scale: float = 1.0, sweep: bool = False) -> dict[str, Any]:
    """Measure steps of 256 users with 8 impressions at 1,000 and 5,000 events, and 1 at 1,000.

    A step is forward and backward; in scope whole it also updates all weights.

    Args:
        scale: Factor of the users.
        sweep: Add several numbers of impressions per user, and the crossover of absorbed and
            projected keys and values.

    Returns:
        The figures.
    """
    keep_freed_memory()
    users = max(int(_USERS * scale), 2)
    cases = [
        compare_steps("train", _case(scope, users, *shape))
        for scope in _SCOPES
        for shape in _SHAPES
    ]
    if not sweep:
        return benchmark_json(cases)
    few = max(users // 8, 2)
    crossover = [_crossover(_case("core", few, n, _SWEEP_LENGTH)) for n in _CROSSOVER_IMPRESSIONS]
    swept = [
        compare_steps(
            "train sweep impressions",
            _case("core", few, n, _SWEEP_LENGTH),
            repeats=3,
            absorbed=False,
            memory=False,
        )
        for n in _SWEEP_IMPRESSIONS
    ]
    return benchmark_json(
        cases + swept,
        growth={"impressions_per_user": growth_exponents(swept, "impressions_per_user")},
        crossover=crossover,
    )


def _case(scope: Scope, users: int, impressions: int, length: int) -> StepCase:
    load = Workload(users=users, impressions_per_user=impressions, history_length=length)
    return StepCase(kind="train", scope=scope, load=load)


def _crossover(case: StepCase, repeats: int = 5) -> dict[str, float]:
    """Time a step with absorbed projections and with projected keys and values."""
    absorbed, projected = (
        ModelStep(dataclasses.replace(case, absorb=choice), deduplicate=True)
        for choice in ("always", "never")
    )
    outputs, expected = (step.run(return_outputs=True)[1] for step in (absorbed, projected))
    check_agreement("train crossover", outputs, expected, _CROSSOVER_TOLERANCE)
    absorbed_seconds, projected_seconds = [], []
    for _ in range(repeats):
        absorbed_seconds.append(absorbed.run()[0])
        projected_seconds.append(projected.run()[0])
    config = projected.model.config
    queries_per_request = config.ns_tokens_global + config.fixed_queries_global
    return {
        "queries_per_history": queries_per_request * case.load.impressions_per_user,
        "absorbed_seconds": statistics.median(absorbed_seconds),
        "projected_seconds": statistics.median(projected_seconds),
    }
