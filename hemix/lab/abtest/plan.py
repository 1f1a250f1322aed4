"""The plan of an experiment, and its checks against the simulated city."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hemix.errors import DataError, UsageError
from hemix.formats import SavedFormat
from hemix.lab.abtest.arms import BUILT_IN
from hemix.lab.simulator import draws
from hemix.lab.simulator.arrays import Int64Array
from hemix.lab.simulator.city import CITY_FORMAT, City, build_city

__all__ = [
    "EXPERIMENT_FORMAT",
    "PRE_PERIOD_DAYS",
    "PRE_PERIOD_NAME",
    "Design",
    "ExperimentPlan",
    "assign_arms",
    "check_plan",
    "load_city",
]

EXPERIMENT_FORMAT = SavedFormat(version=2, error=DataError, remedy="name a new folder with --out")
"""Of plan.json, power.json, experiment.json and the arm results."""


PRE_PERIOD_DAYS = 3
"""Last logged days, from which CUPED takes its covariate."""

PRE_PERIOD_NAME = "before"
"""Stands for an arm's name in the files of the pre-period."""


Design = Literal["paired", "split"]


@dataclass(frozen=True, kw_only=True)
class ExperimentPlan:
    """The arms, users and days of an experiment."""

    arms: Mapping[str, str]
    """URL of a server, ``oracle`` or ``popularity``, by name. Effects are those of earlier arms
    relative to later ones.
    """
    logs: str | Path
    """Folder that `hemix simulate` wrote, with the city and its users."""
    users: int = 200
    """Number of users."""
    days: int = 2
    """Number of days after the logs."""
    first_user: int = 0
    """Index of the first user; the users after it take part as well."""
    design: Design = "paired"
    """paired: every user in every arm; split: every user in one arm."""
    seed: int = 0
    """Seed of the assignment to arms in the split design."""
    recall_size: int | None = None
    """Venues drawn for a request; None: the city's 56. Duplicates, far and closed venues are
    removed: 56 leave about 45 candidates, 130 about 100.
    """
    block: int = 200
    """Users simulated at a time."""

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plan.json and experiment.json hold it."""
        return asdict(self) | {"logs": str(self.logs)}


def assign_arms(users: Int64Array, seed: int, arm_count: int) -> Int64Array:
    """Assign users to the arms of a split design by a hash of seed and user.

    Args:
        users: Indices [U] of users in the city.
        seed: Seed of the assignment.
        arm_count: Number of arms.

    Returns:
        Index of every user's arm [U].
    """
    position = draws.uniform(draws.key(seed, "arm", users)) * arm_count
    return np.minimum(position.astype(np.int64), arm_count - 1)


def load_city(logs: Path) -> City:
    """Rebuild the city that wrote these logs. Raises DataError."""
    path = logs / "truth" / "city.json"
    if not path.is_file():
        raise DataError(
            f"{path}: missing: --logs expects a folder written by hemix simulate",
            code="missing_file",
            field=str(path),
        )
    content = CITY_FORMAT.read(path)
    city = build_city(content["users"], content["days"], content["seed"])
    if city.parameters.fingerprint() != content["parameters"]:
        raise DataError(
            f"{path}: was simulated with other parameters than those of this version",
            field=str(path),
            hint="simulate the logs again",
        )
    return city


def check_plan(plan: ExperimentPlan, city: City) -> None:
    """Check the plan's numbers and names.

    Args:
        plan: Plan to check.
        city: City of the plan's users.

    Raises:
        UsageError: If the city has no such users, or an arm's name or server cannot be used.
    """
    if not plan.arms:
        raise UsageError("--arm: expected at least one", field="--arm")
    if not 0 <= plan.first_user < city.user_count:
        raise UsageError(
            f"--first-user {plan.first_user}: expected 0 to {city.user_count - 1}: {plan.logs} has "
            f"{city.user_count} users",
            field="--first-user",
        )
    available = city.user_count - plan.first_user
    if not 1 <= plan.users <= available:
        raise UsageError(
            f"--users {plan.users}: expected 1 to {available}, the users of {plan.logs}"
            + (f" from --first-user {plan.first_user} on" if plan.first_user else ""),
            field="--users",
        )
    if plan.days < 1:
        raise UsageError(f"--days {plan.days}: expected at least 1", field="--days")
    for name in plan.arms:
        if name == PRE_PERIOD_NAME or not name.replace("_", "").replace("-", "").isalnum():
            raise UsageError(
                f"--arm {name}: expected a name of letters, digits, - and _, other than "
                f"{PRE_PERIOD_NAME}",
                field="--arm",
            )
    urls = [url for url in plan.arms.values() if url not in BUILT_IN]
    if len(set(urls)) < len(urls) and plan.design == "paired":
        raise UsageError(
            "--arm: two arms with the same server would share its histories",
            code="repeated_argument",
            field="--arm",
            hint="start a server for each arm",
        )
