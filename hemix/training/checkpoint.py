"""Checkpoints: everything that a run needs to go on exactly where it was.

RUN/checkpoints/
  step-00000500/
    dense.safetensors                         weights but the tables'
    rows-00000-of-00001.safetensors           the tables' rows with their optimiser's state; a file a process, each of its own rows
    optimizer.safetensors                     the rest of both optimisers' state, meters
    state.json                                position in the data, its schema, sha256 of the files above, which rows which file has
    COMPLETE                                  sha256 of state.json, written last; a folder without it is half-written and passed over
  best/                                       the same, of the best valid loss
  LATEST                                      name of the newest complete folder, replaced atomically
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from hemix.errors import RunError
from hemix.files import new_folder, read_json, storage_errors, write_json, write_text
from hemix.models import Ranker
from hemix.nn.sharded import owned_rows
from hemix.run.shards import Shard, fill_rows
from hemix.run.weights import DENSE_FILE, check_digest, load_dense, load_tensors, save_tensors, sha256
from hemix.team import Team

__all__ = ["BEST", "WEIGHT", "Checkpoint", "Checkpoints"]

BEST = "best"
WEIGHT = "weight"
_OPTIMIZER_FILE = "optimizer.safetensors"
_COMPLETE = "COMPLETE"


class Checkpoint:
    """One complete checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        """Raises RunError naming a file that is missing, or a damaged state.json; what the other files hold is not looked at yet."""
        self.folder = folder
        self.digest = (folder / _COMPLETE).read_text().strip()
        """sha256 of state.json, which has that of all other files"""
        check_digest(folder / "state.json", self.digest)
        self.state = read_json(folder / "state.json", RunError)
        for name in self.state["sha256"]:
            if not (folder / name).is_file():
                raise RunError(f"{folder / name}: missing")

    def verify(self) -> None:
        """Read everything. Raises RunError naming the first file that is missing or damaged."""
        for name, digest in self.state["sha256"].items():
            check_digest(self.folder / name, digest)

    def load_model(self, model: Ranker) -> None:
        """Fill the model, of the tables its own rows. Raises RunError naming a damaged file."""
        load_dense(self.folder, model, self.state["sha256"])
        self.load_rows({WEIGHT: model.tables.weight}, *model.tables.owned)

    def load_optimizer(self) -> dict[str, Tensor]:
        """The optimisers' tensors that are not of rows, and the meters."""
        return load_tensors(self.folder / _OPTIMIZER_FILE, self.state["sha256"][_OPTIMIZER_FILE])

    def load_rows(self, targets: Mapping[str, Tensor], first: int, last: int) -> None:
        """Fill ``targets``, row-wise tensors by name, with rows [first, last), however many processes wrote them. Raises RunError naming
        a damaged file."""
        shards = [
            Shard(path=self.folder / name, first=begin, last=end, digest=self.state["sha256"][name])
            for name, begin, end in self.state["rows"]
        ]
        fill_rows(shards, targets, first, last)


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
        digest = ""

        def write_rows() -> None:
            nonlocal digest
            with storage_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                digest = save_tensors(waiting, rows)
                _flush([waiting])

        def write_rest(digests: list[str]) -> None:
            if rank == 0:
                self._write(name, dense, optimizer, state, total_rows, digests)

        if team is None:
            self._sweep()
            write_rows()
            write_rest([digest])
            return
        team.together(lambda: self._sweep() if rank == 0 else None, "tidy the checkpoints")
        team.together(write_rows, f"save its rows in {self.folder}")
        digests = [theirs.decode() for theirs in team.gathered_bytes(digest.encode())]
        team.together(lambda: write_rest(digests), f"save a checkpoint in {self.folder}")

    def _write(
        self,
        name: str,
        dense: dict[str, Tensor],
        optimizer: dict[str, Tensor],
        state: dict[str, Any],
        total_rows: int,
        rows_digests: list[str],
    ) -> None:
        """Gather the processes' rows, of which each has the sha256, and write the rest."""
        size = len(rows_digests)
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
                        digests[file] = rows_digests[rank]
                        rows.append([file, *owned_rows(total_rows, rank, size)])
                    digests[_OPTIMIZER_FILE] = save_tensors(folder / _OPTIMIZER_FILE, optimizer)
                    write_json(folder / "state.json", {**state, "sha256": digests, "rows": rows})
                    _flush([*folder.iterdir(), folder])
                    write_text(folder / _COMPLETE, sha256(folder / "state.json") + "\n")
                    _flush([folder / _COMPLETE, folder])
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

    def latest(self, fits: Callable[[Checkpoint], None] = lambda _: None) -> Checkpoint | None:
        """The newest complete checkpoint, or None; LATEST is for people. ``fits`` raises RunError for one of another run.

        Raises RunError naming what is wrong with the newest, and the newest one that may be used.
        """
        complete = self._complete()
        if not complete:
            return None
        with self.offering_another(complete[-1], fits):
            checkpoint = Checkpoint(complete[-1])
            fits(checkpoint)
        return checkpoint

    @contextmanager
    def offering_another(self, folder: Path, fits: Callable[[Checkpoint], None]) -> Iterator[None]:
        """Inside, a RunError about the checkpoint in ``folder`` also says which other one may be used, and how."""
        try:
            yield
        except RunError as error:
            raise RunError(f"{error}; {self._instead_of(folder, fits)}") from error

    def _instead_of(self, folder: Path, fits: Callable[[Checkpoint], None]) -> str:
        for other in reversed(self._complete()):
            try:
                checkpoint = Checkpoint(other)
                fits(checkpoint)
                checkpoint.verify()
            except RunError:
                continue
            if other != folder:
                return f"the newest complete checkpoint is {other.name}: remove {folder} and --resume goes on from there"
        return f"no other checkpoint in {self.folder} can be used"

    def half_written(self) -> list[str]:
        """Names of checkpoints without COMPLETE, newer than the newest complete one."""
        complete = self._complete()
        newest = complete[-1].name if complete else ""
        return sorted(folder.name for folder in self.folder.glob("step-*") if folder.name > newest)

    def best(self) -> Checkpoint | None:
        """The checkpoint of the best valid loss, or None. Raises RunError as :class:`Checkpoint`."""
        folder = self.folder / BEST
        return Checkpoint(folder) if _is_complete(folder) else None

    def remove(self) -> None:
        """Drop all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        return sorted(folder for folder in self.folder.glob("step-*") if _is_complete(folder))

    def _sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.folder.glob(".*"):
            if path.name == f".{BEST}.old" and not (self.folder / BEST).exists():
                path.rename(self.folder / BEST)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_complete(folder: Path) -> bool:
    """A file without content is what a machine that lost its power may leave."""
    mark = folder / _COMPLETE
    return mark.is_file() and mark.stat().st_size > 0


def _flush(paths: list[Path]) -> None:
    """Force files and folders to disk before they are called complete."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
