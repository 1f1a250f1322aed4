"""Checkpoints: everything that a run needs to go on exactly where it was.

RUN/checkpoints/
  step-00000500/
    dense.safetensors  tables.safetensors     weights
    optimizer.safetensors                     moments of both optimisers, random state
    state.json                                position in the data, meters, sha256 of the files above
    COMPLETE                                  written last; a folder without it does not exist for a reader
  best/                                       the same, of the best valid loss
  LATEST                                      name of the newest complete folder, replaced atomically
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from hemix.errors import RunError
from hemix.files import new_folder, read_json, storage_errors, write_json, write_text
from hemix.model import Ranker
from hemix.run.weights import load_tensors, load_weights, save_tensors, save_weights

__all__ = ["BEST", "Checkpoint", "Checkpoints"]

BEST = "best"
_OPTIMIZER_FILE = "optimizer.safetensors"


class Checkpoint:
    """One complete checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = read_json(folder / "state.json", RunError)

    def load_model(self, model: Ranker) -> None:
        """Fill the model. Raises RunError naming a damaged file."""
        load_weights(self.folder, model, self.state["sha256"])

    def load_optimizer(self) -> dict[str, Tensor]:
        """The optimisers' tensors and the random state."""
        return load_tensors(self.folder / _OPTIMIZER_FILE, self.state["sha256"][_OPTIMIZER_FILE])


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path, keep: int) -> None:
        self.folder = run / "checkpoints"
        self._keep = keep

    def save(self, name: str, model: Ranker, optimizer: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint beside the others, mark it complete, then point LATEST at it (not for ``best``) and drop the oldest.

        A full disk or a kill leaves the previous ones untouched. Raises StorageError.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            target = self.folder / name
            aside = self.folder / f".{name}.old"
            if target.exists():
                target.rename(aside)
            try:
                with new_folder(target) as folder:
                    digests = save_weights(folder, model)
                    digests[_OPTIMIZER_FILE] = save_tensors(folder / _OPTIMIZER_FILE, optimizer)
                    write_json(folder / "state.json", {**state, "sha256": digests})
                    _flush(folder)
                    write_text(folder / "COMPLETE", "")
            except BaseException:
                if aside.exists():
                    aside.rename(target)
                raise
            shutil.rmtree(aside, ignore_errors=True)
            if name != BEST:
                write_text(self.folder / "LATEST", name + "\n")
                for old in self._complete()[: -self._keep]:
                    shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint, or None. LATEST only says where to look first."""
        complete = self._complete()
        return Checkpoint(complete[-1]) if complete else None

    def best(self) -> Checkpoint | None:
        """The checkpoint of the best valid loss, or None."""
        folder = self.folder / BEST
        return Checkpoint(folder) if (folder / "COMPLETE").exists() else None

    def remove(self) -> None:
        """Drop all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        return sorted(folder for folder in self.folder.glob("step-*") if (folder / "COMPLETE").exists())

    def _sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.folder.glob(".*"):
            if path.name == f".{BEST}.old" and not (self.folder / BEST).exists():
                path.rename(self.folder / BEST)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Force the files to disk before they are called complete."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
