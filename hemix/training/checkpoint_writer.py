"""Saves the checkpoints of a run, synchronously or in a background thread."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from hemix.distributed import DistributedContext
from hemix.training.checkpoint import Checkpoints, Snapshot
from hemix.training.job import TrainingJob

__all__ = ["CheckpointWriter"]


class CheckpointWriter:
    """Writes one checkpoint at a time."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        job: TrainingJob,
        background_group: DistributedContext | None,
    ) -> None:
        """Write nothing yet.

        Args:
            checkpoints: The checkpoints of the run.
            job: What is trained, and by which processes.
            background_group: The same processes with connections of their own, for the thread;
                None for one process.
        """
        self._checkpoints = checkpoints
        self._distributed = job.distributed
        self._background_group = background_group
        self._is_rank_zero = job.is_rank_zero
        self._is_async = job.settings.train.async_checkpoint
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="hemix-checkpoint")
        self._pending: Future[None] | None = None

    def save(self, name: str, snapshot: Snapshot, *, background: bool = False) -> None:
        """Save a checkpoint after the one before is complete.

        Args:
            name: Name of its folder.
            snapshot: What to save.
            background: Copy the tensors and return at once, if ``train.async_checkpoint`` is on.

        Raises:
            StorageError: If this checkpoint or the one before could not be written.
        """
        self.wait()
        if not (background and self._is_async):
            self._checkpoints.save(name, snapshot, self._distributed)
            return
        copy = snapshot.copied(rows_only=not self._is_rank_zero)
        self._pending = self._executor.submit(
            self._checkpoints.save,
            name,
            copy,
            self._background_group,
        )

    def wait(self) -> None:
        """Wait until the last checkpoint is written. Raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait until no checkpoint is being written. Raises nothing."""
        self._executor.shutdown()
