"""Rows of a log as Arrow columns, with what names their file and row in a message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.raw_columns import Where

__all__ = ["Chunk", "RowRange"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a file of a table."""

    columns: Mapping[str, pa.Array]
    """Columns that the file has, by name"""
    log_row: Int64Array
    """int64 [rows]: the row of each in the table"""
    where: Where
    """Gives the errors for values: file, row in the file, and column"""
    mixed_families: Mapping[str, Collection[str | None]] = field(default_factory=dict)
    """Columns whose type differs between files -> the families (:func:`hemix.data.texts.family`) of
    their types
    """

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.log_row)


@dataclass(frozen=True)
class RowRange:
    """Adjacent row groups of one file, which one task reads."""

    file: int
    """Position of the file among those with rows"""
    row_groups: tuple[int, ...]
    first_row: int
    """Row in the file"""
    rows: int
