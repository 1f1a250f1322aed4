"""Texts of keys: rows hold 64-bit keys, and these files tell which value a key stands for.

Each file has the texts of some rows. They are read once the values with a row of a vocabulary are
known, so only their texts are in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import NULL_KEY, KeyMap, distinct, texts_of, xxh64_texts
from hemix.data.levels import all_features, level_features
from hemix.data.raw_columns import RawColumn
from hemix.files import storage_errors
from hemix.schema import Schema

__all__ = [
    "ITEMS",
    "KeyTexts",
    "find_texts",
    "observed_texts",
    "save_texts",
    "text_bytes",
    "text_tables",
]

Array = npt.NDArray[Any]

ITEMS = ""
"""Among the tables of texts, the ids of items; no vocabulary has this name"""


@dataclass(frozen=True, kw_only=True)
class KeyTexts:
    """Values with their keys; two values can have one key."""

    keys: Array
    """uint64 [n]; none is NULL_KEY"""
    texts: pa.Array
    """string [n], canonical texts"""

    @classmethod
    def of(cls, values: pa.Array) -> tuple[KeyTexts, Array]:
        """Find the distinct values of an array.

        Returns:
            Their keys and texts in the order of their first appearance; and int32 [rows], the
            position of every value among them, -1 for null.
        """
        if len(values) == 0 or pa.types.is_null(values.type):
            return cls.empty(), np.full(len(values), -1, dtype=np.int32)
        unique, codes = distinct(values)
        texts = texts_of(unique)
        return cls(keys=xxh64_texts(texts), texts=texts), codes

    @classmethod
    def empty(cls) -> KeyTexts:
        """Return no values."""
        return cls(keys=np.zeros(0, dtype=np.uint64), texts=pa.array([], pa.string()))

    @classmethod
    def concatenate(cls, tables: Sequence[KeyTexts]) -> KeyTexts:
        """Return all values of at least one table."""
        if len(tables) == 1:
            return tables[0]
        return cls(
            keys=np.concatenate([table.keys for table in tables]),
            texts=pa.concat_arrays([table.texts for table in tables]),
        )


def text_bytes(values: pa.Array) -> JaggedArray[Any]:
    """Return the UTF-8 bytes (uint8) of the canonical text of every value, as a raw column.

    Args:
        values: An array without nulls.
    """
    texts = texts_of(values).cast(pa.large_binary())
    _, offsets, content = texts.buffers()
    offsets = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    content = np.frombuffer(content or b"", np.uint8)[offsets[0] : offsets[-1]]
    return JaggedArray(values=content, offsets=offsets - offsets[0])


def text_tables(schema: Schema) -> list[str]:
    """Return the names of all tables of texts: the items, then every vocabulary."""
    names = {ITEMS: None}
    for level, name, feature in all_features(schema):
        if feature.vocabulary_settings() is not None:
            names[feature.table_of(level, name)] = None
    return list(names)


def observed_texts(
    schema: Schema, level: str, raw: Mapping[str, RawColumn | None], columns: Mapping[str, pa.Array]
) -> dict[str, KeyTexts]:
    """Collect the texts of the keys of features with a vocabulary.

    Args:
        schema: The schema.
        level: The level of the features.
        raw: The raw column of every feature by name.
        columns: The Arrow columns that they were read from.

    Returns:
        By vocabulary the distinct values.
    """
    tables: dict[str, list[KeyTexts]] = {}
    for name, feature in level_features(schema, level).items():
        if feature.vocabulary_settings() is None:
            continue
        keys, values = raw.get(name), columns.get(feature.columns(name)[0])
        if keys is None or values is None or pa.types.is_null(values.type):
            continue
        if isinstance(keys, JaggedArray):
            texts, _ = KeyTexts.of(values.flatten())
        else:
            texts = _texts_of_keys(keys, values)
        tables.setdefault(feature.table_of(level, name), []).append(texts)
    return {table: KeyTexts.concatenate(of_features) for table, of_features in tables.items()}


def _texts_of_keys(keys: Array, values: pa.Array) -> KeyTexts:
    """The texts of values whose keys are known: each distinct key is converted once."""
    unique, codes = distinct(pa.array(keys))
    first = np.empty(len(unique), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    distinct_keys = unique.to_numpy(zero_copy_only=False)
    known = distinct_keys != NULL_KEY
    return KeyTexts(keys=distinct_keys[known], texts=texts_of(values.take(pa.array(first[known]))))


def save_texts(path: Path, tables: Sequence[str], texts: Mapping[str, KeyTexts]) -> None:
    """Write the texts of some rows.

    Args:
        path: The file.
        tables: Names of all tables (:func:`text_tables`).
        texts: By table the distinct values; a table that is not given has none.

    Raises:
        StorageError: The disk is full or read-only.
    """
    schema = pa.schema([("key", pa.uint64()), ("text", pa.string())])
    with (
        storage_errors(path),
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, schema) as writer,
    ):
        for name in tables:
            values = texts.get(name, KeyTexts.empty())
            columns = [pa.array(values.keys), values.texts]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def find_texts(files: Iterable[Path], table: int, keys: KeyMap) -> pa.Array:
    """Find the texts of keys.

    Args:
        files: Files of :func:`save_texts`.
        table: Position of the table among :func:`text_tables`.
        keys: Distinct keys, numbered from 0.

    Returns:
        string [n], the text of every number.
    """
    missing = np.ones(len(keys.keys), dtype=bool)
    numbers: list[Array] = [np.zeros(0, dtype=np.int64)]
    texts: list[pa.Array] = [pa.array([], pa.string())]
    for path in files:
        if not missing.any():
            break
        with pa.memory_map(str(path)) as file:
            batch = pa.ipc.open_file(file).get_batch(table)
            own = keys.look_up(batch.column("key").to_numpy(zero_copy_only=False), -1)
            rows = np.flatnonzero(own >= 0)
            rows = rows[missing[own[rows]]]
            _, first = np.unique(own[rows], return_index=True)  # two values can have one text
            rows = rows[first]
            missing[own[rows]] = False
            numbers.append(own[rows])
            texts.append(batch.column("text").take(pa.array(rows)))
    assert not missing.any(), "every key has a text"
    order = np.argsort(np.concatenate(numbers))
    return pa.concat_arrays(texts).take(pa.array(order))
