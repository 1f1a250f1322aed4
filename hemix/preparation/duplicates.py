"""Duplicates: rows with equal values in every column, whether the schema names it or not.

A column that a file lacks is null there. If files have a column in several types, values are
compared by meaning: 1 equals 1.0 and the text "1", and a time is the same in every unit.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.clock import date_start_ms
from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import keys_of, keys_of_texts, xxh64_texts
from hemix.data.raw_columns import row_hashes
from hemix.data.texts import family, texts_of
from hemix.preparation.arrow_types import map_list_values
from hemix.preparation.chunks import Chunk
from hemix.schema import Clock
from hemix.splitmix import mix_bits

__all__ = ["chunk_hashes", "column_hashes", "occurrence_numbers", "warn_about_duplicates"]

Array = npt.NDArray[Any]

_WARN_ABOVE = 0.05
"""Fraction of duplicates above which a warning is logged: a logger rarely repeats so many rows"""

_logger = logging.getLogger(__name__)


def chunk_hashes(
    chunk: Chunk, clocks: Mapping[str, Clock], keys: Mapping[str, Array] | None = None
) -> Array:
    """Hash whole rows, so that equal rows of a table have equal hashes in all its files.

    Args:
        chunk: Rows with all columns of their file.
        clocks: Time columns, with the clock that gives unit and zone of their numbers and dates.
        keys: Columns without nulls whose keys (:func:`hemix.data.keys.keys_of`) are known: texts
            are not hashed again.

    Returns:
        uint64 [rows]. Different rows have equal hashes with a probability of 2^-64.
    """
    columns: dict[str, pa.Array | Array] = {}
    for name, values in chunk.columns.items():
        families = chunk.mixed_families.get(name)
        if families is not None:
            values = _as_moments(values, clocks[name]) if name in clocks else values
            values = _as_text(values, families)
        elif keys is not None and name in keys and pa.types.is_string(values.type):
            columns[name] = keys[name]
            continue
        columns[name] = values
    return column_hashes(columns, chunk.rows)


def column_hashes(columns: Mapping[str, pa.Array | Array], rows: int) -> Array:
    """Hash the names and values of columns, in any order of the columns.

    Args:
        columns: Columns by name, or hashes of their values, uint64 [rows]. A null counts as a
            missing column.
        rows: Number of rows.

    Returns:
        uint64 [rows].
    """
    total = np.zeros(rows, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for name, values in columns.items():
            hashes = values if isinstance(values, np.ndarray) else _value_hashes(values)
            hashes = mix_bits(keys_of_texts([name])[0] ^ hashes)
            if not isinstance(values, np.ndarray) and values.null_count:
                nulls = values.is_null().to_numpy(zero_copy_only=False)
                hashes = np.where(nulls, np.uint64(0), hashes)
            total += hashes
    return mix_bits(total)


def occurrence_numbers(keys: Array, rows: Array) -> Array:
    """Number the different rows of each key 0, 1, ... in the order of their first appearance.

    Args:
        keys: uint64 [n], hashes of what an event is made of.
        rows: uint64 [n], hashes of whole rows.

    Returns:
        int64 [n]: the number of each row.
    """
    order = np.lexsort((np.arange(len(keys)), rows, keys))
    first = np.ones(len(keys), dtype=bool)
    first[1:] = (keys[order][1:] != keys[order][:-1]) | (rows[order][1:] != rows[order][:-1])
    begin = order[first]  # first position of each different row
    by_key = np.lexsort((begin, keys[begin]))
    starts = np.ones(len(begin), dtype=bool)
    starts[1:] = keys[begin][by_key][1:] != keys[begin][by_key][:-1]
    index = np.arange(len(begin))
    number = np.empty(len(begin), dtype=np.int64)
    number[by_key] = index - np.maximum.accumulate(np.where(starts, index, 0))
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = number[np.cumsum(first) - 1]
    return numbers


def warn_about_duplicates(table: object, dropped: int, rows: int) -> None:
    """Log a warning if many rows of a table were dropped as duplicates.

    Args:
        table: Path of the table.
        dropped: Number of dropped rows.
        rows: Number of all rows.
    """
    if dropped > _WARN_ABOVE * rows:
        _logger.warning(
            "%s: warning: %s of %s rows (%.0f %%) are duplicates, equal to an earlier row in "
            "every column, and were dropped. If each row is an event of its own, add a column "
            "that differs, such as a row id; the schema need not name it",
            table,
            f"{dropped:,}",
            f"{rows:,}",
            100 * dropped / rows,
        )


def _as_moments(values: pa.Array, clock: Clock) -> pa.Array:
    """Dates and numbers of a clock as timestamps; microseconds if numbers may have fractions."""
    kind, unit, t = values.type, clock.unit, pa.types
    if t.is_date(kind):
        days = (
            values.cast(pa.date32())
            .cast(pa.int32())
            .fill_null(0)
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
        )
        null = values.is_null().to_numpy(zero_copy_only=False)
        return pa.array(date_start_ms(days, clock.timezone), mask=null).cast(pa.timestamp("ms"))
    if t.is_integer(kind):
        return values.cast(pa.int64(), safe=False).cast(pa.timestamp(unit))
    if t.is_floating(kind) or t.is_decimal(kind):
        numbers = values.cast(pa.float64(), safe=False)
        micros = np.round(
            numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
            * {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}[unit]
        )
        whole = np.clip(np.nan_to_num(micros), -(2.0**62), 2.0**62).astype(np.int64)
        return pa.array(whole, mask=numbers.is_null().to_numpy(zero_copy_only=False)).cast(
            pa.timestamp("us")
        )
    return values


def _as_text(values: pa.Array, families: Collection[str | None]) -> pa.Array:
    """Values of a column of several types as text; types without text stay as they are."""
    if pa.types.is_boolean(values.type) and set(families) <= {"boolean", "number", "null"}:
        values = values.cast(pa.int8())
    if pa.types.is_list(values.type):
        return map_list_values(values, lambda flat: _as_text(flat, families))
    if family(values.type) in (None, "null", "text"):
        return values
    coded = values.dictionary_encode()  # converts each distinct value once
    return pa.DictionaryArray.from_arrays(
        coded.indices, texts_of(coded.dictionary)
    ).dictionary_decode()


def _value_hashes(values: pa.Array) -> Array:
    """uint64 [rows]; arbitrary for null."""
    kind, t = values.type, pa.types
    if t.is_null(kind):
        return np.zeros(len(values), dtype=np.uint64)
    if t.is_integer(kind) or t.is_boolean(kind):
        whole = values.cast(pa.int8() if t.is_boolean(kind) else kind)
        return mix_bits(
            (whole.fill_null(0) if whole.null_count else whole)
            .to_numpy(zero_copy_only=False)
            .astype(np.uint64)
        )
    if t.is_float32(kind) or t.is_float64(kind):
        return row_hashes(
            (values.fill_null(0.0) if values.null_count else values).to_numpy(zero_copy_only=False)
        )
    if t.is_string(kind) or t.is_binary(kind) or t.is_fixed_size_binary(kind):
        return _byte_hashes(values)
    if t.is_duration(kind):
        return _value_hashes(values.cast(pa.int64()))
    if family(kind) is not None:
        return keys_of(values)
    return _nested_hashes(values)


def _byte_hashes(values: pa.Array) -> Array:
    """Hashes of bytes, or of text that need not be UTF-8."""
    coded = values.cast(pa.binary()).dictionary_encode()
    keys = np.append(xxh64_texts(coded.dictionary), np.uint64(0))
    hashes: Array = keys[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return hashes


def _nested_hashes(values: pa.Array) -> Array:
    kind, t = values.type, pa.types
    if t.is_map(kind):
        entries = pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
        return _nested_hashes(values.cast(entries))
    if t.is_struct(kind):
        children = {kind.field(i).name: child for i, child in enumerate(values.flatten())}
        return column_hashes(children, len(values))
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        flat, lengths = (
            values.flatten(),
            pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False),
        )
        if t.is_fixed_size_list(kind):
            lengths = np.where(values.is_null().to_numpy(zero_copy_only=False), 0, lengths)
        hashes = column_hashes({"": flat}, len(flat))
        return row_hashes(JaggedArray.from_lengths(hashes, lengths))
    return keys_of_texts([repr(value) for value in values.to_pylist()])
