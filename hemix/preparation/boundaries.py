"""Compare the boundaries of a split with the values of its column: times, dates, numbers or text.

A boundary whose comparison would surprise is refused, such as a day with text of another format, or
a number 20260131 with milliseconds. Otherwise rows would silently land in the wrong split.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.clock import local_text, moment_ms
from hemix.data.keys import distinct
from hemix.data.raw_columns import numbers_of
from hemix.errors import SchemaError
from hemix.preparation.chunks import Chunk
from hemix.preparation.date_texts import (
    YEAR_LAST,
    YearLastDates,
    compact_day,
    comparable,
    in_format_of,
    is_time,
    lower_bound,
)
from hemix.preparation.role_columns import check_not_null
from hemix.schema import Boundary, Clock, Schema

__all__ = ["Comparison", "comparison_of"]

Array = npt.NDArray[Any]

_MAX_MICROSECONDS = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Comparison(Protocol):
    """Converts boundaries and a column's values to values that compare."""

    def boundary(self, name: str, value: Boundary) -> Any:
        """Convert a boundary to the type of :meth:`values`.

        Args:
            name: Its key in the schema's split.
            value: Its value in the schema.

        Raises:
            SchemaError: It cannot be compared with the column.
        """

    def values(self, chunk: Chunk, time_ms: Array, /) -> Array:
        """Convert the column's values of a chunk.

        Args:
            chunk: Rows of the impressions.
            time_ms: int64 [rows], their times in UTC.

        Returns:
            [rows], comparable with the boundaries.

        Raises:
            DataError: With file, row and column of a null, or of a value that cannot be compared.
        """

    def text(self, value: Any) -> str:
        """Return one of the values as text for a message."""


def comparison_of(
    schema: Schema, kind: pa.DataType, table: str, dates: YearLastDates
) -> Comparison:
    """Choose the comparison for the type of the split's column.

    Args:
        schema: The schema with the split.
        kind: Arrow type of the column.
        table: Path of the table, for messages.
        dates: Receives the dates of a column of text.

    Raises:
        SchemaError: Boundaries cannot be compared with this type.
    """
    column, t = schema.split.column or schema.clock.column, pa.types
    if column == schema.clock.column:
        return _ClockTimes(schema.clock)
    where = f"column {column!r} of {table}, which holds {kind}"
    if t.is_timestamp(kind):
        return _Timestamps(column, where, kind, schema.clock)
    if t.is_date(kind):
        return _Dates(column, where)
    if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind):
        return _Numbers(column, where, whole=t.is_integer(kind))
    if t.is_string(kind):
        return _Texts(column, where, dates)
    raise SchemaError(
        f"split.column: no boundary compares with {where}: name a column of dates, times, numbers "
        "or text",
        field="split.column",
    )


def _refused(name: str, value: Boundary, where: str, advice: str) -> SchemaError:
    return SchemaError(
        f"split.{name}: {value!r} does not compare with {where}{'; ' if advice else ''}{advice}",
        field=f"split.{name}",
    )


