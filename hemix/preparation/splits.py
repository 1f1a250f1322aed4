"""Which split a row belongs to, by the schema's column and boundaries. Knows values, not files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.layout import SPLITS
from hemix.errors import DataError
from hemix.preparation.boundaries import boundaries_of
from hemix.preparation.log_table import Chunk
from hemix.schema import Schema

__all__ = ["OUTSIDE", "Splitter"]

Array = npt.NDArray[Any]

OUTSIDE = -1
"""Before ``start`` or from ``end`` on: no sample, though still history."""


class Splitter:
    """Assigns rows to train, valid and test.

    Raises SchemaError for boundaries that do not compare with the column.
    """

    def __init__(self, schema: Schema, kind: pa.DataType, origin: str) -> None:
        self._schema = schema
        split = schema.split
        self.by_clock = split.column is None or split.column == schema.clock.column
        self.column = split.column or schema.clock.column
        self._boundaries = boundaries_of(schema, kind, origin)
        self._marks: dict[str, Any] = {}
        for name in ("start", "valid", "test", "end"):
            value = getattr(split, name)
            if value is not None:
                self._marks[name] = self._boundaries.mark(name, value)
        self._lowest: Any = None
        self._highest: Any = None

    @property
    def valid_from_ms(self) -> int | None:
        """The first moment of the valid split, where the clock splits."""
        mark = self._marks["valid"]
        return int(mark) if self.by_clock else None

    def assign(self, chunk: Chunk, time_ms: Array) -> Array:
        """int8 [rows]: 0, 1, 2 for train, valid, test; OUTSIDE for rows that are in none."""
        values = self._boundaries.values(chunk, time_ms)
        below = {name: values < mark for name, mark in self._marks.items()}
        low, high = values.min(), values.max()
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
        bounds = {
            "train": (split.start, split.valid),
            "valid": (split.valid, split.test),
            "test": (split.test, split.end),
        }
        for name, count in zip(SPLITS, rows.tolist(), strict=True):
            if count == 0:
                low, high = bounds[name]
                from_ = "" if low is None else f"{low} <= "
                to = "" if high is None else f" < {high}"
                found = (
                    f"{self._boundaries.text(self._lowest)} to "
                    f"{self._boundaries.text(self._highest)}"
                )
                raise DataError(
                    f"{origin}: the {name} split is empty: no row with {from_}{self.column}{to}; "
                    f"{self.column} runs from {found}"
                )
