"""The canonical text of a value, the same for every Arrow type and in a request's JSON.

docs/reference/data.md lists the texts: ``3`` for 3, 3.0 and the decimal 3.00; ``0.1`` for a float32
too; ``true``; ``2026-01-05``; ``2026-01-05T06:30:00Z`` for a timestamp; ``06:30:00`` for a time of
day.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.arrow import pa, pc

__all__ = ["family", "is_keyable", "text_of", "texts_of"]

Array = npt.NDArray[Any]


def is_keyable(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type have a canonical text."""
    return family(kind) is not None


def family(kind: pa.DataType) -> str | None:
    """Return the family of an Arrow type: types whose equal values have equal texts.

    Returns:
        ``text``, ``number``, ``boolean``, ``date``, ``moment``, ``time`` or ``null``; None for
        types whose values have no text, so that no request can name them.
    """
    t = pa.types
    if t.is_dictionary(kind):
        return family(kind.value_type)
    families = {
        "text": (
            t.is_string,
            t.is_large_string,
            t.is_string_view,
            t.is_binary,
            t.is_large_binary,
            t.is_binary_view,
        ),
        "number": (t.is_integer, t.is_floating, t.is_decimal),
        "boolean": (t.is_boolean,),
        "date": (t.is_date,),
        "moment": (t.is_timestamp,),
        "time": (t.is_time,),
        "null": (t.is_null,),
    }
    return next(
        (name for name, checks in families.items() if any(check(kind) for check in checks)), None
    )


def text_of(value: str | int | float | bool) -> str:
    """Return the canonical text of a JSON value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def texts_of(values: pa.Array) -> pa.Array:
    """Return the canonical texts of values as a string array; null stays null.

    Args:
        values: Values of a type with a :func:`family`, without NaN; bytes are UTF-8.
    """
    kind, t = values.type, pa.types
    if t.is_string(kind):
        return values
    if t.is_dictionary(kind):
        return texts_of(values.dictionary_decode())
    if t.is_floating(kind):
        return _float_texts(values)
    if t.is_decimal(kind):
        return _decimal_texts(values)
    if t.is_timestamp(kind):
        utc = values.cast(pa.int64()).cast(pa.timestamp(kind.unit))
        written = pc.replace_substring(utc.cast(pa.string()), " ", "T")
        return pc.binary_join_element_wise(_without_zeros(written), "Z", "")
    texts = values.cast(pa.string())
    return _without_zeros(texts) if t.is_time(kind) else texts


def _without_zeros(times: pa.Array) -> pa.Array:
    """Times without trailing zeros in fractions of a second."""
    return pc.replace_substring_regex(
        pc.replace_substring_regex(times, r"(\.\d*[1-9])0+$", r"\1"), r"\.0+$", ""
    )


def _float_texts(values: pa.Array) -> pa.Array:
    numbers = values.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**63)
    texts = pa.array(np.where(whole, numbers, 0.0).astype(np.int64)).cast(pa.string())
    if not whole.all():
        others = np.flatnonzero(~whole)
        written = [
            text_of(v) if np.isfinite(v) else str(v)
            for v in _shortest(numbers[others], values.type)
        ]
        texts = pc.replace_with_mask(texts, pa.array(~whole), pa.array(written, pa.string()))
    return pc.if_else(values.is_valid(), texts, None) if values.null_count else texts


def _shortest(numbers: Array, kind: pa.DataType) -> list[float]:
    """The doubles with the shortest texts of the numbers: 0.1 for the float32 0.1, whose value as a
    double is 0.10000000149.
    """
    if pa.types.is_float64(kind):
        return [float(v) for v in numbers]
    own = numbers.astype(np.float16 if pa.types.is_float16(kind) else np.float32)
    return [float(w) if float(w).is_integer() else float(str(w)) for w in own]


def _decimal_texts(values: pa.Array) -> pa.Array:
    kind = values.type
    try:  # fast for whole numbers, such as ids
        whole = pa.decimal256(76, 0) if pa.types.is_decimal256(kind) else pa.decimal128(38, 0)
        return values.cast(whole).cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array(
            [None if v is None else _decimal_text(v) for v in values.to_pylist()], pa.string()
        )


def _decimal_text(value: Decimal) -> str:
    """The text of the double nearest to a decimal if it has the same digits, else all digits."""
    if value == value.to_integral_value():
        return str(int(value))
    number = text_of(float(value))
    return number if Decimal(number) == value else format(value, "f").rstrip("0")
