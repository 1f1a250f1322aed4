"""Run an experiment, as ``hemix experiment`` does.

OUT holds plan.json, power.json, one file per arm and block of users in ``arm_results``,
experiment.json and report.html. A finished block is never simulated again, so a second call with
the same plan continues the experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hemix.errors import UsageError
from hemix.files import write_json
from hemix.formats import FORMAT_KEY
from hemix.lab.abtest.analysis import analyse_power
from hemix.lab.abtest.arm_models import query_models, read_models, write_plan
from hemix.lab.abtest.arm_results import result_path, write_result
from hemix.lab.abtest.arm_simulation import simulate_arm, simulate_past
from hemix.lab.abtest.arms import Arm, ArmUnavailable, Oracle, Popularity, make_arm
from hemix.lab.abtest.block import BlockProgress, Progress, UserBlock
from hemix.lab.abtest.measures import ArmResult
from hemix.lab.abtest.plan import (
    EXPERIMENT_FORMAT,
    PRE_PERIOD_DAYS,
    PRE_PERIOD_NAME,
    ExperimentPlan,
    check_plan,
    load_city,
)
from hemix.lab.abtest.report import write_experiment_report
from hemix.lab.abtest.results import experiment_content, rankings_per_second
from hemix.lab.simulator.arrays import Int64Array
from hemix.lab.simulator.city import City
from hemix.lab.simulator.simulation import UserSimulation
from hemix.measure import machine

__all__ = ["experiment"]

_PARALLEL_ARMS = 2
"""A server has few workers: one arm at a time would leave cores idle."""


def experiment(
    plan: ExperimentPlan,
    out: str | Path,
    *,
    token: str | None = None,
    arm_timeout: float = 30.0,
    on_power: Callable[[Mapping[str, float | None]], None] = lambda _power: None,
    on_progress: Progress = lambda _stage, _fraction: None,
) -> dict[str, Any]:
    """Run or continue an experiment.

    An arm that does not answer, refuses a call or changes its model is skipped from there on and
    reported under ``paused``; a later call continues with it.

    Args:
        plan: Users, days and arms.
        out: Folder of the experiment.
        token: Token of the arms' servers.
        arm_timeout: Seconds after which a server without an answer is unavailable.
        on_power: Called with the detectable relative difference by metric.
        on_progress: Called with the stage and the finished fraction, 0 to 1.

    Returns:
        The content of experiment.json.

    Raises:
        UsageError: For an invalid plan, another plan in ``out``, arms of different schemas, an arm
            with another model than before, or no arm that answers.
        DataError: If the logs are not those of a simulated city, or a result is damaged.
    """
    out, city = Path(out), load_city(Path(plan.logs))
    check_plan(plan, city)
    arms = {
        name: make_arm(url, token=token, timeout_seconds=arm_timeout)
        for name, url in plan.arms.items()
    }
    blocks = _user_blocks(plan)
    models, paused = _connect_arms(plan, out, arms, len(blocks))
    power: dict[str, float | None] = {}
    results: list[ArmResult] = []
    for number, block_users in enumerate(blocks):
        pending = _pending_arms(out, arms, paused, number)
        past = _load_past(out, city, number, block_users, needed=bool(pending))
        if number == 0:
            power = _load_power(plan, out, past or simulate_past(city, block_users, 0)[0])
            on_power(power)
        start, arm_width = number / len(blocks), 1 / max(len(pending), 1) / len(blocks)
        progress = BlockProgress(on_progress, start, arm_width, rankings_per_second(results))
        block = UserBlock(plan, out, city, number, block_users, past, progress)
        block_results, failures = _run_arms(block, pending, arms, models)
        results += block_results
        paused |= failures
    on_progress("effects", 1.0)
    content = experiment_content(plan, out, len(blocks), paused, power) | _environment(models)
    write_json(out / "experiment.json", content)
    write_experiment_report(out / "report.html", content)
    return content


def _user_blocks(plan: ExperimentPlan) -> list[Int64Array]:
    users = plan.first_user + np.arange(plan.users)
    return [users[first : first + plan.block] for first in range(0, plan.users, plan.block)]


def _connect_arms(
    plan: ExperimentPlan, out: Path, arms: Mapping[str, Arm], block_count: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Query the models of arms with unfinished blocks and write plan.json.

    Returns the models, and why an arm is paused. Raises UsageError if no arm answers and none has
    finished a block.
    """
    known = read_models(plan, out)
    unfinished = {
        name: [n for n in range(block_count) if not result_path(out, name, n).exists()]
        for name in arms
    }
    models, paused = query_models(
        {name: arm for name, arm in arms.items() if unfinished[name]}, known
    )
    is_new = all(len(unfinished[name]) == block_count for name in arms)
    if len(paused) == len(arms) and is_new:
        reasons = (f"--arm {name}: does not answer: {why}" for name, why in paused.items())
        raise UsageError("; ".join(reasons), code="no_answer", field="--arm")
    write_plan(plan, out, models)
    return models, paused


def _pending_arms(
    out: Path, arms: Mapping[str, Arm], paused: Mapping[str, str], number: int
) -> list[str]:
    """The available arms that have not finished a block."""
    available = (name for name in arms if name not in paused)
    return [name for name in available if not result_path(out, name, number).exists()]


def _load_past(
    out: Path, city: City, number: int, users: Int64Array, *, needed: bool
) -> UserSimulation | None:
    """Simulate the past of a block's users and write their pre-period.

    Returns None if the pre-period is written already and no arm needs the users' state.
    """
    path = result_path(out, PRE_PERIOD_NAME, number)
    if not needed and path.exists():
        return None
    past, measures = simulate_past(city, users, PRE_PERIOD_DAYS)
    write_result(path, ArmResult(users=users, measures=measures))
    return past


def _run_arms(
    block: UserBlock, names: list[str], arms: Mapping[str, Arm], models: Mapping[str, Any]
) -> tuple[list[ArmResult], dict[str, str]]:
    """Run a block in arms, some in parallel.

    Returns the results, and why arms became unavailable.
    """
    results, failures = list[ArmResult](), dict[str, str]()
    with ThreadPoolExecutor(_PARALLEL_ARMS, thread_name_prefix="hemix-arms") as pool:
        try:
            futures = {
                name: pool.submit(block.run_arm, name, arms[name], models[name]) for name in names
            }
            for name, future in futures.items():
                try:
                    results.append(future.result())
                except ArmUnavailable as error:
                    failures[name] = str(error)
        except BaseException:
            # an interruption must not wait for the end of the block
            pool.shutdown(wait=False, cancel_futures=True)
            for arm in arms.values():
                arm.cancel()
            raise
    return results, failures


def _load_power(plan: ExperimentPlan, out: Path, past: UserSimulation) -> dict[str, float | None]:
    """Read power.json, or compute it from a block of users with the oracle and popularity."""
    path = out / "power.json"
    if path.exists():
        content = EXPERIMENT_FORMAT.read(path)
        return {name: value for name, value in content.items() if name != FORMAT_KEY}
    oracle, popularity = (
        simulate_arm(past, arm, plan.days, draw_count=plan.recall_size)
        for arm in (Oracle(), Popularity())
    )
    arm_count = None if plan.design == "paired" else len(plan.arms)
    power = analyse_power(oracle, popularity, plan.users, arm_count)
    EXPERIMENT_FORMAT.write(path, power)
    return power


def _environment(models: Mapping[str, Any]) -> dict[str, Any]:
    versions = {"hemix": version("hemix"), "torch": version("torch")}
    return {"models": models, "versions": versions, "machine": machine()}
