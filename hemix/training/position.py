"""Where a run is: what a checkpoint keeps beside tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hemix.evaluation.notes import Note

__all__ = ["Position"]


@dataclass(kw_only=True)
class Position:
    """Where a run is."""

    step: int = 0
    """Steps done."""
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch done."""
    seconds: float = 0.0
    impressions: int = 0
    best_valid_loss: float | None = None
    best_step: int = 0
    evaluations_without_gain: int = 0
    finished: bool = False
    valid_notes: list[Note] = field(default_factory=list)
    """What is to be said of the validation whose weights would be kept"""
    progressive: dict[str, Any] | None = None
    """How a run that goes on from another one scored its train rows before it was trained on
    them
    """