class _ClockTimes:
    """Milliseconds UTC of the impressions' clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def boundary(self, name: str, value: Boundary) -> float:
        """Return a boundary in milliseconds UTC.

        Args:
            name: The boundary's key in ``split``.
            value: A date or time as text, or a number of the clock's unit.

        Raises:
            SchemaError: The text is no date, or the number looks like a day.
        """
        if isinstance(value, str):
            try:
                return moment_ms(value, self._clock.timezone)
            except ValueError as error:
                raise SchemaError(
                    f"split.{name}: expected a date or time such as 2026-01-15 06:00, got "
                    f"{value!r}",
                    field=f"split.{name}",
                ) from error
        day = compact_day(value)
        if day is not None:
            raise SchemaError(
                f"split.{name}: expected a date or a number in {self._clock.unit} on the clock, "
                f"got {value!r}",
                field=f"split.{name}",
                hint=f"write {day.isoformat()}",
            )
        if math.isinf(value):
            return value
        if isinstance(value, int):
            return value * 1000 // self._clock.per_second
        return round(value * 1000 / self._clock.per_second)

    def values(self, _chunk: Chunk, time_ms: Array, /) -> Array:
        """Return the rows' times, int64 [rows], ms UTC.

        Args:
            _chunk: Not used.
            time_ms: int64 [rows], ms UTC.
        """
        return time_ms

    def text(self, value: Any) -> str:
        return local_text(value, self._clock.timezone)


class _Timestamps:
    """Microseconds since 1970.

    A zoned column is compared with boundaries in the schema's zone, a naive one as written.
    """

    def __init__(self, column: str, where: str, kind: pa.TimestampType, clock: Clock) -> None:
        self._column, self._where = column, where
        self._zone = "UTC" if kind.tz is None else clock.timezone

    def boundary(self, name: str, value: Boundary) -> int:
        """Return a boundary in microseconds UTC.

        Args:
            name: The boundary's key in ``split``.
            value: A date or time as text.

        Raises:
            SchemaError: The value is no date or time.
        """
        try:
            if isinstance(value, str):
                return moment_ms(value, self._zone) * 1000
        except ValueError:
            pass
        raise _refused(name, value, self._where, "write a date or time such as 2026-01-15 06:00")

    def values(self, chunk: Chunk, _time_ms: Array, /) -> Array:
        """Return the column in microseconds UTC, int64 [rows].

        Args:
            chunk: Rows of the impressions.
            _time_ms: Not used.

        Raises:
            DataError: A value is null or cannot be compared.
        """
        values = chunk.columns[self._column]
        check_not_null(self._column, values, chunk.where)
        unit_us = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}[values.type.unit]
        ticks: Array = values.cast(pa.int64()).to_numpy(zero_copy_only=False)
        if not unit_us:
            return ticks // 1000
        # a far time that stands for "no value" must not overflow into the range of dates
        limit = _MAX_MICROSECONDS // unit_us
        return np.clip(ticks, -limit, limit) * unit_us

    def text(self, value: Any) -> str:
        return local_text(value // 1000, self._zone)


class _Dates:
    """Days since 1970."""

    def __init__(self, column: str, where: str) -> None:
        self._column, self._where = column, where

    def boundary(self, name: str, value: Boundary) -> int:
        """Return a boundary in days since 1970-01-01.

        Args:
            name: The boundary's key in ``split``.
            value: A day as text.

        Raises:
            SchemaError: The value is no day.
        """
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            moment = None
        if (
            moment is None
            or moment.tzinfo is not None
            or moment != datetime.combine(moment, datetime.min.time())
        ):
            raise _refused(name, value, self._where, "write a day such as 2026-01-15")
        return (moment.replace(tzinfo=UTC) - _EPOCH).days

    def values(self, chunk: Chunk, _time_ms: Array, /) -> Array:
        """Return the column in days since 1970-01-01, int32 [rows].

        Args:
            chunk: Rows of the impressions.
            _time_ms: Not used.

        Raises:
            DataError: A value is null or cannot be compared.
        """
        values = chunk.columns[self._column]
        check_not_null(self._column, values, chunk.where)
        days: Array = values.cast(pa.date32()).cast(pa.int32()).to_numpy(zero_copy_only=False)
        return days

    def text(self, value: Any) -> str:
        try:
            return (date(1970, 1, 1) + timedelta(days=int(value))).isoformat()
        except OverflowError:
            return f"day {value}"


class _Numbers:
    """Whole numbers as they are, other numbers as float64."""

    def __init__(self, column: str, where: str, *, whole: bool) -> None:
        self._column, self._where, self._whole = column, where, whole

    def boundary(self, name: str, value: Boundary) -> float:
        """Return a boundary on the scale of the column.

        Args:
            name: The boundary's key in ``split``.
            value: A number.

        Raises:
            SchemaError: The value is a text.
        """
        if isinstance(value, str):
            day = datetime.fromisoformat(value) if is_time(value) else None
            example = "" if day is None else f", for instance {day:%Y%m%d}"
            raise _refused(
                name,
                value,
                self._where,
                f"write a number like those of the column, without quotes{example}",
            )
        # a whole number is below 2.5 exactly if it is below 3
        return math.ceil(value) if self._whole and math.isfinite(value) else value

    def values(self, chunk: Chunk, _time_ms: Array, /) -> Array:
        """Return the column's numbers, [rows].

        Args:
            chunk: Rows of the impressions.
            _time_ms: Not used.

        Raises:
            DataError: A value is null or cannot be compared.
        """
        values = chunk.columns[self._column]
        check_not_null(self._column, values, chunk.where)
        if self._whole:
            whole: Array = values.to_numpy(zero_copy_only=False)
            return whole
        return numbers_of(self._column, values, chunk.where)

    def text(self, value: Any) -> str:
        return str(value)


class _Texts:
    """Text. A day or time in the schema must have the format of the column."""

    def __init__(self, column: str, where: str, dates: YearLastDates) -> None:
        self._column, self._where = column, where
        self._boundaries: dict[str, str] = {}
        self._dates = dates

    def boundary(self, name: str, value: Boundary) -> str:
        """Return a boundary that compares with the column's texts.

        Args:
            name: The boundary's key in ``split``.
            value: A text in the column's format.

        Raises:
            SchemaError: The value is no text, or not above the earlier boundaries.
        """
        if not isinstance(value, str):
            day = compact_day(value)
            advice = "" if day is None else "write it in quotes, as the column's days are"
            raise _refused(name, value, self._where, advice)
        for lower_name, lower in self._boundaries.items():
            if not lower_bound(lower) < lower_bound(value):
                raise SchemaError(
                    f"split.{name}: expected {lower_name} < {name} as text like {self._where}, got "
                    f"{lower!r} and {value!r}",
                    field=f"split.{name}",
                )
        self._boundaries[name] = value
        return lower_bound(value)

    def values(self, chunk: Chunk, _time_ms: Array, /) -> Array:
        """Return the column's texts, [rows], checked for one format of dates.

        Args:
            chunk: Rows of the impressions.
            _time_ms: Not used.

        Raises:
            DataError: A value is null or cannot be compared.
        """
        values = chunk.columns[self._column]
        check_not_null(self._column, values, chunk.where)
        unique, codes = distinct(values)
        self._check_format(unique, values, chunk)
        texts = np.array(unique.to_pylist(), dtype=object)
        return texts[codes]

    def _check_format(self, unique: pa.Array, values: pa.Array, chunk: Chunk) -> None:
        """Refuse a value in another format than the boundaries."""
        formats = pc.replace_substring_regex(unique, pattern=r"\d", replacement="0")
        examples = dict(
            zip(reversed(formats.to_pylist()), reversed(unique.to_pylist()), strict=True)
        )
        # times with different offsets have one format
        offsets = any(re.search(r"[T ].*[+-]00(:?00)?$", text) for text in examples)
        for text in unique.to_pylist() if offsets else examples.values():
            for name, boundary in self._boundaries.items():
                if not comparable(text, boundary):
                    hint = in_format_of(text, boundary)
                    raise chunk.where.error(
                        pc.index(values, text).as_py(),
                        self._column,
                        f"{text!r} is not written like split.{name} "
                        f"{boundary!r}, and they compare as text; write both in one format"
                        f"{hint and f': {hint}'}",
                    )
        self._check_order(unique, values, chunk)

    def _check_order(self, unique: pa.Array, values: pa.Array, chunk: Chunk) -> None:
        """Refuse dates such as 05.01.2026 if their order as text is not their order in time."""
        if not any(YEAR_LAST.fullmatch(boundary) for boundary in self._boundaries.values()):
            return
        for text in (*self._boundaries.values(), *unique.to_pylist()):
            if not self._dates.add(text):
                row = max(pc.index(values, text).as_py(), 0)
                raise chunk.where.error(
                    row,
                    self._column,
                    f"days like {text!r} compare as text, and that is not "
                    "their order in time; write the year first, as in 2026-01-31",
                )

    def text(self, value: Any) -> str:
        return str(value)
