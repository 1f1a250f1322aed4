"""Early stopping: when a run stops and which weights it saves, by the valid loss."""

from __future__ import annotations

from hemix.config import TrainSettings
from hemix.evaluation.notes import valid_notes
from hemix.training.position import Position
from hemix.training.validate import Validation

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Follows the valid loss. Its state is in the position, so that a resume has it."""

    def __init__(self, options: TrainSettings) -> None:
        self._patience = options.patience
        evaluations = options.epochs > 1 or options.evaluate_every_steps > 0
        self.keeps_best = options.patience > 0 and evaluations
        """Whether the run saves the weights of the best valid loss; else the last ones"""

    def update(self, position: Position, validation: Validation) -> bool:
        """Record an evaluation in ``position``; finish the run where the patience is used up.

        Args:
            position: Where the run is; changed in place.
            validation: The losses of valid after the position's step.

        Returns:
            Whether these are the best weights so far, which must be saved.
        """
        if not self.keeps_best or validation.loss is None:
            position.valid_notes = valid_notes(validation.tasks)
            return False
        if position.best_valid_loss is None or validation.loss < position.best_valid_loss:
            position.best_valid_loss = validation.loss
            position.best_step = position.step
            position.evaluations_without_gain = 0
            position.valid_notes = valid_notes(validation.tasks)
            return True
        position.evaluations_without_gain += 1
        position.finished = position.evaluations_without_gain >= self._patience
        return False
