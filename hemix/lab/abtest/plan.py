"""What an experiment is asked for, and whether a city and its users allow it.

Knows nothing of arms that answer or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hemix.errors import DataError, UsageError
from hemix.files import read_json
from hemix.lab.abtest.arms import BUILT_IN
from hemix.lab.simulator import draws
from hemix.lab.simulator.city import City, build_city

__all__ = ["BEFORE_DAYS", "Plan", "arm_of", "check_plan", "city_of"]

BEFORE_DAYS = 3
"""Logged days that CUPED is made of"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for."""

    arms: Mapping[str, str]
    """URL of a server, ``oracle`` or ``popularity``, by name; effects are of earlier arms against
    later ones
    """
    logs: str
    """Folder of `hemix simulate` whose city and users these are"""
    users: int
    days: int
    first_user: int = 0
    """Of the city's users; the next ``users`` live"""
    design: Literal["paired", "split"] = "paired"
    seed: int = 0
    """Of the division into arms"""
    draws: int | None = None
    """Draws of recall a request, by default the city's 56: about 45 candidates"""
    block: int = 200
    """Users who live at a time"""


def arm_of(users: npt.NDArray[np.int64], seed: int, arms: int) -> npt.NDArray[np.int64]:
    """int64 [users]: which of so many arms each lives in in the split design, by a hash of seed and
    user.
    """
    return np.minimum(
        (draws.uniform(draws.key(seed, "arm", users)) * arms).astype(np.int64), arms - 1
    )


def city_of(logs: Path) -> City:
    """The city that wrote these logs. Raises DataError."""
    path = logs / "truth" / "city.json"
    if not path.is_file():
        raise DataError(
            f"{path}: missing: --logs names a folder of hemix simulate, whose users live on"
        )
    found = read_json(path, DataError)
    city = build_city(found["users"], found["days"], found["seed"])
    if city.parameters.fingerprint() != found["parameters"]:
        raise DataError(
            f"{path}: was simulated with other parameters than this version has; simulate anew"
        )
    return city


def check_plan(plan: Plan, city: City) -> None:
    """Raises UsageError for what the city does not have, and for names and servers that arms cannot
    have.
    """
    if not plan.arms:
        raise UsageError("--arm: expected at least one")
    if not 0 <= plan.first_user < city.user_count:
        raise UsageError(
            f"--first-user {plan.first_user}: expected 0 to {city.user_count - 1}: {plan.logs} has "
            f"{city.user_count} users"
        )
    if not 1 <= plan.users <= city.user_count - plan.first_user:
        raise UsageError(
            f"--users {plan.users}: expected 1 to {city.user_count - plan.first_user}, the users "
            f"of {plan.logs}"
            + (f" from --first-user {plan.first_user} on" if plan.first_user else "")
        )
    if plan.days < 1:
        raise UsageError(f"--days {plan.days}: expected at least 1")
    for name in plan.arms:
        if name == "before" or not name.replace("_", "").replace("-", "").isalnum():
            raise UsageError(
                f"--arm {name}: expected a name of letters, digits, - and _, and not before"
            )
    urls = [url for url in plan.arms.values() if url not in BUILT_IN]
    if len(set(urls)) < len(urls) and plan.design == "paired":
        raise UsageError(
            "--arm: two arms of one server would share its histories; start one for each"
        )
