"""Which split a row belongs to, by the schema's column and boundaries. Knows values, not files."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.clock import local_text, moment_ms
from hemix.data.layout import SPLITS
from hemix.data.prepare.columns import no_null
from hemix.data.prepare.reading import Chunk
from hemix.errors import DataError, SchemaError
from hemix.schema import Boundary, Schema

__all__ = ["OUTSIDE", "Splitter"]

Array = npt.NDArray[Any]

OUTSIDE = -1
"""Before ``start`` or from ``end`` on: no sample, though still history."""


class Splitter:
    """Assigns rows to train, valid and test. Raises SchemaError for boundaries that do not compare with the column."""

    def __init__(self, schema: Schema, kind: pa.DataType, origin: str) -> None:
        self._schema = schema
        split = schema.split
        self.by_clock = split.column is None or split.column == schema.clock.column
        self.column = split.column or schema.clock.column
        self._marks: dict[str, pa.Scalar | int] = {}
        for name in ("start", "valid", "test", "end"):
            value = getattr(split, name)
            if value is not None:
                self._marks[name] = (
                    self._clock_mark(name, value) if self.by_clock else _mark(name, value, self.column, kind, origin)
                )
        self._lowest: Any = None
        self._highest: Any = None

    def _clock_mark(self, name: str, value: Boundary) -> int:
        if isinstance(value, str):
            try:
                return moment_ms(value, self._schema.clock.timezone)
            except ValueError as error:
                raise SchemaError(f"split.{name}: expected a date or time such as 2026-01-15 06:00, got {value!r}") from error
        return round(value * self._schema.clock.unit_ms)

    @property
    def valid_from_ms(self) -> int | None:
        """The first moment of the valid split, where the clock splits."""
        mark = self._marks["valid"]
        return int(mark) if self.by_clock else None

    def assign(self, chunk: Chunk, time_ms: Array) -> Array:
        """int8 [rows]: 0, 1, 2 for train, valid, test; OUTSIDE for rows that are in none."""
        if self.by_clock:
            below = {name: time_ms < mark for name, mark in self._marks.items()}
            low, high = int(time_ms.min()), int(time_ms.max())
        else:
            values = chunk.columns[self.column]
            no_null(self.column, values, chunk.where)
            below = {n: pc.less(values, mark).to_numpy(zero_copy_only=False) for n, mark in self._marks.items()}
            ends = pc.min_max(values).as_py()
            low, high = ends["min"], ends["max"]
        self._lowest = low if self._lowest is None else min(self._lowest, low)
        self._highest = high if self._highest is None else max(self._highest, high)
        split = np.where(below["valid"], 0, np.where(below["test"], 1, 2)).astype(np.int8)
        if "start" in below:
            split[below["start"]] = OUTSIDE
        if "end" in below:
            split[~below["end"]] = OUTSIDE
        return split

    def require_rows(self, rows: Array, origin: str) -> None:
        """Refuse an empty split. ``rows`` int [3]."""
        split = self._schema.split
        bounds = {"train": (split.start, split.valid), "valid": (split.valid, split.test), "test": (split.test, split.end)}
        for name, count in zip(SPLITS, rows.tolist(), strict=True):
            if count == 0:
                low, high = bounds[name]
                from_ = "" if low is None else f"{low} <= "
                to = "" if high is None else f" < {high}"
                found = f"{self._text(self._lowest)} to {self._text(self._highest)}"
                raise DataError(f"{origin}: the {name} split is empty: no row with {from_}{self.column}{to}; "
                                f"{self.column} runs from {found}")  # fmt: skip

    def _text(self, value: Any) -> str:
        return local_text(value, self._schema.clock.timezone) if self.by_clock else str(value)


def _mark(name: str, value: Boundary, column: str, kind: pa.DataType, origin: str) -> pa.Scalar:
    """A boundary as a value of the split column's type."""
    t = pa.types
    try:
        if t.is_date(kind) and isinstance(value, str):
            return pa.scalar(date.fromisoformat(value), kind)
        if t.is_timestamp(kind) and isinstance(value, str):
            return pa.scalar(datetime.fromisoformat(value), kind)
        if (t.is_string(kind) and isinstance(value, str)) or (
            (t.is_integer(kind) or t.is_floating(kind)) and not isinstance(value, str)
        ):
            return pa.scalar(value)
    except (ValueError, pa.ArrowException):
        pass
    raise SchemaError(f"split.{name}: {value!r} does not compare with column {column!r} of {origin}, which holds {kind}")
