"""What one training run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hemix.data.dataset import Dataset
from hemix.runs.folder import Run
from hemix.settings import Settings
from hemix.team import Team
from hemix.training.callbacks import SILENT, Callback

__all__ = ["TrainingJob"]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The arguments of :func:`hemix.training.loop.train`, which its parts pass on to each other."""

    data: Dataset
    out: Path
    """The run folder"""
    settings: Settings
    resume: bool = False
    start_from: Run | None = None
    """The run whose weights this one begins with; None: weights from the seed"""
    distributed: Team | None = None
    """The processes of the run; None: this process alone"""
    callback: Callback = SILENT

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes files and reports."""
        return self.distributed is None or self.distributed.first

    @property
    def processes(self) -> int:
        """How many processes train."""
        return 1 if self.distributed is None else self.distributed.size
