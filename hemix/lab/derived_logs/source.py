"""The logs that others are derived from: rows in chunks, with their times and splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import keys_of
from hemix.data.spec import TIMELESS_MS
from hemix.lab.derived_logs.draws import rank
from hemix.preparation.chunks import Chunk
from hemix.preparation.log_table import LogTable
from hemix.preparation.logs import Logs, open_logs
from hemix.preparation.splits import Splitter
from hemix.preparation.times import times_of
from hemix.schema import Schema

__all__ = ["BoolArray", "Int64Array", "Keys", "Rows", "Source"]

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

_CHUNK_ROWS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Consecutive rows of a table."""

    table: pa.Table
    log_row: Int64Array
    """[rows]: the row of each in the source's table"""
    time_ms: Int64Array
    """[rows] in UTC; TIMELESS_MS for a null. So is a table without a clock"""
    split: npt.NDArray[np.int8]
    """[rows] 0, 1 and 2 for train, valid and test, -1 outside. Zeros but for impressions"""

    def keys(self, column: str) -> Keys:
        """Return the 64-bit keys of a column, uint64 [rows]."""
        return keys_of(self.table[column].combine_chunks())

    def select(self, selection: npt.NDArray[np.generic]) -> Rows:
        """Return some rows.

        Args:
            selection: bool [rows], or row numbers, which may repeat.
        """
        at = np.flatnonzero(selection) if selection.dtype == np.bool_ else selection
        return Rows(
            table=self.table.take(pa.array(at)),
            log_row=self.log_row[at],
            time_ms=self.time_ms[at],
            split=self.split[at],
        )

    def with_column(self, name: str, values: pa.Array) -> Rows:
        """Return the rows with a column replaced, or added.

        Args:
            name: The column.
            values: One value a row.
        """
        if name not in self.table.column_names:
            return replace(self, table=self.table.append_column(name, values))
        at = self.table.column_names.index(name)
        return replace(self, table=self.table.set_column(at, name, values))


class Source:
    """The tables of a logs folder, of all users or of some."""

    def __init__(self, folder: Path, *, max_rows: int, seed: int) -> None:
        """Open the logs and choose the users.

        Args:
            folder: The logs folder.
            max_rows: Most impressions to use. Users are drawn, each with all rows, until the next
                one would be too many.
            seed: Of the draw, and of all other draws.

        Raises:
            DataError: A table is missing or malformed.
            SchemaError: schema.yaml is missing or wrong.
        """
        self.folder, self.seed = folder, seed
        self.logs: Logs = open_logs(folder, None)
        self.schema: Schema = self.logs.schema
        self._users = self._draw_users(max_rows)

    def _draw_users(self, max_rows: int) -> Keys:
        chunks = self.logs.impressions.chunks([self.schema.user], _CHUNK_ROWS)
        keys = np.concatenate([keys_of(chunk.columns[self.schema.user]) for chunk in chunks])
        users, counts = np.unique(keys, return_counts=True)
        order = rank(users, self.seed)
        count = max(int(np.searchsorted(np.cumsum(counts[order]), max_rows, side="right")), 1)
        return np.sort(users[order[:count]])

    def impressions(self) -> Iterator[Rows]:
        """Yield the impressions of the chosen users, in the order of the log."""
        table = self.logs.impressions
        clock = self.schema.clock
        column = self.schema.split.column or clock.column
        splitter = Splitter(self.schema, table.arrow_schema.field(column).type, str(table.path))
        for chunk in table.chunks(None, _CHUNK_ROWS):
            times = times_of(clock.column, chunk.columns[clock.column], clock, chunk.where)
            rows = _rows(chunk, table, times, splitter.assign(chunk, times))
            yield self._of_users(rows)

    def events(self) -> Iterator[Rows]:
        """Yield the events of the chosen users, in the order of the log."""
        table = self.logs.events
        if table is None:
            return
        column = self.logs.event_clock
        for chunk in table.chunks(None, _CHUNK_ROWS):
            times = times_of(column, chunk.columns[column], self.schema.clock, chunk.where)
            yield self._of_users(_rows(chunk, table, times))

    def users(self) -> Iterator[Rows]:
        """Yield the chosen users' rows of the user table."""
        for rows in _all_rows(self.logs.users):
            yield self._of_users(rows)

    def items(self) -> Iterator[Rows]:
        """Yield the item table."""
        yield from _all_rows(self.logs.items)

    def truth(self) -> Iterator[Rows]:
        """Yield the known probabilities, row by row with all impressions of the log."""
        yield from _all_rows(self.logs.truth)

    def first_time_ms(self, *, after_train: bool = False) -> int:
        """Return the time of the first impression of the chosen users.

        Args:
            after_train: Of those in no train split.
        """
        times = [
            rows.time_ms[rows.split > 0] if after_train else rows.time_ms
            for rows in self.impressions()
        ]
        return int(np.concatenate(times).min(initial=np.iinfo(np.int64).max))

    def _of_users(self, rows: Rows) -> Rows:
        return rows.select(np.isin(rows.keys(self.schema.user), self._users))


def _all_rows(table: LogTable | None) -> Iterator[Rows]:
    if table is not None:
        for chunk in table.chunks(None, _CHUNK_ROWS):
            yield _rows(chunk, table)


def _rows(
    chunk: Chunk,
    table: LogTable,
    time_ms: Int64Array | None = None,
    split: npt.NDArray[np.int8] | None = None,
) -> Rows:
    """Give every chunk the columns and types of the whole table."""
    columns = [
        chunk.columns[field.name].cast(field.type)
        if field.name in chunk.columns
        else pa.nulls(chunk.rows, field.type)
        for field in table.arrow_schema
    ]
    return Rows(
        table=pa.Table.from_arrays(columns, schema=table.arrow_schema),
        log_row=chunk.log_row,
        time_ms=np.full(chunk.rows, TIMELESS_MS) if time_ms is None else time_ms,
        split=np.zeros(chunk.rows, dtype=np.int8) if split is None else split,
    )
