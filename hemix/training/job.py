"""The arguments of one training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hemix.data.dataset import Dataset
from hemix.distributed import DistributedContext
from hemix.runs.folder import Run
from hemix.settings import ResolvedSettings
from hemix.training.callbacks import SILENT, Callback

__all__ = ["TrainingJob"]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The arguments of :func:`hemix.training.loop.train`, as one object."""

    data: Dataset
    out: Path
    """The run folder"""
    settings: ResolvedSettings
    automatic: tuple[str, ...] = ()
    """Settings of ``train`` that were ``auto``"""
    resume: bool = False
    init_from: Run | None = None
    """The run whose weights this one begins with; None: weights from the seed"""
    distributed: DistributedContext | None = None
    """The processes of the run; None: this process alone"""
    callback: Callback = SILENT

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes files and reports."""
        return self.distributed is None or self.distributed.is_rank_zero

    @property
    def processes(self) -> int:
        """Number of processes."""
        return 1 if self.distributed is None else self.distributed.world_size
