"""The train rows in the batches of every epoch, and reading them from a position on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hemix.config import ResolvedTrainSettings
from hemix.data.batch import RequestBatch
from hemix.data.masking import Masking
from hemix.data.replacement import Replacement
from hemix.data.sampler import make_sampler
from hemix.data.split import Split
from hemix.training.position import Position

__all__ = ["TrainBatches"]


class TrainBatches:
    """The batches of the slots of this process. All follows from the seed, epoch and step."""

    def __init__(self, split: Split, options: ResolvedTrainSettings, slots: range) -> None:
        """Make no batch yet.

        Args:
            split: The train split.
            options: Order, seed, batch size and slots.
            slots: Numbers of the slots of this process.
        """
        self.split = split
        self._options, self._slots = options, slots
        self._sampler = make_sampler(
            options.shuffle,
            split,
            batch_size=options.batch_size,
            slots=options.gradient_accumulation,
            seed=options.seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self._sampler.steps

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self._options.epochs * self.steps_per_epoch

    def read(self, position: Position) -> Iterator[tuple[RequestBatch, ...]]:
        """Read the rest of an epoch.

        Args:
            position: Where the run is.

        Yields:
            Of every step a batch for each slot of this process, in the host's memory, with some
            ids, users and items unknown (``train.oov_dropout``, ``cold_user_rate``,
            ``cold_item_rate``).
        """
        options = self._options
        batches = self.split.batches(
            self._sampler,
            epoch=position.epoch,
            steps=range(position.epoch_step, self.steps_per_epoch),
            slots=self._slots,
            replacement=Replacement(
                rate=options.oov_dropout,
                masking=Masking.of_rates(options.cold_user_rate, options.cold_item_rate),
                seed=(options.seed,),
            ),
            workers=options.loader_workers,
        )
        while step := tuple(itertools.islice(batches, len(self._slots))):
            yield step
