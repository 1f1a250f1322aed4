"""Checkpoints: everything that a run needs to go on exactly where it was.

RUN/checkpoints/
  step-00000500/
    dense.safetensors                         weights but the tables'
    rows-00000-of-00001.safetensors           the tables' rows with their optimiser's state; a file a process, each of its own rows
    optimizer.safetensors                     the rest of both optimisers' state, meters, random state
    state.json                                position in the data, sha256 of the files above, which rows which file has
    COMPLETE                                  written last; a folder without it does not exist for a reader
  best/                                       the same, of the best valid loss
  LATEST                                      name of the newest complete folder, replaced atomically
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hemix.errors import RunError
from hemix.files import new_folder, read_json, storage_errors, write_json, write_text
from hemix.model import Ranker
from hemix.model.sharded import owned_rows
from hemix.run.shards import Shard, read_rows
from hemix.run.weights import DENSE_FILE, load_dense, load_tensors, save_tensors, sha256
from hemix.team import Team

__all__ = ["BEST", "WEIGHT", "Checkpoint", "Checkpoints"]

BEST = "best"
WEIGHT = "weight"
_OPTIMIZER_FILE = "optimizer.safetensors"


class Checkpoint:
    """One complete checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = read_json(folder / "state.json", RunError)

    def load_model(self, model: Ranker) -> None:
        """Fill the model, of the tables its own rows. Raises RunError naming a damaged file."""
        load_dense(self.folder, model, self.state["sha256"])
        model.tables.weight.copy_(self.load_rows([WEIGHT], *model.tables.owned)[WEIGHT])

    def load_optimizer(self) -> dict[str, Tensor]:
        """The optimisers' tensors that are not of rows, the meters and the random state."""
        return load_tensors(self.folder / _OPTIMIZER_FILE, self.state["sha256"][_OPTIMIZER_FILE])

    def load_random(self, rank: int) -> Tensor | None:
        """The random state of process ``rank``, where it is not the first's and was there."""
        names = [name for name, *_ in self.state["rows"]]
        if not 0 < rank < len(names):
            return None
        return load_tensors(self.folder / names[rank], self.state["sha256"][names[rank]])["random.torch"]

    def load_rows(self, names: Sequence[str], first: int, last: int) -> dict[str, Tensor]:
        """Rows [first, last) of the row-wise tensors ``names``, however many processes wrote them."""
        shards = [
            Shard(path=self.folder / name, first=begin, last=end, digest=self.state["sha256"][name])
            for name, begin, end in self.state["rows"]
        ]
        return read_rows(shards, names, first, last)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path, keep: int) -> None:
        self.folder = run / "checkpoints"
        self._keep = keep

    def save(
        self,
        name: str,
        dense: dict[str, Tensor],
        rows: dict[str, Tensor],
        optimizer: dict[str, Tensor],
        state: dict[str, Any],
        total_rows: int,
        team: Team | None = None,
    ) -> None:
        """Write a checkpoint beside the others, mark it complete, then point LATEST at it (not for ``best``) and drop the oldest.

        ``dense``: all weights but the tables'; ``rows``: this process's rows of the tables (WEIGHT) and of their optimiser's state;
        ``optimizer``: the rest; ``total_rows``: of all tables and processes. A full disk or a kill leaves the previous ones untouched.
        Of a team all call it; every process writes its rows, the first the rest. Raises StorageError.
        """
        rank, size = (team.rank, team.size) if team else (0, 1)
        own = f"rows-{rank:05d}-of-{size:05d}.safetensors"
        waiting = self.folder / f".{name}.{own}"

        def write_rows() -> None:
            with storage_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                save_tensors(waiting, rows)

        def write_rest() -> None:
            if rank == 0:
                self._write(name, dense, optimizer, state, total_rows, size)

        if team is None:
            self._sweep()
            write_rows()
            write_rest()
            return
        team.together(lambda: self._sweep() if rank == 0 else None, "tidy the checkpoints")
        team.together(write_rows, f"save its rows in {self.folder}")
        team.together(write_rest, f"save a checkpoint in {self.folder}")

    def _write(
        self, name: str, dense: dict[str, Tensor], optimizer: dict[str, Tensor], state: dict[str, Any], total_rows: int, size: int
    ) -> None:
        """Gather the processes' rows and write the rest."""
        with storage_errors(self.folder):
            target = self.folder / name
            aside = self.folder / f".{name}.old"
            if target.exists():
                target.rename(aside)
            try:
                with new_folder(target) as folder:
                    digests, rows = {DENSE_FILE: save_tensors(folder / DENSE_FILE, dense)}, []
                    for rank in range(size):
                        file = f"rows-{rank:05d}-of-{size:05d}.safetensors"
                        (self.folder / f".{name}.{file}").rename(folder / file)
                        digests[file] = sha256(folder / file)
                        rows.append([file, *owned_rows(total_rows, rank, size)])
                    digests[_OPTIMIZER_FILE] = save_tensors(folder / _OPTIMIZER_FILE, optimizer)
                    write_json(folder / "state.json", {**state, "sha256": digests, "rows": rows})
                    _flush(folder)
                    write_text(folder / "COMPLETE", "")
            except BaseException:
                if aside.exists():
                    aside.rename(target)
                for waiting in self.folder.glob(f".{name}.rows-*"):
                    waiting.unlink(missing_ok=True)
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
            else:
                path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """Force the files to disk before they are called complete."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
