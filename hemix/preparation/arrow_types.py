"""Normalised Arrow types, so that other code handles one form of each.

Dictionaries become their values, large, view and fixed-size types their basic type, UUIDs text.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.jagged_array import offsets_of
from hemix.data.raw_columns import Where
from hemix.data.texts import texts_of

__all__ = [
    "cast_to",
    "check_utf8",
    "map_list_values",
    "message_value",
    "normalized",
    "normalized_type",
]


def normalized_type(kind: pa.DataType) -> pa.DataType:
    """Return the normalised form of a type."""
    t = pa.types
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if isinstance(kind, pa.Bool8Type):
        return pa.bool_()
    if isinstance(kind, pa.BaseExtensionType):
        return normalized_type(kind.storage_type)
    if t.is_dictionary(kind):
        return normalized_type(kind.value_type)
    if t.is_large_string(kind) or t.is_string_view(kind):
        return pa.string()
    if t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind):
        return pa.binary()
    if t.is_decimal32(kind) or t.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if any(
        is_a(kind)
        for is_a in (
            t.is_list,
            t.is_large_list,
            t.is_fixed_size_list,
            t.is_list_view,
            t.is_large_list_view,
        )
    ):
        return pa.list_(normalized_type(kind.value_type))
    return kind


def normalized(values: pa.Array) -> pa.Array:
    """Return the values in the normalised form of their type."""
    kind = values.type
    if isinstance(kind, pa.UuidType):
        raw = values.storage.to_pylist()
        return pa.array([None if v is None else str(uuid.UUID(bytes=v)) for v in raw], pa.string())
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.Bool8Type):
        return normalized(values.storage)
    target = normalized_type(kind)
    if kind == target:
        return values
    if not pa.types.is_list(target):
        return values.cast(target)
    return map_list_values(values.cast(pa.list_(kind.value_type)), normalized)


def map_list_values(lists: pa.Array, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Apply a function to the values of all lists at once.

    Args:
        lists: A list array.
        function: Takes the flat values and returns as many.
    """
    offsets = offsets_of(pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False))
    mask = lists.is_null() if lists.null_count else None
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), function(lists.flatten()), mask=mask
    )


def check_utf8(column: str, values: pa.Array, where: Where) -> None:
    """Refuse text that is not UTF-8, which Parquet does not check. Bytes count as text.

    Args:
        column: Its name, for messages.
        values: Its values, or lists of values.
        where: File and first row, for messages.

    Raises:
        DataError: With row, column and the bytes.
    """
    kind = values.type
    flat = values.flatten() if pa.types.is_list(kind) else values
    if not (pa.types.is_string(flat.type) or pa.types.is_binary(flat.type)):
        return
    try:
        flat.cast(pa.string()).validate(full=True)
    except pa.ArrowInvalid:
        raw = values.cast(pa.list_(pa.binary()) if pa.types.is_list(kind) else pa.binary())
        for row, value in enumerate(raw.to_pylist()):
            for text in value if isinstance(value, list) else [value]:
                if _is_broken(text):
                    start = f"{text[:20]!r}" + ("..." if len(text) > 20 else "")
                    raise where.error(
                        row, column, f"expected text in UTF-8, found the bytes {start}"
                    ) from None
        raise


def _is_broken(text: bytes | None) -> bool:
    try:
        (text or b"").decode()
    except UnicodeDecodeError:
        return True
    return False


def cast_to(column: str, values: pa.Array, kind: pa.DataType, where: Where) -> pa.Array:
    """Convert values to another type; text is parsed.

    Args:
        column: Its name, for messages.
        values: Its values.
        kind: The type to convert to.
        where: File and first row, for messages.

    Raises:
        DataError: With the first value that cannot be converted.
    """
    if values.type == kind:
        return values
    if pa.types.is_string(kind):
        return texts_of(values)
    try:
        return _cast(values, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row = next(
            (row for row in range(len(values)) if not _casts(values[row : row + 1], kind)), 0
        )
        value = f"{message_value(values, row)!r} ({values.type})"
        raise where.error(
            row,
            column,
            f"expected {kind}, as in other files of the folder, found {value}",
        ) from None


def message_value(values: pa.Array, row: int) -> Any:
    """Return a value for a message; times as text, because Python's own types end earlier.

    Args:
        values: The values of a column.
        row: Position of the value.
    """
    value, t = values[row : row + 1], pa.types
    is_time = t.is_timestamp(value.type) or t.is_date(value.type) or t.is_time(value.type)
    return (texts_of(value) if is_time else value)[0].as_py()


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    t = pa.types
    if t.is_integer(values.type) and t.is_floating(kind):
        return values.cast(kind, safe=False)  # beyond 2^53 the nearest double, in the same order
    if not t.is_string(values.type) or not (t.is_timestamp(kind) or t.is_date(kind)):
        return values.cast(kind)
    try:
        return _moments(values, kind)
    except pa.ArrowInvalid:  # a format that Arrow does not read, such as 20260105
        coded = values.dictionary_encode()
        iso = [None if text is None else _iso(text) for text in coded.dictionary.to_pylist()]
        return _moments(pa.array(iso, pa.string()).take(coded.indices), kind)


def _iso(text: str) -> str:
    """A date or a time in a format that Arrow reads."""
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError as error:
        raise pa.ArrowInvalid(str(error)) from error


def _moments(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Text as dates or times; a time without an offset is in the type's zone."""
    t = pa.types
    moments = pa.timestamp("ns")
    offsets = pc.match_substring_regex(values, r"[T ].*(Z|[+-]\d\d(:?\d\d)?)$")
    if pc.any(offsets).as_py():
        utc = pc.if_else(offsets, values, None).cast(pa.timestamp("ns", "UTC"))
        zone = kind.tz if t.is_timestamp(kind) and kind.tz is not None else "UTC"
        others = _as_local(pc.if_else(offsets, None, values).cast(moments), zone)
        return pc.coalesce(utc, others).cast(moments).cast(kind)
    if t.is_timestamp(kind) and kind.tz is not None:
        return _as_local(values.cast(moments), kind.tz).cast(kind)
    return values.cast(moments).cast(kind)  # for a date type, the day of a time


def _as_local(moments: pa.Array, zone: str) -> pa.Array:
    """Naive times as moments of a zone."""
    local = pc.assume_timezone(moments, zone, ambiguous="earliest", nonexistent="earliest")
    return local.cast(pa.timestamp("ns", "UTC"))


def _casts(value: pa.Array, kind: pa.DataType) -> bool:
    try:
        _cast(value, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True
