"""The position of a run: the state of a checkpoint that is not tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hemix.evaluation.notes import Note

__all__ = ["Position"]


@dataclass(kw_only=True)
class Position:
    """Steps done, and the state of early stopping."""

    step: int = 0
    """Steps done."""
    epoch: int = 0
    epoch_step: int = 0
    """Steps of this epoch done."""
    seconds: float = 0.0
    impressions: int = 0
    best_valid_loss: float | None = None
    best_step: int = 0
    evaluations_without_gain: int = 0
    finished: bool = False
    valid_notes: list[Note] = field(default_factory=list)
    """Notes on the validation whose weights would be saved"""
    progressive: dict[str, Any] | None = None
    """Metrics of the train rows before training, of a run that started from a parent"""
