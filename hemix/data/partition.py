"""One partition of a dataset: some of its users with their histories and impressions.

Each file is memory-mapped at its first use. Numbers of users, their rows and their events count
from 0 in every partition; item rows are those of the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.data.history import HistoryEvents
from hemix.data.jagged_array import JaggedArray
from hemix.data.layout import MANIFEST_FORMAT, SPLITS, Block, file_hash, load_array
from hemix.data.spec import InputSpec
from hemix.errors import DataError

__all__ = ["Partition", "PartitionSplit", "verify_files"]

_COLUMNS = (
    *("user", "user_row", "time_ms", "first_candidate"),
    *("item_row", "bias", "labels", "weight", "log_row"),
)


@dataclass(frozen=True, kw_only=True)
class PartitionSplit:
    """The impressions of one split in a partition: q requests, n candidates, T labels."""

    user: npt.NDArray[np.int32]
    """int32 [q]"""
    user_row: npt.NDArray[np.int32]
    """int32 [q]: the version of the user's features at the request's time"""
    time_ms: npt.NDArray[np.int64]
    """int64 [q], UTC"""
    context: Block
    """[q]"""
    first_candidate: npt.NDArray[np.int64]
    """int64 [q + 1]: request i has the candidates first_candidate[i]:first_candidate[i + 1]"""
    item_row: npt.NDArray[np.int32]
    """int32 [n]: the version of the item's features at the request's time"""
    cross: Block
    """[n]"""
    bias: npt.NDArray[np.int32]
    """int32 [n]"""
    labels: npt.NDArray[np.int8]
    """int8 [n, T]: 0, 1, or -1 where unknown"""
    weight: npt.NDArray[np.float32]
    """float32 [n]"""
    log_row: npt.NDArray[np.int64]
    """int64 [n]: row of the impression in the log"""

    @classmethod
    def load(cls, folder: Path, spec: InputSpec) -> PartitionSplit:
        """Map the files of a folder. Raises DataError naming one that is missing or damaged."""
        columns = {name: load_array(folder / f"{name}.npy") for name in _COLUMNS}
        return cls(
            **columns,
            context=Block.load(folder, "context", len(spec.context.jagged_tables)),
            cross=Block.load(folder, "cross", len(spec.cross.jagged_tables)),
        )


class Partition:
    """One folder of ``DATA/partitions``."""

    def __init__(
        self, folder: Path, *, position: tuple[int, int], digest: str, spec: InputSpec
    ) -> None:
        """Check the folder's manifest; the arrays are mapped later.

        Args:
            folder: The folder.
            position: Number of the partition, and how many the dataset has.
            digest: xxh64 of its manifest.json by the dataset's.
            spec: The dataset's columns.

        Raises:
            DataError: The folder is missing, damaged or of another dataset.
        """
        self.folder = folder
        self.number, _ = position
        self._spec = spec
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            raise DataError(
                f"{folder}: the partition is missing from the dataset folder (no manifest.json)",
                code="missing_partition",
                field=str(folder),
            )
        self._manifest = MANIFEST_FORMAT.read(manifest)
        found = (self._manifest.get("partition"), self._manifest.get("partitions"))
        if found != position or file_hash(manifest) != digest:
            raise DataError(
                f"{manifest}: expected partition {position[0]} of {position[1]} with the hash in "
                f"the dataset's manifest.json, found partition {found[0]} of {found[1]}: damaged, "
                "or copied from another dataset",
                code="wrong_partition",
                field=str(manifest),
            )

    @cached_property
    def users(self) -> Block:
        """The features of all versions of the users."""
        block = Block.load(self.folder / "users", "features", len(self._spec.user.jagged_tables))
        self._check_counts("users", {"user_rows": block.rows})
        return block

    @cached_property
    def history(self) -> HistoryEvents:
        """The events of the users."""
        events = HistoryEvents.load(self.folder / "history")
        counts = {"users": len(events.offsets) - 1, "events": len(events.time_ms)}
        self._check_counts("history", counts)
        return events

    @cached_property
    def train(self) -> PartitionSplit:
        """The impressions of the train split."""
        return self._load_split("train")

    @cached_property
    def valid(self) -> PartitionSplit:
        """The impressions of the valid split."""
        return self._load_split("valid")

    @cached_property
    def test(self) -> PartitionSplit:
        """The impressions of the test split."""
        return self._load_split("test")

    def split(self, name: str) -> PartitionSplit:
        """Return the impressions of train, valid or test."""
        assert name in SPLITS
        split: PartitionSplit = getattr(self, name)
        return split

    @cached_property
    def user_ids(self) -> pa.Array:
        """The raw id of every user."""
        path = self.folder / "ids.parquet"
        try:
            ids = pq.read_table(path, memory_map=True).column(0).combine_chunks()
        except FileNotFoundError as error:
            raise DataError(f"{path}: missing", code="missing_file", field=str(path)) from error
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path}: damaged: {error}", code="damaged_file", field=str(path)
            ) from error
        self._check_counts("ids.parquet", {"users": len(ids)})
        return ids

    def user_array(self, name: str) -> npt.NDArray[Any]:
        """Return an array of the folder ``users``, such as ``train_impressions`` [users]."""
        return load_array(self.folder / "users" / f"{name}.npy")

    def truth(self, split: str) -> npt.NDArray[np.float64] | None:
        """Return float64 [n, T], the true probabilities of a simulation; None for other logs."""
        path = self.folder / "truth" / f"{split}.npy"
        return load_array(path) if path.exists() else None

    def row_keys(self, split: str, rows: npt.NDArray[np.integer[Any]]) -> pa.Array:
        """Return the keys of impressions (``roles.row_key``), as numbers or texts.

        Args:
            split: ``train``, ``valid`` or ``test``.
            rows: int [n], positions in the split.
        """
        folder = self.folder / split
        if (folder / "row_key.npy").exists():
            return pa.array(load_array(folder / "row_key.npy")[rows])
        values, offsets = (load_array(folder / f"row_key.{n}.npy") for n in ("values", "offsets"))
        texts = JaggedArray(values=values, offsets=offsets).select(rows)
        buffers = [None, pa.py_buffer(texts.offsets), pa.py_buffer(texts.values)]
        return pa.Array.from_buffers(pa.large_string(), len(rows), buffers).cast(pa.string())

    def verify(self, *, but: str | None = None) -> None:
        """Compare every file with its hash, but those of the split ``but``.

        Raises DataError naming the first file that is missing or damaged.
        """
        files = self._manifest["files"]
        verify_files(self.folder, {n: f for n, f in files.items() if not _is_of_split(n, but)})

    def _load_split(self, name: str) -> PartitionSplit:
        split = PartitionSplit.load(self.folder / name, self._spec)
        counts = {"requests": len(split.user), "rows": len(split.item_row)}
        self._check_counts(name, counts, self._manifest["splits"][name])
        last, requests = int(split.first_candidate[-1]), len(split.first_candidate) - 1
        self._check_counts(
            f"{name}/first_candidate.npy", counts, {"requests": requests, "rows": last}
        )
        return split

    def _check_counts(
        self, name: str, counts: Mapping[str, int], expected: Mapping[str, int] | None = None
    ) -> None:
        """Compare lengths of arrays with the manifest, whose hash may not have been checked."""
        expected = self._manifest if expected is None else expected
        for what, count in counts.items():
            if expected[what] != count:
                path = self.folder / name
                raise DataError(
                    f"{path}: damaged: expected {expected[what]:,} {what}, found {count:,}",
                    code="damaged_file",
                    field=str(path),
                )


def _is_of_split(name: str, split: str | None) -> bool:
    """Whether a file, such as train/user.npy or truth/train.npy, is of a split."""
    return split is not None and split in Path(name).with_suffix("").parts


def verify_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare files with their hashes.

    Args:
        folder: Their folder, with a manifest.json.
        files: By relative path entries with ``xxh64``.

    Raises:
        DataError: Naming the first file that is missing or damaged.
    """
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise DataError(
                f"{path}: missing from the dataset folder", code="missing_file", field=str(path)
            )
        if file_hash(path) != entry["xxh64"]:
            raise DataError(
                f"{path}: damaged: its hash is not the one in manifest.json",
                code="damaged_file",
                field=str(path),
            )
