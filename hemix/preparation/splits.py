"""Assign rows to train, valid and test by the split's column and boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.layout import SPLITS
from hemix.errors import DataError
from hemix.preparation.boundaries import comparison_of
from hemix.preparation.log_table import Chunk
from hemix.schema import Schema

__all__ = ["OUTSIDE", "Splitter"]

Array = npt.NDArray[Any]

OUTSIDE = -1
"""Split of a row before ``start`` or from ``end`` on: no sample, but part of histories."""


class Splitter:
    """Assigns rows to train, valid and test."""

    def __init__(self, schema: Schema, kind: pa.DataType, table: str) -> None:
        """Convert the boundaries to values of the split's column.

        Args:
            schema: The schema with the split.
            kind: Arrow type of the split's column.
            table: Path of the table, for messages.

        Raises:
            SchemaError: A boundary cannot be compared with the column.
        """
        self._schema = schema
        split = schema.split
        self.by_clock = split.column is None or split.column == schema.clock.column
        self.column = split.column or schema.clock.column
        self._comparison = comparison_of(schema, kind, table)
        self._boundaries = {
            name: self._comparison.boundary(name, value) for name, value in split.boundaries.items()
        }
        self._lowest: Any = None
        self._highest: Any = None

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
        low, high = values.min(), values.max()
        self._lowest = low if self._lowest is None else min(self._lowest, low)
        self._highest = high if self._highest is None else max(self._highest, high)
        split = np.where(below["valid"], 0, np.where(below["test"], 1, 2)).astype(np.int8)
        if "start" in below:
            split[below["start"]] = OUTSIDE
        if "end" in below:
            split[~below["end"]] = OUTSIDE
        return split

    def require_rows(self, rows: Array, table: str) -> None:
        """Refuse an empty split.

        Args:
            rows: int [3], the number of rows in every split.
            table: Path of the table, for messages.

        Raises:
            DataError: With the split, its boundaries, and the range of the column.
        """
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
                lowest = self._comparison.text(self._lowest)
                highest = self._comparison.text(self._highest)
                raise DataError(
                    f"{table}: the {name} split is empty: no row with {from_}{self.column}{to}; "
                    f"{self.column} runs from {lowest} to {highest}"
                )
