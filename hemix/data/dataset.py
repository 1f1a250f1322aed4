"""A prepared dataset folder: shared files, and partitions of its users."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.encode import Encoders
from hemix.data.entities import MatchColumns, history_numbers, key_features
from hemix.data.layout import (
    MANIFEST_FORMAT,
    SPEC_FORMAT,
    SPLITS,
    Block,
    load_array,
    partition_folder,
)
from hemix.data.masking import UnknownRows
from hemix.data.partition import Partition, verify_files
from hemix.data.partitioned import PartitionedRows, Pieces
from hemix.data.spec import InputSpec
from hemix.data.split import Split
from hemix.errors import DataError, UsageError
from hemix.features.history_counts import HISTORY_COUNTS, number_of_actions
from hemix.features.match_index import MatchKeys
from hemix.representation import html_table, one_line
from hemix.schema import Schema

__all__ = ["Dataset"]

Int64Array = npt.NDArray[np.int64]

_OPEN_PARTITIONS = 256
"""Partitions whose files stay mapped; Linux allows a process about 65,000 mappings"""


class Dataset:
    """A dataset folder made by ``hemix prepare``.

    Users, their rows and the impressions of a split are numbered over the open partitions, one
    partition after the other. A partition is read at its first use.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        partitions: Sequence[int] | None = None,
        history_events_max: int | None = None,
    ) -> None:
        """Open a folder.

        Args:
            folder: The dataset folder.
            partitions: Numbers of the partitions to open; None: all.
            history_events_max: Most events that a request sees, its newest ones; None: what the
                schema says.

        Raises:
            DataError: Names what is missing or damaged.
            UsageError: There is no such partition.
        """
        self.folder = Path(folder)
        self.history_events_max = history_events_max
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise DataError(
                f"{self.folder}: not a dataset folder (no manifest.json): make one with hemix "
                "prepare",
                code="missing_dataset",
                field=str(self.folder),
            )
        self.manifest = MANIFEST_FORMAT.read(manifest)
        try:
            self.spec = InputSpec.from_json(SPEC_FORMAT.read(self.folder / "spec.json"))
            self.partitions = self._numbers(partitions)
            self.users = PartitionedRows(self.partition_counts("users"))
            self.user_rows = PartitionedRows(self.partition_counts("user_rows"))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{self.folder}: damaged manifest.json or spec.json: {error}",
                code="damaged_file",
                field=str(self.folder),
            ) from error
        self.schema = self._load_schema()
        self._partition = lru_cache(maxsize=_OPEN_PARTITIONS)(self._open)
        self.items = Block.load(
            self.folder / "items", "features", len(self.spec.item.jagged_tables)
        )
        self.history_numbers = history_numbers(
            self.schema,
            number_of_actions(len(self.spec.context.numbers_of(HISTORY_COUNTS))),
            self.spec.match_actions,
            self.spec.match_windows_ms,
        )
        self._match_columns = MatchColumns.of(self.schema)
        self._item_keys = np.zeros((self.items.rows, 0), dtype=np.uint64)
        if key_features(self.schema, "item"):
            self._item_keys = load_array(self.folder / "items" / "keys.npy")

    def _load_schema(self) -> Schema:
        schema = Schema.load(self.folder / "schema.yaml")
        if schema.fingerprint() != self.manifest["fingerprint"]:
            raise DataError(
                f"{self.folder}: schema.yaml was changed after the dataset was prepared: prepare "
                "it again",
                code="other_schema",
                field=str(self.folder),
            )
        return schema

    def _numbers(self, partitions: Sequence[int] | None) -> tuple[int, ...]:
        count = len(self.manifest["partitions"])
        if partitions is None:
            return tuple(range(count))
        wrong = [number for number in partitions if not 0 <= number < count]
        if wrong:
            raise UsageError(
                f"partitions: {wrong[0]}: {self.folder} has the partitions 0 to {count - 1}",
                field="partitions",
            )
        return tuple(sorted(set(partitions)))

    def _facts(self) -> dict[str, object]:
        """The facts of the representations."""
        splits = self.manifest["splits"]
        return {
            "name": self.schema.name,
            "rows": sum(split["rows"] for split in splits.values()),
            "partitions": len(self.partitions),
            "folder": self.folder,
        }

    def __repr__(self) -> str:
        return one_line("Dataset", self._facts())

    def _repr_html_(self) -> str:
        rows = {f"{name} rows": split["rows"] for name, split in self.manifest["splits"].items()}
        return html_table("Dataset", self._facts() | rows)

    @cached_property
    def unknown_rows(self) -> UnknownRows:
        """What is known of an unknown user or item. Raises DataError for damaged encoders."""
        return UnknownRows(Encoders.load(self.folder / "encoders", with_ids=False))

    # -- partitions --------------------------------------------------------------------------------

    def partition(self, number: int) -> Partition:
        """Return a partition by its number.

        Raises DataError where its folder is missing, damaged or of another dataset.
        """
        return self._partition(number)

    def _open(self, number: int) -> Partition:
        entries = self.manifest["partitions"]
        return Partition(
            partition_folder(self.folder, number),
            position=(number, len(entries)),
            digest=entries[number]["xxh64"],
            spec=self.spec,
        )

    def opened(self, pieces: Pieces) -> list[Partition]:
        """Return the partition of each piece."""
        return [self._partition(self.partitions[place]) for place in pieces.partitions]

    def partition_counts(self, key: str, split: str | None = None) -> Int64Array:
        """Count rows of every open partition by the manifest.

        Args:
            key: ``users``, ``user_rows`` or ``events``; of a split ``requests`` or ``rows``.
            split: Name of the split.

        Returns:
            int64 [open partitions].
        """
        entries = [self.manifest["partitions"][number] for number in self.partitions]
        counts = [(entry if split is None else entry["splits"][split])[key] for entry in entries]
        return np.array(counts, dtype=np.int64)

    # -- identity ----------------------------------------------------------------------------------

    def file_hashes(self) -> dict[str, str]:
        """Return the xxh64 of every shared file and of every partition's manifest by path.

        They and the schema make a dataset the same one, wherever it lies.
        """
        manifest = self.manifest
        return {
            **{f"encoders/{name}": digest for name, digest in manifest["encoders"].items()},
            **{name: entry["xxh64"] for name, entry in manifest["files"].items()},
            **{
                f"partitions/{number:05d}/manifest.json": entry["xxh64"]
                for number, entry in enumerate(manifest["partitions"])
            },
        }

    def verify(self, *, but: str | None = None) -> None:
        """Compare every file with its hash, but those of the split ``but``.

        Of the partitions only the open ones are read. Raises DataError naming the first file that
        is missing or damaged.
        """
        verify_files(self.folder, self.manifest["files"])
        for number in self.partitions:
            self._open(number).verify(but=but)

    # -- content -----------------------------------------------------------------------------------

    def user_ids(self, users: npt.NDArray[np.integer[Any]]) -> pa.ChunkedArray:
        """Return the raw ids of users, int [n] numbers in ascending order of their partitions."""
        pieces = self.users.pieces(users)
        assert pieces.order is None, "partition by partition"
        return pa.chunked_array(
            [
                partition.user_ids.take(pa.array(rows))
                for partition, rows in zip(self.opened(pieces), pieces.each, strict=True)
            ]
        )

    def match_keys(self, item_rows: Int64Array, items: Block) -> MatchKeys:
        """Return the keys in which match counts compare item versions.

        Args:
            item_rows: int64 [rows], the versions.
            items: Their features.
        """
        return self._match_columns.select(self._item_keys.take(item_rows, axis=0), items.jagged)

    def split(self, name: str) -> Split:
        """One of train, valid, test."""
        if name not in SPLITS:
            raise UsageError(
                f"--split {name}: expected one of {', '.join(SPLITS)}", field="--split"
            )
        return Split(self, name)
