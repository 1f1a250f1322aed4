"""The boundaries of a split as values of its column: times, dates, numbers or text.

A boundary that would compare with the column in another way than a reader expects (a day against
text of another format, a number that is a day against milliseconds) is refused: rows would land in
the wrong split without a word.
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
from hemix.preparation.date_texts import (
    YEAR_LAST,
    YearLast,
    compact_day,
    comparable,
    is_time,
    like,
    lower_bound,
)
from hemix.preparation.log_table import Chunk
from hemix.preparation.role_columns import check_not_null
from hemix.schema import Boundary, Clock, Schema

__all__ = ["Boundaries", "boundaries_of"]

Array = npt.NDArray[Any]

_MOST_MICROSECONDS = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Boundaries(Protocol):
    """How the boundaries compare with a column's values."""

    def mark(self, name: str, value: Boundary) -> Any:
        """The boundary in the form of :meth:`values`.

        Raises SchemaError for one that does not compare.
        """

    def values(self, chunk: Chunk, time_ms: Array, /) -> Array:
        """[rows]: what compares with the marks. Raises DataError naming file, row and column."""

    def text(self, value: Any) -> str:
        """One of the values, for people."""


def boundaries_of(schema: Schema, kind: pa.DataType, origin: str) -> Boundaries:
    """The boundaries of the schema's split on its column.

    Args:
        schema: whose split.
        kind: Arrow type of the column.
        origin: the table, for messages.

    Raises:
        SchemaError: where nothing compares with such a column.
    """
    column, t = schema.split.column or schema.clock.column, pa.types
    if column == schema.clock.column:
        return _ClockTimes(schema.clock)
    where = f"column {column!r} of {origin}, which holds {kind}"
    if t.is_timestamp(kind):
        return _Timestamps(column, where, kind, schema.clock)
    if t.is_date(kind):
        return _Dates(column, where)
    if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind):
        return _Numbers(column, where, whole=t.is_integer(kind))
    if t.is_string(kind):
        return _Texts(column, where)
    raise SchemaError(
        f"split.column: no boundary compares with {where}: name a column of dates, times, numbers "
        "or text"
    )


def _refused(name: str, value: Boundary, where: str, advice: str) -> SchemaError:
    return SchemaError(
        f"split.{name}: {value!r} does not compare with {where}{'; ' if advice else ''}{advice}"
    )


class _ClockTimes:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def mark(self, name: str, value: Boundary) -> float:
        if isinstance(value, str):
            try:
                return moment_ms(value, self._clock.timezone)
            except ValueError as error:
                raise SchemaError(
                    f"split.{name}: expected a date or time such as 2026-01-15 06:00, got {value!r}"
                ) from error
        day = compact_day(value)
        if day is not None:
            raise SchemaError(
                f"split.{name}: expected a date or a number in {self._clock.unit} on the clock, "
                f"got {value!r}; "
                f"write {day.isoformat()}"
            )
        if math.isinf(value):
            return value
        if isinstance(value, int):
            return value * 1000 // self._clock.per_second
        return round(value * 1000 / self._clock.per_second)

    def values(self, _chunk: Chunk, time_ms: Array, /) -> Array:
        return time_ms

    def text(self, value: Any) -> str:
        return local_text(value, self._clock.timezone)


