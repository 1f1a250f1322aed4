"""64-bit keys of values, and indices from keys to numbers.

A key is xxh64 (seed 0) of the value's canonical text in UTF-8, see :mod:`hemix.data.texts`. So an
id has the same key as a Parquet integer, as a string and in JSON.

For many short texts the hash is computed by NumPy, for all texts of a length at once: 0.13 s for a
million ids of up to nine digits, against 0.33 s of a call of xxhash for each (one core; 2.5 times).
``tests/data/test_keys.py::test_the_vectorised_hash_is_xxhash`` compares both, text by text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from hemix.data.arrow import pa
from hemix.data.texts import is_keyable, texts_of

__all__ = [
    "NULL_KEY",
    "KeyIndex",
    "KeyMap",
    "distinct",
    "hash_texts",
    "is_keyable",
    "keys_of",
    "keys_of_texts",
    "texts_of",
    "xxh64_texts",
]

Array = npt.NDArray[Any]

NULL_KEY = np.uint64(0)
"""The key of a missing value; a text with hash 0 gets the key 1."""

_FEW = 1024
"""For at most so many texts, calling xxhash for each is faster than the vectorised form."""

_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(p)
    for p in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)


def distinct(values: pa.Array) -> tuple[pa.Array, Array]:
    """Find the distinct values of an array.

    Returns:
        The distinct values in the order of their first appearance; and int32 [rows], the position
        of every value among them, -1 for null.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    # Arrow cannot encode these as a dictionary
    if pa.types.is_decimal32(values.type) or pa.types.is_decimal64(values.type):
        values = values.cast(pa.decimal128(values.type.precision, values.type.scale))
    coded = values.dictionary_encode()
    codes = coded.indices
    return coded.dictionary, (codes.fill_null(-1) if codes.null_count else codes).to_numpy(
        zero_copy_only=False
    )


def keys_of(values: pa.Array) -> Array:
    """Return the key of every value; each distinct value is hashed once.

    Returns:
        uint64 [rows]; NULL_KEY for null.
    """
    if len(values) == 0 or pa.types.is_null(values.type):
        return np.zeros(len(values), dtype=np.uint64)
    unique, codes = distinct(values)
    keys = np.append(xxh64_texts(texts_of(unique)), NULL_KEY)
    return keys[codes]


def keys_of_texts(texts: Iterable[str]) -> Array:
    """Return the keys of canonical texts, such as the ids of a request.

    For up to about a thousand texts this is faster than :func:`keys_of`.

    Returns:
        uint64 [rows].
    """
    keys = np.fromiter(map(xxhash.xxh64_intdigest, map(str.encode, texts)), dtype=np.uint64)
    keys[keys == NULL_KEY] = 1
    return keys


def xxh64_texts(texts: pa.Array) -> Array:
    """Return the key of every text: xxh64 (seed 0) of its UTF-8 bytes.

    Args:
        texts: A string or binary array without nulls.

    Returns:
        uint64 [rows]; never NULL_KEY.
    """
    keys = hash_texts(texts, 0)
    keys[keys == NULL_KEY] = 1
    return keys


def hash_texts(texts: pa.Array, seed: int) -> Array:
    """Return xxh64 of the UTF-8 bytes of every text.

    Args:
        texts: A string or binary array without nulls.
        seed: Seed of the hash, at least 0.

    Returns:
        uint64 [rows].
    """
    if len(texts) == 0:
        return np.zeros(0, dtype=np.uint64)
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[
        texts.offset : texts.offset + len(texts) + 1
    ].astype(np.int64)
    raw = memoryview(data) if data is not None else memoryview(b"")
    if len(texts) <= _FEW:
        return _xxh64_each(raw, offsets[:-1], offsets[1:], seed)
    return _xxh64_many(raw, offsets, seed)


def _xxh64_each(raw: memoryview, begin: Array, end: Array, seed: int) -> Array:
    hash_one, first, last = xxhash.xxh64_intdigest, int(begin.min()), int(end.max())
    text = bytes(raw[first:last])
    pairs = zip((begin - first).tolist(), (end - first).tolist(), strict=True)
    return np.fromiter(
        (hash_one(text[a:b], seed) for a, b in pairs), dtype=np.uint64, count=len(begin)
    )


def _xxh64_many(raw: memoryview, offsets: Array, seed: int) -> Array:
    data = np.frombuffer(raw, dtype=np.uint8)
    begin, lengths = offsets[:-1], np.diff(offsets)
    keys = np.empty(len(begin), dtype=np.uint64)
    for length in np.unique(lengths[lengths < 32]).tolist():
        rows = np.flatnonzero(lengths == length)
        keys[rows] = _xxh64_short(data[begin[rows, None] + np.arange(length)], seed)
    long = np.flatnonzero(lengths >= 32)
    if len(long):
        keys[long] = _xxh64_each(raw, begin[long], begin[long] + lengths[long], seed)
    return keys


def _rotate(x: Array, bits: int) -> Array:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


