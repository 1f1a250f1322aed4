"""Assign rows to train, valid and test by the split's column and boundaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.layout import SPLITS
from hemix.errors import DataError
from hemix.preparation.boundaries import comparison_of
from hemix.preparation.chunks import Chunk
from hemix.preparation.date_texts import YearLastDates
from hemix.preparation.log_table import LogTable
from hemix.schema import Schema

__all__ = ["OUTSIDE", "SplitValues", "Splitter"]

Array = npt.NDArray[Any]

_CHUNK_ROWS = 1 << 18

OUTSIDE = -1
"""Split of a row before ``start`` or from ``end`` on: no sample, but part of histories."""


@dataclass
class SplitValues:
    """What was seen of the split's column."""

    lowest: Any = None
    highest: Any = None
    dates: YearLastDates = field(default_factory=YearLastDates)

    def add(self, low: Any, high: Any) -> None:
        """Extend the range.

        Args:
            low: A value; None changes nothing.
            high: A value that is not below ``low``.
        """
        if low is not None:
            self.lowest = low if self.lowest is None else min(self.lowest, low)
            self.highest = high if self.highest is None else max(self.highest, high)


class Splitter:
    """Assigns rows to train, valid and test.

    :attr:`seen` collects what the rows have; tasks return theirs, and :meth:`check` adds them up.
    """

    def __init__(self, schema: Schema, kind: pa.DataType, table: str) -> None:
        """Convert the boundaries to values of the split's column.

        Args:
            schema: The schema with the split.
            kind: Arrow type of the split's column.
            table: Path of the table, for messages.

        Raises:
            SchemaError: A boundary cannot be compared with the column.
        """
        self._schema, self._kind = schema, kind
        self.seen = SplitValues()
        split = schema.split
        self.by_clock = split.column is None or split.column == schema.clock.column
        self.column = split.column or schema.clock.column
        self._comparison = comparison_of(schema, kind, table, self.seen.dates)
        self._boundaries = {
            name: self._comparison.boundary(name, value) for name, value in split.boundaries.items()
        }

    @property
    def valid_from_ms(self) -> int | None:
        """Start of the valid split in ms UTC; None if another column than the clock splits."""
        return int(self._boundaries["valid"]) if self.by_clock else None

    def assign(self, chunk: Chunk, time_ms: Array) -> Array:
        """Assign the rows of a chunk.

        Args:
            chunk: Rows of the impressions.
            time_ms: int64 [rows], their times in UTC.

        Returns:
            int8 [rows]: 0, 1 and 2 for train, valid and test; OUTSIDE for other rows.

        Raises:
            DataError: A value cannot be compared with the boundaries.
        """
        values = self._comparison.values(chunk, time_ms)
        below = {name: values < boundary for name, boundary in self._boundaries.items()}
        if len(values):
            self.seen.add(values.min(), values.max())
        split = np.where(below["valid"], 0, np.where(below["test"], 1, 2)).astype(np.int8)
        if "start" in below:
            split[below["start"]] = OUTSIDE
        if "end" in below:
            split[~below["end"]] = OUTSIDE
        return split

    def check(self, rows: Array, table: LogTable, seen: list[SplitValues]) -> None:
        """Refuse an empty split, and dates whose order as text is not their order in time.

        Args:
            rows: int [3], the number of rows in every split.
            table: The impressions.
            seen: What every task has seen of the split's column.

        Raises:
            DataError: With the split, its boundaries, and the range of the column; or with the row
                of a date.
        """
        ordered = True
        for values in seen:
            self.seen.add(values.lowest, values.highest)
            ordered = self.seen.dates.update(values.dates) and ordered
        if not ordered:  # reading in order finds the row
            again = Splitter(self._schema, self._kind, str(table.path))
            for chunk in table.chunks([self.column], _CHUNK_ROWS):
                again.assign(chunk, np.zeros(chunk.rows, np.int64))
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
                lowest = self._comparison.text(self.seen.lowest)
                highest = self._comparison.text(self.seen.highest)
                raise DataError(
                    f"{table.path}: the {name} split is empty: no row with {from_}{self.column}"
                    f"{to}; {self.column} runs from {lowest} to {highest}"
                )
