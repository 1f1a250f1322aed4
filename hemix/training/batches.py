"""The order of the train rows: which batches an epoch has, and reading them from a position on."""

from __future__ import annotations

from collections.abc import Iterator

from hemix.config import TrainSettings
from hemix.data.batch import RequestBatch
from hemix.data.replacement import Replacement
from hemix.data.split import Plan, Split
from hemix.training.position import Position

__all__ = ["TrainBatches"]


class TrainBatches:
    """The train split in the batches of every epoch. All follows from the seed and the epoch."""

    def __init__(self, split: Split, options: TrainSettings) -> None:
        self.split = split
        self._options = options

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self._options.epochs * len(self.plan(0))

    def plan(self, epoch: int) -> Plan:
        """Return which requests each batch of an epoch holds."""
        options = self._options
        order = "shuffled" if options.shuffle == "requests" else options.shuffle
        return self.split.plan(
            options.batch_size,
            order=order,
            seed=options.seed,
            epoch=epoch,
        )

    def read(self, plan: Plan, position: Position) -> Iterator[RequestBatch]:
        """Read the batches of an epoch that are not done yet.

        Args:
            plan: The plan of the position's epoch.
            position: Where the run is.

        Returns:
            Batches in the host's memory, some ids replaced by the unknown row
            (``train.oov_dropout``).
        """
        options = self._options
        replacement = Replacement(rate=options.oov_dropout, seed=(options.seed, position.epoch))
        return self.split.batches(
            plan,
            first=position.batch,
            replacement=replacement,
            workers=options.loader_workers,
        )
