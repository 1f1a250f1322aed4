"""The dataset folder: which array lies where, written once and memory-mapped ever after.

    DATA/
      manifest.json  schema.yaml  spec.json
      encoders/                                 see encode.py
      ids/{users,items}.parquet                 raw ids; a user's or item's number is its position
      users/, items/                            versions of every user's and item's features
        first_row.npy      int64 [ids + 1]      versions of number u: first_row[u] : first_row[u +
                                                1], by valid_from
        valid_from_ms.npy  int64 [rows]
        features.*.npy                          Block
        coordinates.npy    float64 [rows, 2 C]  latitudes and longitudes of the C coordinates
                                                features, if any (NaN: missing)
        keys.npy           uint64 [rows, P]     keys of the features that are part of a statistic's
                                                key, if any
        number.npy         int32 [rows]         items only: number of the item, -1 for row 0
        raw.npy            float64 [rows, C]    items only: the columns of the score expression (NaN
                                                where missing)
        train_impressions.npy float64 [ids]     by number, not row: how many train impressions
        train_known.npy       float64 [ids, T]  items only, by number: known labels among them,
                                                positive or negative
        train_positives.npy   float64 [ids, T]  items only, by number: known positive labels among
                                                them
      history/
        offsets.npy        int64 [users + 1]    events of user u, sorted by time
        time_ms.npy        int64 [E]
        item_row.npy       int32 [E]            item version that held at the event's time
        ids.npy            int32 [E, fields]
      statistics/                               see features/statistics.py; per statistic of the
                                                schema:
        NAME.keys.npy      uint64 [rows]        sorted, then by day
        NAME.days.npy      int32 [rows]         local day, counted from 1970-01-01
        NAME.counts.npy    int64 [rows, 2]      known rows and positives up to the end of that day
        NAME.prior.npy     int64 [days, 3]      day, known rows and positives of all keys up to its
                                                end
      {train,valid,test}/NNNNN/                 shards; within one, requests are sorted by user,
                                                then time
        user.npy           int32 [q]            user number
        user_row.npy       int32 [q]            user version that held at the request's time
        time_ms.npy        int64 [q]
        context.*.npy                           Block [q]; without the history counts, which the
                                                loader adds
        first_candidate.npy int64 [q + 1]
        item_row.npy       int32 [n]            item version that held at the request's time
        cross.*.npy                             Block [n]
        bias.npy           int32 [n]
        labels.npy         int8  [n, T]         -1: unknown
        weight.npy         float32 [n]
        log_row.npy        int64 [n]            row of the impression in the log
      truth/{train,valid,test}/NNNNN.npy        float64 [n, T]: known probabilities, aligned with
                                                the shard (evaluation only)

Item row 0 is the unknown item. A version with valid_from_ms = TIMELESS_MS holds from the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from hemix.errors import DataError
from hemix.files import storage_errors

__all__ = ["SPLITS", "Appender", "Block", "file_hash", "load_array", "save_array"]

SPLITS = ("train", "valid", "test")
_HEADER_BYTES = 128
_PIECE_BYTES = 1 << 20

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Block:
    """The encoded features of some rows of one level: a RequestBatch's Columns, as NumPy arrays."""

    ids: Array
    """int32 [rows, F]"""
    numbers: Array
    """float32 [rows, K]"""
    jagged: tuple[tuple[Array, Array], ...] = ()
    """(values int32 [total], offsets int64 [rows + 1]) of every multi-valued feature"""

    def take(self, rows: Array) -> Block:
        """The given rows, in that order."""
        return Block(
            ids=self.ids.take(rows, axis=0),  # several times as fast as self.ids[rows]
            numbers=self.numbers.take(rows, axis=0),
            jagged=tuple(_take_jagged(values, offsets, rows) for values, offsets in self.jagged),
        )

    def with_numbers(self, numbers: Array) -> Block:
        """The same with further numbers, float32 [rows, any], behind its own."""
        return Block(
            ids=self.ids,
            numbers=np.concatenate([self.numbers, numbers], axis=1),
            jagged=self.jagged,
        )

    @classmethod
    def concatenate(cls, blocks: list[Block]) -> Block:
        """All rows of all blocks; at least one block."""
        jagged = []
        for pairs in zip(*(block.jagged for block in blocks), strict=True):
            lengths = np.concatenate([np.diff(offsets) for _, offsets in pairs])
            jagged.append(
                (
                    np.concatenate([values for values, _ in pairs]),
                    np.concatenate([[0], np.cumsum(lengths)]),
                )
            )
        return cls(
            ids=np.concatenate([block.ids for block in blocks]),
            numbers=np.concatenate([block.numbers for block in blocks]),
            jagged=tuple(jagged),
        )

    def save(self, folder: Path, name: str) -> None:
        """Write ``name.*.npy`` into ``folder``."""
        save_array(folder / f"{name}.ids.npy", self.ids)
        save_array(folder / f"{name}.numbers.npy", self.numbers)
        for i, (values, offsets) in enumerate(self.jagged):
            save_array(folder / f"{name}.bag{i}.values.npy", values)
            save_array(folder / f"{name}.bag{i}.offsets.npy", offsets)

    @classmethod
    def load(cls, folder: Path, name: str, jagged: int) -> Block:
        """Memory-map what :meth:`save` wrote."""
        return cls(
            ids=load_array(folder / f"{name}.ids.npy"),
            numbers=load_array(folder / f"{name}.numbers.npy"),
            jagged=tuple(
                (
                    load_array(folder / f"{name}.bag{i}.values.npy"),
                    load_array(folder / f"{name}.bag{i}.offsets.npy"),
                )
                for i in range(jagged)
            ),
        )


def _take_jagged(values: Array, offsets: Array, rows: Array) -> tuple[Array, Array]:
    begin, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    return values.take(ranges(begin, lengths)), np.concatenate([[0], np.cumsum(lengths)]).astype(
        np.int64
    )


def ranges(begin: Array, lengths: Array) -> Array:
    """The positions begin[i], ..., begin[i] + lengths[i] - 1 of all i, one after another
    (int64).
    """
    total = int(lengths.sum())
    starts = np.repeat(begin - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    positions: Array = np.arange(total, dtype=np.int64) + starts
    return positions


def save_array(path: Path, array: Array) -> None:
    """Write one array as .npy (never an object array). Raises StorageError naming the file."""
    array = np.ascontiguousarray(array)
    with Appender(path, array.dtype, *array.shape[1:]) as out:
        out.append(array)


def file_hash(path: Path) -> str:
    """xxh64 of a file's bytes, as the manifest has it."""
    digest = xxhash.xxh64()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def load_array(path: Path) -> Array:
    """Memory-map one array read-only. Raises DataError naming the file."""
    try:
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped.view(np.ndarray)  # np.memmap's own indexing is slow
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing from the dataset folder") from error
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: damaged: {error}") from error


class Appender:
    """Writes one .npy file piece by piece, so that no array has to fit in memory.

    Raises StorageError naming the file.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, width: int | None = None) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._tail = () if width is None else (width,)
        self.rows = 0
        with storage_errors(path):
            self._file = path.open("wb")
            self._file.write(b"\0" * _HEADER_BYTES)

    def append(self, piece: Array) -> None:
        """Add rows; converted to the file's type."""
        piece = np.ascontiguousarray(piece, dtype=self._dtype)
        assert piece.shape[1:] == self._tail, (self._path, piece.shape, self._tail)
        with storage_errors(self._path):
            self._file.write(piece.data if piece.size else b"")
        self.rows += piece.shape[0]

    def close(self) -> None:
        """Write the header, which says how many rows there are."""
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
            return  # the error under way says more
