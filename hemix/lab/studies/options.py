"""Options of every study, and what it reports while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hemix.config import named_overrides
from hemix.errors import UsageError

__all__ = ["StagePlan", "StudyCallback", "StudyConfig", "StudyOptions", "StudyPlan"]


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """The trials of a stage and their estimated cost."""

    stage: str
    trials: int
    finished: int
    """Trials whose results exist"""
    seconds: int
    """Estimated seconds of the other trials, one at a time"""
    unknown: tuple[str, ...]
    """Candidates whose cost could not be measured and is not in ``seconds``"""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """The stages of a study and their estimated cost."""

    stages: tuple[StagePlan, ...]
    jobs: int
    threads: int

    @property
    def seconds(self) -> int:
        """Estimated work: seconds of all trials of all stages, one trial at a time."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def hours(self) -> float:
        """Estimated time: the work divided by ``jobs``, in hours.

        It is a lower bound, because a stage waits for the last trial of the one before it.
        """
        return round(self.seconds / self.jobs / 3600, 3)


class StudyCallback(Protocol):
    """Receives what a study reports."""

    def on_plan(self, plan: StudyPlan, /) -> None:
        """Receive the plan before the first trial starts.

        Args:
            plan: The trials and their estimated time.
        """

    def on_trial(self, message: str, done: int, total: int, /) -> None:
        """Receive the start, end or failure of a trial.

        Args:
            message: What happened, with the name of the trial's folder.
            done: Number of trials that have ended.
            total: Number of trials.
        """


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What the studies have in common."""

    seeds: int = 3
    """Number of training seeds on each dataset"""
    settings: Sequence[str] | Mapping[str, Any] = ()
    """Settings of all trials: ``["train.epochs=2"]`` or ``{"train.epochs": 2}``"""
    evaluate_test: bool = False
    """Score the test split instead of valid; every access is logged"""

    def check_seeds(self) -> None:
        """Raise UsageError for a number of seeds below 1."""
        if self.seeds < 1:
            raise UsageError(f"--seeds {self.seeds}: expected 1 or more", field="--seeds")

    def overrides(self) -> dict[str, Any]:
        """Return the settings by ``section.name``.

        Raises SettingsError for a text that is not a setting.
        """
        return named_overrides(self.settings)


class StudyOptions:
    """How the trials of a study run. A :class:`StudyCallback` provides both functions."""

    def __init__(
        self,
        *,
        jobs: int | None = None,
        threads: int = 1,
        on_plan: Callable[[StudyPlan], None] = lambda _: None,
        on_trial: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        """Check the options.

        Args:
            jobs: Trials at a time; None: processor cores divided by ``threads``.
            threads: PyTorch threads of each trial.
            on_plan: See :meth:`StudyCallback.on_plan`.
            on_trial: See :meth:`StudyCallback.on_trial`.

        Raises:
            UsageError: A number is below 1.
        """
        cores = len(os.sched_getaffinity(0))
        if threads < 1 or (jobs is not None and jobs < 1):
            raise UsageError(
                f"--jobs {jobs} --threads {threads}: expected 1 or more", field="--jobs"
            )
        self.threads = threads
        self.jobs = jobs or max(1, cores // threads)
        self.on_plan = on_plan
        self.on_trial = on_trial
