"""Assemble experiment.json from the results of all blocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hemix.errors import HemixError
from hemix.formats import FORMAT_KEY
from hemix.lab.abtest.analysis import analyse_arms
from hemix.lab.abtest.arm_results import read_result, result_path
from hemix.lab.abtest.checks import check_aa, check_sample_ratio
from hemix.lab.abtest.measures import MEASURES, ArmResult, DailyMeasures
from hemix.lab.abtest.plan import EXPERIMENT_FORMAT, PRE_PERIOD_NAME, ExperimentPlan

__all__ = ["experiment_content", "rankings_per_second"]


def experiment_content(
    plan: ExperimentPlan,
    out: Path,
    block_count: int,
    paused: Mapping[str, str],
    power: Mapping[str, float | None],
) -> dict[str, Any]:
    """Analyse all results of an experiment.

    Args:
        plan: Plan of the experiment.
        out: Folder of the experiment.
        block_count: Number of blocks of users.
        paused: Why an arm is unavailable, by arm.
        power: Detectable relative difference by metric.

    Returns:
        The content of experiment.json, without its models, versions and machine.

    Raises:
        HemixError: If no arm has a result.
        DataError: If a result is damaged.
    """
    pre_period_blocks = [
        read_result(result_path(out, PRE_PERIOD_NAME, block)) for block in range(block_count)
    ]
    arms = dict[str, ArmResult]()
    pre_period = dict[str, DailyMeasures]()
    server_results = list[ArmResult]()
    for name in plan.arms:
        results = _read_blocks(out, name, block_count)
        if results:
            arms[name] = _concatenate(list(results.values()))
            before = [_select_users(pre_period_blocks[b], r) for b, r in results.items()]
            pre_period[name] = _concatenate(before).measures
            server_results += results.values()
    if not arms:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in paused.items())
        raise HemixError(f"no arm answered: {reasons}", code="no_answer")
    paired = plan.design == "paired"
    analysis = analyse_arms(
        arms, paired=paired, pre_period=None if paired else pre_period, expected=power
    )
    counts = {name: len(result.users) for name, result in arms.items()}
    has_sample_ratio = not paired and len(counts) > 1
    return {
        FORMAT_KEY: EXPERIMENT_FORMAT.version,
        "plan": plan.to_json(),
        "paused": dict(paused),
        "power": dict(power),
        **analysis,
        "checks": {
            "sample_ratio": check_sample_ratio(counts, complete=not paused)
            if has_sample_ratio
            else None,
            "aa": _aa_paired(arms, pre_period) if paired else _aa_split(pre_period_blocks),
        },
        "rankings_per_second": rankings_per_second(server_results),
    }


def _aa_paired(
    arms: Mapping[str, ArmResult], pre_period: Mapping[str, DailyMeasures]
) -> dict[str, Any]:
    """The A/A check of the users of the first arm, who all had one ranker."""
    name, result = next(iter(arms.items()))
    return {"of": name, **check_aa(result.users, result.measures, pre_period[name])}


def _aa_split(pre_period_blocks: Sequence[ArmResult]) -> dict[str, Any]:
    """The A/A check of the pre-period, because no arm has all users.

    Its first day is the covariate of the other days.
    """
    pre_period = _concatenate(pre_period_blocks)
    later = {name: values[:, 1:] for name, values in pre_period.measures.items()}
    first = {name: values[:, :1] for name, values in pre_period.measures.items()}
    return {"of": "the days before", **check_aa(pre_period.users, later, first)}


def _read_blocks(out: Path, name: str, block_count: int) -> dict[int, ArmResult]:
    """The finished blocks of an arm, by number."""
    paths = {block: result_path(out, name, block) for block in range(block_count)}
    return {block: read_result(path) for block, path in paths.items() if path.exists()}


def _select_users(block: ArmResult, arm: ArmResult) -> ArmResult:
    """The users of a block who are in an arm."""
    rows = np.isin(block.users, arm.users)
    return ArmResult(
        users=block.users[rows],
        measures={name: block.measures[name][rows] for name in MEASURES},
    )


def _concatenate(results: Sequence[ArmResult]) -> ArmResult:
    return ArmResult(
        users=np.concatenate([result.users for result in results]),
        measures={
            name: np.concatenate([result.measures[name] for result in results]) for name in MEASURES
        },
    )


def rankings_per_second(results: Collection[ArmResult]) -> float | None:
    """Return the rate of servers while they ranked; their intervals may overlap."""
    served = sorted(
        (*result.server_interval, float(result.measures["requests"].sum()))
        for result in results
        if result.server_interval is not None
    )
    seconds = until = 0.0
    for began, ended, _ in served:
        seconds += max(ended - max(began, until), 0.0)
        until = max(until, ended)
    return sum(rankings for *_, rankings in served) / seconds if seconds else None
