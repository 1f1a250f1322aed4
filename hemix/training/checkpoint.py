"""Checkpoints: everything that a run needs to continue exactly.

    RUN/checkpoints/
      step-00000500/
        dense.safetensors                  weights but the tables'
        rows-00000-of-00001.safetensors    rows of the tables with their optimiser's state, a file
                                           a process
        optimizer.safetensors              the rest of both optimisers' state, meters
        state.json                         position in the data, its schema, sha256 of the files
                                           above, and which rows each file has
        COMPLETE                           sha256 of state.json, written last
      best/                                the same, of the best valid loss
      LATEST                               name of the newest complete folder

A folder without COMPLETE is half-written and not used.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hemix.distributed import DistributedContext
from hemix.errors import RunError
from hemix.files import new_folder, storage_errors, write_text
from hemix.formats import SavedFormat
from hemix.models import Ranker
from hemix.nn.sharded import owned_rows
from hemix.runs.shards import Shard, fill_rows
from hemix.runs.weights import (
    DENSE_FILE,
    check_digest,
    load_dense,
    load_tensors,
    save_tensors,
    sha256,
)

__all__ = ["BEST", "WEIGHT", "Checkpoint", "Checkpoints", "Snapshot"]

BEST = "best"
WEIGHT = "weight"
_FORMAT = SavedFormat(version=2, error=RunError, remedy="train into a new folder")
"""Of state.json; 2 since a position is an epoch and a step of the order by partitions"""
_OPTIMIZER_FILE = "optimizer.safetensors"
_COMPLETE = "COMPLETE"


class Checkpoint:
    """One complete checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        """Open it without reading the tensors.

        Raises RunError naming a file that is missing, or a state.json that is damaged or of another
        version.
        """
        self.folder = folder
        self.digest = (folder / _COMPLETE).read_text().strip()
        """sha256 of state.json, which has that of all other files"""
        check_digest(folder / "state.json", self.digest)
        self.state = _FORMAT.read(folder / "state.json")
        for name in self.state["sha256"]:
            if not (folder / name).is_file():
                raise RunError(
                    f"{folder / name}: missing", code="missing_file", field=str(folder / name)
                )

    def verify(self) -> None:
        """Read everything. Raises RunError naming the first file that is missing or damaged."""
        for name, digest in self.state["sha256"].items():
            check_digest(self.folder / name, digest)

    def load_model(self, model: Ranker) -> None:
        """Fill the model, of the tables its own rows. Raises RunError naming a damaged file."""
        load_dense(self.folder, model, self.state["sha256"])
        self.load_rows({WEIGHT: model.tables.weight}, *model.tables.owned)

    def load_optimizer(self) -> dict[str, Tensor]:
        """Return the optimisers' tensors that are not row-wise, and the meters."""
        return load_tensors(self.folder / _OPTIMIZER_FILE, self.state["sha256"][_OPTIMIZER_FILE])

    def load_rows(self, targets: Mapping[str, Tensor], first: int, last: int) -> None:
        """Fill tensors with rows of the tables, however many processes wrote them.

        Args:
            targets: Row-wise tensors by name.
            first: The first row.
            last: One past the last row.

        Raises:
            RunError: Naming a damaged file.
        """
        shards = [
            Shard(path=self.folder / name, first=begin, last=end, digest=self.state["sha256"][name])
            for name, begin, end in self.state["rows"]
        ]
        fill_rows(shards, targets, first, last)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The content of a checkpoint, in one process."""

    dense: dict[str, Tensor]
    """All weights but the tables'"""
    rows: dict[str, Tensor]
    """This process's rows of the tables (WEIGHT) and of their optimiser's state"""
    optimizer: dict[str, Tensor]
    """The rest of the optimisers' state, and the meters"""
    state: dict[str, Any]
    """Position, dataset and schema, as state.json keeps them"""
    total_rows: int
    """Rows of all tables in all processes"""

    def copied(self, *, rows_only: bool) -> Snapshot:
        """Copy the tensors into the CPU's memory.

        Args:
            rows_only: Drop the other tensors, which rank 0 alone writes.
        """
        return replace(
            self,
            dense={} if rows_only else _on_cpu(self.dense),
            rows=_on_cpu(self.rows),
            optimizer={} if rows_only else _on_cpu(self.optimizer),
        )


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _rows_file(rank: int, size: int) -> str:
    return f"rows-{rank:05d}-of-{size:05d}.safetensors"


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path, keep: int) -> None:
        self.folder = run / "checkpoints"
        self._keep = keep

    def save(
        self, name: str, snapshot: Snapshot, distributed: DistributedContext | None = None
    ) -> None:
        """Write a checkpoint and mark it complete.

        Then LATEST points at it (not for ``best``) and the oldest ones are dropped. A full disk or
        a kill leaves the previous ones untouched. All processes call it; each writes its rows,
        rank 0 the rest.

        Args:
            name: Name of its folder.
            snapshot: What to write.
            distributed: The processes of the run; None: this process alone.

        Raises:
            StorageError: If the disk is full or cannot be written.
        """
        rank, size = (distributed.rank, distributed.world_size) if distributed else (0, 1)
        file = self._rows_path(name, rank, size)
        digest = ""

        def sweep() -> None:
            if rank == 0:
                self._sweep()

        def write_rows() -> None:
            nonlocal digest
            digest = self._write_rows(file, snapshot.rows)

        def write_rest(digests: list[str]) -> None:
            if rank == 0:
                self._write(name, snapshot, digests)

        if distributed is None:
            sweep()
            write_rows()
            write_rest([digest])
            return
        distributed.on_all_ranks(sweep, "tidy the checkpoints")
        distributed.on_all_ranks(write_rows, f"save its rows in {self.folder}")
        digests = [text.decode() for text in distributed.all_gather_bytes(digest.encode())]
        distributed.on_all_ranks(lambda: write_rest(digests), f"save a checkpoint in {self.folder}")

    def _rows_path(self, name: str, rank: int, size: int) -> Path:
        """The temporary path of a process's rows, until the checkpoint's folder is made."""
        return self.folder / f".{name}.{_rows_file(rank, size)}"

    def _write_rows(self, file: Path, rows: dict[str, Tensor]) -> str:
        """Write this process's rows; returns their sha256."""
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            digest = save_tensors(file, rows)
            _flush([file])
        return digest

    def _write(self, name: str, snapshot: Snapshot, rows_digests: list[str]) -> None:
        """Make the checkpoint's folder. ``rows_digests``: sha256 of the rows of every process."""
        with storage_errors(self.folder):
            target = self.folder / name
            previous = self.folder / f".{name}.old"
            if target.exists():
                target.rename(previous)
            try:
                with new_folder(target) as folder:
                    self._fill(folder, name, snapshot, rows_digests)
            except BaseException:
                if previous.exists():
                    previous.rename(target)
                for rows_file in self.folder.glob(f".{name}.rows-*"):
                    rows_file.unlink(missing_ok=True)
                raise
            shutil.rmtree(previous, ignore_errors=True)
            if name != BEST:
                write_text(self.folder / "LATEST", name + "\n")
                for old in self._complete()[: -self._keep]:
                    shutil.rmtree(old, ignore_errors=True)

    def _fill(self, folder: Path, name: str, snapshot: Snapshot, rows_digests: list[str]) -> None:
        """Fill the folder of a checkpoint; COMPLETE comes last."""
        size = len(rows_digests)
        digests = {DENSE_FILE: save_tensors(folder / DENSE_FILE, snapshot.dense)}
        rows = []
        for rank, digest in enumerate(rows_digests):
            file = _rows_file(rank, size)
            self._rows_path(name, rank, size).rename(folder / file)
            digests[file] = digest
            rows.append([file, *owned_rows(snapshot.total_rows, rank, size)])
        digests[_OPTIMIZER_FILE] = save_tensors(folder / _OPTIMIZER_FILE, snapshot.optimizer)
        state = {**snapshot.state, "sha256": digests, "rows": rows}
        _FORMAT.write(folder / "state.json", state)
        _flush([*folder.iterdir(), folder])
        write_text(folder / _COMPLETE, sha256(folder / "state.json") + "\n")
        _flush([folder / _COMPLETE, folder])

    def latest(self, fits: Callable[[Checkpoint], None] = lambda _: None) -> Checkpoint | None:
        """Return the newest complete checkpoint, or None. LATEST is for people.

        Args:
            fits: Raises RunError for a checkpoint of another run.

        Raises:
            RunError: Naming what is wrong with the newest, and the newest one that may be used.
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
        """Add to a RunError inside the block which other checkpoint may be used, and how.

        Args:
            folder: The checkpoint that the error is about.
            fits: Raises RunError for a checkpoint of another run.
        """
        try:
            yield
        except RunError as error:
            raise RunError(
                str(error),
                code=error.code,
                field=error.field,
                hint=self._instead_of(folder, fits),
            ) from error

    def _instead_of(self, folder: Path, fits: Callable[[Checkpoint], None]) -> str:
        for other in reversed(self._complete()):
            try:
                checkpoint = Checkpoint(other)
                fits(checkpoint)
                checkpoint.verify()
            except RunError:
                continue
            if other != folder:
                remedy = f"remove {folder} and --resume continues from there"
                return f"the newest complete checkpoint is {other.name}: {remedy}"
        return f"no other checkpoint in {self.folder} can be used"

    def half_written(self) -> list[str]:
        """Names of checkpoints without COMPLETE, newer than the newest complete one."""
        complete = self._complete()
        newest = complete[-1].name if complete else ""
        return sorted(folder.name for folder in self.folder.glob("step-*") if folder.name > newest)

    def best(self) -> Checkpoint | None:
        """The checkpoint of the best valid loss, or None. Raises RunError if it is damaged."""
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
    """An empty COMPLETE may be left by a machine that lost its power."""
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
