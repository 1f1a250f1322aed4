"""Items of all partitions: their numbers and versions, memory-mapped where tasks look them up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.keys import KeyMap
from hemix.data.layout import load_array, save_array
from hemix.data.versions import NO_ITEM_ROW, Versions
from hemix.files import storage_errors
from hemix.preparation.entities import Entities
from hemix.preparation.rows import Rows, read_rows

__all__ = ["ItemIndex", "PartitionItems"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ItemIndex:
    """Numbers, versions and coordinates of all items, for the tasks of every partition."""

    numbers: KeyMap
    versions: Versions
    coordinates: dict[str, Array]
    """``item.feature`` -> float64 [rows, 2], latitude and longitude in degrees"""

    @staticmethod
    def save(folder: Path, items: Entities, numbers: KeyMap) -> None:
        """Write the files.

        Args:
            folder: A new folder.
            items: All items.
            numbers: Their numbers by key.

        Raises:
            StorageError: The disk is full or read-only.
        """
        with storage_errors(folder):
            folder.mkdir(parents=True)
        arrays = {
            "keys": numbers.keys,
            "numbers": numbers.numbers,
            "first_row": items.versions.first_row,
            "valid_from_ms": items.versions.valid_from_ms,
        }
        for i, coordinates in enumerate(items.coordinates().values()):
            arrays[f"coordinates.{i}"] = coordinates
        for name, array in arrays.items():
            save_array(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path, coordinates: tuple[str, ...]) -> ItemIndex:
        """Memory-map the files of :meth:`save`.

        Args:
            folder: Their folder.
            coordinates: The coordinates features of items.
        """

        def array(name: str) -> Array:
            return load_array(folder / f"{name}.npy")

        return cls(
            numbers=KeyMap(array("keys"), array("numbers")),
            versions=Versions(first_row=array("first_row"), valid_from_ms=array("valid_from_ms")),
            coordinates={
                f"item.{name}": array(f"coordinates.{i}") for i, name in enumerate(coordinates)
            },
        )


class PartitionItems:
    """The items of a partition among all items."""

    def __init__(self, places: Path, index: ItemIndex) -> None:
        """Look up the numbers of the items.

        Args:
            places: The file of :meth:`hemix.preparation.numbering.FirstAppearances.save`.
            index: All items.
        """
        rows: Rows = read_rows(places)
        self.keys: Array = np.asarray(rows["key"])
        """uint64 [n]: the key of every item of the partition"""
        self.number = index.numbers.look_up(self.keys, -1)
        """int32 [n]: its number over all partitions"""
        self._versions = index.versions
        self._first = np.asarray(index.versions.first_row[self.number], dtype=np.int64)
        versions = index.versions.first_row[self.number + 1] - self._first
        self._own_first = np.cumsum(versions) - versions
        self._own_rows = int(versions.sum())

    def row_at(self, item: Array, time_ms: Array) -> Array:
        """Find the version of items that is valid at a time.

        Args:
            item: int [n], positions among the items of the partition; -1 for none.
            time_ms: int64 [n], UTC.

        Returns:
            int32 [n], versions of all items; NO_ITEM_ROW for none.
        """
        rows = np.full(len(item), NO_ITEM_ROW, dtype=np.int32)
        given = np.flatnonzero(item >= 0)
        rows[given] = self._versions.row_at(self.number[item[given]], time_ms[given])
        return rows

    def count_rows(self, item: Array, item_row: Array) -> Array:
        """Count how often each version of the partition's items occurs.

        Args:
            item: int [n], positions among the items of the partition.
            item_row: int [n], their versions.

        Returns:
            int64, in the order of :attr:`rows`.
        """
        own = self._own_first[item] + (item_row - self._first[item])
        return np.bincount(own, minlength=self._own_rows)

    @property
    def rows(self) -> Array:
        """int64 [versions]: all versions of the partition's items, as rows of all items."""
        counts = np.diff(np.append(self._own_first, self._own_rows))
        return np.repeat(self._first - self._own_first, counts) + np.arange(self._own_rows)