def _xxh64_short(text: Array, seed: int) -> Array:
    """xxh64 of texts of equal length under 32 bytes, uint8 [rows, length], vectorised over rows."""
    rows, length = text.shape
    at = 0
    with np.errstate(over="ignore"):
        h = np.full(rows, np.uint64(seed) + _P5 + np.uint64(length), dtype=np.uint64)
        while at + 8 <= length:
            lane = np.ascontiguousarray(text[:, at : at + 8]).view("<u8")[:, 0]
            h = _rotate(h ^ (_rotate(lane * _P2, 31) * _P1), 27) * _P1 + _P4
            at += 8
        if at + 4 <= length:
            word = np.ascontiguousarray(text[:, at : at + 4]).view("<u4")[:, 0].astype(np.uint64)
            h = _rotate(h ^ (word * _P1), 23) * _P2 + _P3
            at += 4
        for i in range(at, length):
            h = _rotate(h ^ (text[:, i].astype(np.uint64) * _P5), 11) * _P1
        h = (h ^ (h >> np.uint64(33))) * _P2
        h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


class KeyIndex:
    """Numbers keys 0, 1, 2, ... in the order of their first appearance, and stores their texts.

    A key needs 12 bytes, and the text if it has one.
    """

    def __init__(self) -> None:
        self._keys = np.zeros(0, dtype=np.uint64)
        self._numbers = np.zeros(0, dtype=np.int32)
        self._texts: list[pa.Array] = []

    @classmethod
    def of_numbers(cls, keys: Array, numbers: Array, texts: pa.Array) -> KeyIndex:
        """Make an index of keys that are numbered already.

        Args:
            keys: uint64 [n], ascending.
            numbers: int32 [n], 0 to n - 1 in any order.
            texts: string [n], the text of every number.
        """
        index = cls()
        index._keys, index._numbers, index._texts = keys, numbers, [texts]
        return index

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def sorted_keys(self) -> Array:
        """uint64 [n], ascending."""
        return self._keys

    @property
    def sorted_numbers(self) -> Array:
        """int32 [n]: the number of each of the sorted keys."""
        return self._numbers

    def texts(self) -> pa.Array:
        """Return the text of every number, string [n]."""
        self._texts = (
            [pa.concat_arrays(self._texts)] if self._texts else [pa.array([], pa.string())]
        )
        return self._texts[0]

    def add(self, values: pa.Array) -> Array:
        """Number the values; new values get the next numbers.

        Returns:
            int32 [rows]; -1 for null.
        """
        if len(values) == 0 or pa.types.is_null(values.type):
            return np.full(len(values), -1, dtype=np.int32)
        unique, codes = distinct(values)
        texts = texts_of(unique)
        numbers = self.add_texts(xxh64_texts(texts), texts)
        return np.append(numbers, np.int32(-1))[codes]

    def keys(self) -> Array:
        """Return the key of every number, uint64 [n]."""
        keys = np.empty(len(self), dtype=np.uint64)
        keys[self._numbers] = self._keys
        return keys

    def add_texts(self, keys: Array, texts: pa.Array) -> Array:
        """Number texts whose keys were computed before.

        Args:
            keys: uint64 [rows], none is NULL_KEY.
            texts: string [rows].

        Returns:
            int32 [rows].
        """
        numbers, new = self.add_keys(keys)
        if len(new):
            self._texts.append(texts.take(pa.array(new)))
        return numbers

    def add_keys(self, keys: Array) -> tuple[Array, Array]:
        """Number keys without their texts; an index has texts of all its numbers, or of none.

        Args:
            keys: uint64 [rows], none is NULL_KEY.

        Returns:
            int32 [rows], the numbers; and int64 [new], the first row of every new number, in the
            order of the numbers.
        """
        at, known = self._find(keys)
        if known.all():
            return self._numbers[at], np.zeros(0, dtype=np.int64)
        # two values can have one text
        new_keys, first = np.unique(keys[~known], return_index=True)
        rows = np.flatnonzero(~known)[first]
        order = np.argsort(rows)
        numbers = np.empty(len(rows), dtype=np.int32)
        numbers[order] = np.arange(len(self), len(self) + len(rows), dtype=np.int32)
        positions = np.searchsorted(self._keys, new_keys)
        self._keys = np.insert(self._keys, positions, new_keys)
        self._numbers = np.insert(self._numbers, positions, numbers)
        at, _ = self._find(keys)
        return self._numbers[at], rows[order]

    def _find(self, keys: Array) -> tuple[Array, Array]:
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        return at, (self._keys[at] == keys if len(self._keys) else np.zeros(len(keys), dtype=bool))

    def look_up(self, keys: Array) -> Array:
        """Return the number of every key, int32 [rows]; -1 for an unknown key."""
        if len(self._keys) == 0:
            return np.full(len(keys), -1, dtype=np.int32)
        at, known = self._find(keys)
        return np.where(known, self._numbers[at], np.int32(-1))


@dataclass(frozen=True)
class KeyMap:
    """A map from key to number: a vocabulary, or the numbers of users or items."""

    keys: Array
    """uint64 [n], ascending"""
    numbers: Array
    """int32 [n]"""

    @classmethod
    def empty(cls) -> KeyMap:
        """Return the map without keys."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.int32))

    def look_up(self, keys: Array, unknown: int) -> Array:
        """Return the number of every key.

        Args:
            keys: uint64 [rows].
            unknown: The number of a key that the map does not have.

        Returns:
            int32 [rows].
        """
        if len(self.keys) == 0:
            return np.full(len(keys), unknown, dtype=np.int32)
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        numbers: Array = np.where(self.keys[at] == keys, self.numbers[at], np.int32(unknown))
        return numbers