class _Timestamps:
    """Microseconds: of a zoned column since 1970 UTC, boundaries being local times of the schema's
    zone; of a naive one as written.
    """

    def __init__(self, column: str, where: str, kind: pa.TimestampType, clock: Clock) -> None:
        self._column, self._where = column, where
        self._zone = "UTC" if kind.tz is None else clock.timezone

    def mark(self, name: str, value: Boundary) -> int:
        try:
            if isinstance(value, str):
                return moment_ms(value, self._zone) * 1000
        except ValueError:
            pass
        raise _refused(name, value, self._where, "write a date or time such as 2026-01-15 06:00")

    def values(self, chunk: Chunk, _time_ms: Array, /) -> Array:
        found = chunk.columns[self._column]
        check_not_null(self._column, found, chunk.where)
        unit_us = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}[found.type.unit]
        ticks: Array = found.cast(pa.int64()).to_numpy(zero_copy_only=False)
        if not unit_us:
            return ticks // 1000
        most = (
            _MOST_MICROSECONDS // unit_us
        )  # a time beyond all dates, for "no value", stays beyond them
        return np.clip(ticks, -most, most) * unit_us

    def text(self, value: Any) -> str:
        return local_text(value // 1000, self._zone)


class _Dates:
    """Days since 1970."""

    def __init__(self, column: str, where: str) -> None:
        self._column, self._where = column, where

    def mark(self, name: str, value: Boundary) -> int:
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
        found = chunk.columns[self._column]
        check_not_null(self._column, found, chunk.where)
        days: Array = found.cast(pa.date32()).cast(pa.int32()).to_numpy(zero_copy_only=False)
        return days

    def text(self, value: Any) -> str:
        try:
            return (date(1970, 1, 1) + timedelta(days=int(value))).isoformat()
        except OverflowError:
            return f"day {value}"


class _Numbers:
    def __init__(self, column: str, where: str, *, whole: bool) -> None:
        self._column, self._where, self._whole = column, where, whole

    def mark(self, name: str, value: Boundary) -> float:
        if isinstance(value, str):
            day = datetime.fromisoformat(value) if is_time(value) else None
            written = "" if day is None else f", for instance {day:%Y%m%d}"
            raise _refused(
                name,
                value,
                self._where,
                f"write a number like those of the column, without quotes{written}",
            )
        return (
            math.ceil(value) if self._whole and math.isfinite(value) else value
        )  # a whole number is below 2.5 where it is below 3

    def values(self, chunk: Chunk, _time_ms: Array, /) -> Array:
        found = chunk.columns[self._column]
        check_not_null(self._column, found, chunk.where)
        whole: Array | None = found.to_numpy(zero_copy_only=False) if self._whole else None
        return numbers_of(self._column, found, chunk.where) if whole is None else whole

    def text(self, value: Any) -> str:
        return str(value)


class _Texts:
    """Compared as text, so a day or time has to be written as the column's are."""

    def __init__(self, column: str, where: str) -> None:
        self._column, self._where = column, where
        self._marks: dict[str, str] = {}
        self._year_last = YearLast()

    def mark(self, name: str, value: Boundary) -> str:
        if not isinstance(value, str):
            day = compact_day(value)
            raise _refused(
                name,
                value,
                self._where,
                "" if day is None else "write it in quotes, as the column's days are",
            )
        for before, low in self._marks.items():
            if not lower_bound(low) < lower_bound(value):
                raise SchemaError(
                    f"split.{name}: expected {before} < {name} as text like {self._where}, got "
                    f"{low!r} and {value!r}"
                )
        self._marks[name] = value
        return lower_bound(value)

    def values(self, chunk: Chunk, _time_ms: Array, /) -> Array:
        found = chunk.columns[self._column]
        check_not_null(self._column, found, chunk.where)
        values, codes = distinct(found)
        self._check(values, found, chunk)
        texts = np.array(values.to_pylist(), dtype=object)
        return texts[codes]

    def _check(self, values: pa.Array, found: pa.Array, chunk: Chunk) -> None:
        """Refuse a value that compares with a boundary only by chance."""
        forms = pc.replace_substring_regex(values, pattern=r"\d", replacement="0")
        examples = dict(zip(reversed(forms.to_pylist()), reversed(values.to_pylist()), strict=True))
        offsets = any(
            re.search(r"[T ].*[+-]00(:?00)?$", form) for form in examples
        )  # forms do not tell them apart
        for text in values.to_pylist() if offsets else examples.values():
            for name, mark in self._marks.items():
                if not comparable(text, mark):
                    row, hint = pc.index(found, text).as_py(), like(mark, text)
                    raise chunk.where.error(
                        row,
                        f"column {self._column!r}: {text!r} is not written like split.{name} "
                        f"{mark!r}, and "
                        f"they compare as text; write both in one format{hint and f': {hint}'}",
                    )
        self._check_order(values, found, chunk)

    def _check_order(self, values: pa.Array, found: pa.Array, chunk: Chunk) -> None:
        """Refuse days such as 05.01.2026 where they sort by something else than time."""
        if not any(YEAR_LAST.fullmatch(mark) for mark in self._marks.values()):
            return
        for text in (*self._marks.values(), *values.to_pylist()):
            if not self._year_last.sorts(text):
                row = max(pc.index(found, text).as_py(), 0)
                problem = f"days like {text!r} compare as text, and that is not their order in time"
                raise chunk.where.error(
                    row,
                    f"column {self._column!r}: {problem}; write the year first, as in 2026-01-31",
                )

    def text(self, value: Any) -> str:
        return str(value)
