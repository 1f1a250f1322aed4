"""Arrays of a dataset folder: written once, then memory-mapped.

Arrays are written in chunks, before their number of rows is known. ``np.save`` and ``open_memmap``
need it first, so :class:`Appender` writes the header of the .npy format (version 1.0) at the end.

docs/reference/dataset.md lists the files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash

from hemix.data.arrow import pa
from hemix.data.jagged_array import JaggedArray
from hemix.errors import DataError
from hemix.files import storage_errors
from hemix.formats import SavedFormat

__all__ = [
    "MANIFEST_FORMAT",
    "SPEC_FORMAT",
    "SPLITS",
    "Appender",
    "Block",
    "file_hash",
    "load_array",
    "partition_folder",
    "save_array",
]

MANIFEST_FORMAT = SavedFormat(version=3, error=DataError, remedy="prepare the logs again")
"""Of the manifest.json of a dataset and of its partitions, and of all files that they list; 3 since
a dataset is a set of partitions
"""
SPEC_FORMAT = SavedFormat(version=3, error=DataError, remedy="prepare the logs again")

SPLITS = ("train", "valid", "test")
_HEADER_BYTES = 128
_CHUNK_BYTES = 1 << 20

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Block:
    """The encoded features of some rows of one level: a RequestBatch's Columns, as NumPy arrays."""

    ids: npt.NDArray[np.int32]
    """int32 [rows, F]"""
    numbers: npt.NDArray[np.float32]
    """float32 [rows, K]"""
    jagged: tuple[JaggedArray[np.int32], ...] = ()
    """One per multi-valued feature"""

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.ids)

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> Block:
        """Return the rows at the given positions, in that order."""
        return Block(
            ids=self.ids.take(rows, axis=0),  # several times as fast as self.ids[rows]
            numbers=self.numbers.take(rows, axis=0),
            jagged=tuple(array.select(rows) for array in self.jagged),
        )

    def slice(self, first: int, last: int) -> Block:
        """Return rows [first, last), as views.

        Args:
            first: The first row.
            last: The position behind the last row.
        """
        return Block(
            ids=self.ids[first:last],
            numbers=self.numbers[first:last],
            jagged=tuple(array.slice(first, last) for array in self.jagged),
        )

    def with_numbers(self, *numbers: npt.NDArray[np.float32]) -> Block:
        """Return the block with further number columns after its own; itself without any.

        Args:
            numbers: float32 [rows, any] each; one without columns may have any rows.
        """
        further = [columns for columns in numbers if columns.shape[1]]
        if not further:
            return self
        return replace(self, numbers=np.concatenate([self.numbers, *further], axis=1))

    @classmethod
    def concatenate(cls, blocks: Sequence[Block]) -> Block:
        """Return all rows of one or more blocks of the same level."""
        if len(blocks) == 1:
            return blocks[0]
        jagged = zip(*(block.jagged for block in blocks), strict=True)
        return cls(
            ids=np.concatenate([block.ids for block in blocks]),
            numbers=np.concatenate([block.numbers for block in blocks]),
            jagged=tuple(JaggedArray.concatenate(of_feature) for of_feature in jagged),
        )

    def save(self, folder: Path, name: str) -> None:
        """Write the arrays as ``name.*.npy``.

        Args:
            folder: An existing folder.
            name: The beginning of the files' names.
        """
        save_array(folder / f"{name}.ids.npy", self.ids)
        save_array(folder / f"{name}.numbers.npy", self.numbers)
        for i, array in enumerate(self.jagged):
            save_array(folder / f"{name}.bag{i}.values.npy", array.values)
            save_array(folder / f"{name}.bag{i}.offsets.npy", array.offsets)

    @classmethod
    def load(cls, folder: Path, name: str, jagged: int) -> Block:
        """Memory-map the files of :meth:`save`.

        Args:
            folder: Their folder.
            name: The beginning of their names.
            jagged: Number of jagged columns.

        Raises:
            DataError: A file is missing or damaged.
        """
        return cls(
            ids=load_array(folder / f"{name}.ids.npy"),
            numbers=load_array(folder / f"{name}.numbers.npy"),
            jagged=tuple(
                JaggedArray(
                    values=load_array(folder / f"{name}.bag{i}.values.npy"),
                    offsets=load_array(folder / f"{name}.bag{i}.offsets.npy"),
                )
                for i in range(jagged)
            ),
        )


def partition_folder(data: Path, number: int) -> Path:
    """Return the folder of a partition.

    Args:
        data: The dataset folder.
        number: Number of the partition, from 0.
    """
    return data / "partitions" / f"{number:05d}"


def save_array(path: Path, array: Array) -> None:
    """Write an array as .npy.

    Args:
        path: The file.
        array: An array of numbers.

    Raises:
        StorageError: The disk is full or read-only.
    """
    array = np.ascontiguousarray(array)
    with Appender(path, array.dtype, *array.shape[1:]) as out:
        out.append(array)


def file_hash(path: Path) -> str:
    """Return xxh64 of a file's bytes as hex digits."""
    digest = xxhash.xxh64()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def load_array(path: Path) -> Array:
    """Memory-map an array read-only; raise DataError if the file is missing or damaged.

    Unlike ``np.load``, the mapping holds no file descriptor, because many partitions have many
    files.
    """
    try:
        with pa.memory_map(str(path)) as file:
            np.lib.format.read_magic(file)
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
            content = file.read_buffer()  # stays mapped without the file
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        count = math.prod(shape)
        flat = np.frombuffer(content, dtype, count) if count else np.zeros(0, dtype)
        return flat.reshape(shape, order=order)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: missing from the dataset folder", code="missing_file", field=str(path)
        ) from error
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{path}: damaged: {error}", code="damaged_file", field=str(path)
        ) from error


class Appender:
    """Writes a .npy file in chunks of rows, so that no array has to fit in memory.

    All methods raise StorageError if the disk is full or read-only.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, width: int | None = None) -> None:
        """Open the file.

        Args:
            path: The file.
            dtype: Type of its numbers.
            width: Number of columns; None for a one-dimensional array.
        """
        self._path = path
        self._dtype = np.dtype(dtype)
        self._tail = () if width is None else (width,)
        self.rows = 0
        with storage_errors(path):
            self._file = path.open("wb")
            self._file.write(b"\0" * _HEADER_BYTES)

    def append(self, rows: Array) -> None:
        """Append rows, converted to the file's type."""
        rows = np.ascontiguousarray(rows, dtype=self._dtype)
        assert rows.shape[1:] == self._tail, (self._path, rows.shape, self._tail)
        with storage_errors(self._path):
            self._file.write(rows.data if rows.size else b"")
        self.rows += rows.shape[0]

    def close(self) -> None:
        """Write the header with the number of rows, and close the file."""
        header = (
            f"{{'descr': {self._dtype.str!r}, 'fortran_order': False, 'shape': "
            f"{(self.rows, *self._tail)!r}, }}"
        )
        magic = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
        with storage_errors(self._path), self._file:
            self._file.seek(0)
            self._file.write(magic + header.ljust(_HEADER_BYTES - 11).encode() + b"\n")

    def __enter__(self) -> Appender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        try:
            self._file.close()
        except OSError:
            return  # the error in progress is more helpful
