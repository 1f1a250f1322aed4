"""A block of users, who live their days in several arms at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.lab.abtest.arms import Arm, ArmDown, Server
from hemix.lab.abtest.cells import Cell, cell_path, write_cell
from hemix.lab.abtest.living import live, past_lives
from hemix.lab.abtest.meeting import stranger
from hemix.lab.abtest.plan import Plan, arm_of
from hemix.lab.simulator.city import City
from hemix.lab.simulator.simulation import UserSimulation

__all__ = ["Block", "Done", "Progress"]

Ints = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]


class Done:
    """How far the arms are that live a block of users at the same time."""

    def __init__(
        self, on_progress: Progress, begin: float, width: float, rate: float | None
    ) -> None:
        """``width``: an arm's share of the whole; ``rate``: rankings a second so far."""
        self._on_progress, self._begin, self._width = on_progress, begin, width
        self._rate = f", {rate:.0f} rankings/s" if rate else ""
        self._done: dict[str, float] = {}
        self._lock = threading.Lock()

    def say(self, arm: str, what: str, done: float) -> None:
        """An arm has come so far, 0 to 1."""
        with self._lock:
            self._done[arm] = done
            self._on_progress(
                what + self._rate, self._begin + self._width * sum(self._done.values())
            )


@dataclass(frozen=True, kw_only=True)
class Block:
    """Users of one block, and where what becomes of them is kept."""

    plan: Plan
    out: Path
    city: City
    number: int
    users: Ints
    lives: UserSimulation | None
    """Their past, where it has been lived already"""
    done: Done

    def lived(self, name: str, arm: Arm, model: Mapping[str, Any]) -> Cell:
        """The days in an arm of those whose arm it is, kept.

        Raises ArmDown, also where another model than ``model`` is behind it.
        """
        own, past = self.users, self.lives
        if self.plan.design == "split":
            own = own[
                arm_of(own, self.plan.seed, len(self.plan.arms)) == list(self.plan.arms).index(name)
            ]
        if self.plan.design == "split" or past is None:
            past, _ = past_lives(self.city, own, 0)
        say = partial(self.done.say, name, f"{name}, users {self.users[0]} to {self.users[-1]}")
        say(0.0)
        found = arm.model()
        if found != model:
            raise ArmDown(stranger(found, model))
        began, first, days = time.time(), past.city.days, self.plan.days
        outcome = live(
            past, arm, days, draws=self.plan.draws, on_day=lambda day: say((day + 1 - first) / days)
        )
        cell = Cell(
            users=own,
            outcome=outcome,
            span=(began, time.time()) if isinstance(arm, Server) else None,
        )
        write_cell(cell_path(self.out, name, self.number), cell)
        return cell
