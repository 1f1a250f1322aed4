"""log.jsonl of a run, its TensorBoard events, and the callback that receives every record."""

from __future__ import annotations

import json
from typing import Any

from hemix.errors import SettingsError
from hemix.training.callbacks import Record
from hemix.training.job import TrainingJob

__all__ = ["RunLog"]


class RunLog:
    """Writes the records of a run; does nothing in a process that is not of rank 0."""

    def __init__(self, job: TrainingJob) -> None:
        """Open the TensorBoard writer, if any. Raises SettingsError where it is not installed."""
        self._path = job.out / "log.jsonl"
        self._callback = job.callback
        self._writes = job.is_rank_zero
        self._board: Any = None
        if job.settings.train.tensorboard and self._writes:
            self._board = _tensorboard_writer(str(job.out / "tensorboard"))

    def write(self, step: int, record: Record) -> None:
        """Append a record and report it.

        Args:
            step: The step that it belongs to.
            record: JSON values by name; numbers also become TensorBoard scalars.
        """
        if not self._writes:
            return
        record = {"step": step, **record}
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if name not in ("step", "epoch") and isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)
        self._callback.on_record(record)

    def drop_after(self, step: int) -> None:
        """Remove the records of later steps, which a resumed run writes again."""
        if not self._writes:
            return
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        earlier = [line for line in lines if _step_of(line) <= step]
        self._path.write_text("".join(line + "\n" for line in earlier))


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 2**62  # a line cut off by a kill


def _tensorboard_writer(folder: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        install = "pip install 'hemix[dev]'"
        missing = "needs the package tensorboard, which is not installed"
        raise SettingsError(
            f"train.tensorboard: {missing}: {install}", field="train.tensorboard"
        ) from error
    return SummaryWriter(folder)
