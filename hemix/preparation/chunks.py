"""Rows of a log as Arrow columns, with what names their file and row in a message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.raw_columns import Where
from hemix.errors import DataError

if TYPE_CHECKING:
    from hemix.preparation.log_table import LogTable

__all__ = ["AnyRows", "Chunk", "RowRange"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """Rows of a table: consecutive rows of one file, or any rows (:meth:`LogTable.chunk`)."""

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
class AnyRows(Where):
    """The source of rows of a table that need not be adjacent."""

    table: LogTable | None = None
    log_row: Int64Array | None = None
    """int64 [rows]: the row of each in the table"""

    def error(self, row: int, column: str, problem: str) -> DataError:
        """Return the error for a value, with its file and its row in the file.

        Args:
            row: Position among the values.
            column: Name of the column.
            problem: What was expected and what was found.
        """
        assert self.table is not None and self.log_row is not None
        return self.table.error(int(self.log_row[row]), column, problem)


@dataclass(frozen=True)
class RowRange:
    """Adjacent row groups of one file, which one task reads."""

    file: int
    """Position of the file among those with rows"""
    row_groups: tuple[int, ...]
    first_row: int
    """Row in the file"""
    rows: int
