"""A block of users, simulated in several arms in parallel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hemix.lab.abtest.arm_models import model_change
from hemix.lab.abtest.arm_results import result_path, write_result
from hemix.lab.abtest.arm_simulation import simulate_arm, simulate_past
from hemix.lab.abtest.arms import Arm, ArmUnavailable
from hemix.lab.abtest.measures import ArmResult
from hemix.lab.abtest.plan import ExperimentPlan, assign_arms
from hemix.lab.abtest.server_arm import ServerArm
from hemix.lab.simulator.arrays import Int64Array
from hemix.lab.simulator.city import City
from hemix.lab.simulator.simulation import UserSimulation

__all__ = ["BlockProgress", "Progress", "UserBlock"]

Progress = Callable[[str, float], None]
"""Called with the stage and the finished fraction of the experiment."""


class BlockProgress:
    """Report the progress of arms that simulate a block in parallel."""

    def __init__(
        self, on_progress: Progress, start: float, arm_width: float, rate: float | None
    ) -> None:
        """Begin a block.

        Args:
            on_progress: Called with the stage and the finished fraction of the experiment.
            start: Fraction of the experiment that was finished before the block.
            arm_width: Fraction that one arm of the block adds.
            rate: Rankings per second so far, if known.
        """
        self._on_progress, self._start, self._arm_width = on_progress, start, arm_width
        self._rate = f", {rate:.0f} rankings/s" if rate else ""
        self._finished: dict[str, float] = {}
        self._lock = threading.Lock()

    def report(self, arm: str, stage: str, finished: float) -> None:
        """Report an arm's progress.

        Args:
            arm: Name of the arm.
            stage: Text to show.
            finished: Finished fraction of the arm's days in the block.
        """
        with self._lock:
            self._finished[arm] = finished
            fraction = self._start + self._arm_width * sum(self._finished.values())
            self._on_progress(stage + self._rate, fraction)


@dataclass(frozen=True)
class UserBlock:
    """The users of a block, and their simulation in arms."""

    plan: ExperimentPlan
    out: Path
    city: City
    number: int
    users: Int64Array
    past: UserSimulation | None
    """State of the users after the logs, if simulated already."""
    progress: BlockProgress

    def run_arm(self, name: str, arm: Arm, model: Mapping[str, Any]) -> ArmResult:
        """Simulate the arm's users of this block and write their result.

        Args:
            name: Name of the arm.
            arm: The arm.
            model: Model that the arm must have.

        Returns:
            What the users did.

        Raises:
            ArmUnavailable: If the arm does not answer or has another model.
        """
        users, past = self._arm_users(name), self.past
        if self.plan.design == "split" or past is None:
            past, _ = simulate_past(self.city, users, 0)
        stage = f"{name}, users {self.users[0]} to {self.users[-1]}"
        report = partial(self.progress.report, name, stage)
        report(0.0)
        served = arm.model()
        if served != model:
            raise ArmUnavailable(model_change(model, served))
        began, first_day, days = time.time(), past.city.days, self.plan.days
        measures = simulate_arm(
            past,
            arm,
            days,
            draw_count=self.plan.recall_size,
            on_day=lambda day: report((day + 1 - first_day) / days),
        )
        result = ArmResult(
            users=users,
            measures=measures,
            server_interval=(began, time.time()) if isinstance(arm, ServerArm) else None,
        )
        write_result(result_path(self.out, name, self.number), result)
        return result

    def _arm_users(self, name: str) -> Int64Array:
        if self.plan.design == "paired":
            return self.users
        names = list(self.plan.arms)
        arm = assign_arms(self.users, self.plan.seed, len(names))
        arm_users: Int64Array = self.users[arm == names.index(name)]
        return arm_users
