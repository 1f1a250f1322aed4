"""Requests of the server, made of rows of impressions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.batch_scoring.json_columns import json_columns
from hemix.data.keys import keys_of_texts
from hemix.data.texts import texts_of
from hemix.preparation.chunks import Chunk
from hemix.preparation.role_columns import check_ids, check_not_null
from hemix.preparation.times import times_of
from hemix.schema import Schema
from hemix.serving.types import Candidate, RankRequest

__all__ = ["ChunkRequests", "RowsOfRequest"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RowsOfRequest:
    """A request, and where its candidates lie."""

    request: RankRequest
    first: int
    """Row of its first candidate in the chunk; the others follow"""


class ChunkRequests:
    """The requests of adjacent rows.

    Adjacent rows with the same user, time, context and request id are one request, because the
    server computes what they share once. Scores do not depend on it.
    """

    def __init__(self, schema: Schema, chunk: Chunk) -> None:
        """Read the rows.

        Args:
            schema: Names the columns.
            chunk: Rows of the impressions.

        Raises:
            DataError: A value cannot be used; names file, row and column.
        """
        clock, columns = schema.clock, chunk.columns
        for column in (schema.user, schema.item):
            check_ids(column, columns[column], chunk.where)
        check_not_null(clock.column, columns[clock.column], chunk.where)
        self._time_ms: list[int] = times_of(
            clock.column, columns[clock.column], clock, chunk.where, is_clock=True
        ).tolist()
        self._users: list[str] = texts_of(columns[schema.user]).to_pylist()
        self._items: list[str] = texts_of(columns[schema.item]).to_pylist()
        self._request_ids = self._read_request_ids(schema, chunk)
        self._context = json_columns(schema.features.context, chunk)
        self._cross = json_columns(schema.features.cross, chunk)
        self.rows = chunk.rows

    @staticmethod
    def _read_request_ids(schema: Schema, chunk: Chunk) -> list[str] | None:
        column = schema.roles.request_id
        if column is None:
            return None
        check_ids(column, chunk.columns[column], chunk.where)
        ids: list[str] = texts_of(chunk.columns[column]).to_pylist()
        return ids

    def request_keys(self) -> pa.Array:
        """Return uint64 [rows]: rows of equal keys are candidates of one request.

        Without request ids these are the rows of a user at a time.
        """
        if self._request_ids is not None:
            return pa.array(keys_of_texts(self._request_ids))
        pairs = zip(self._users, self._time_ms, strict=True)
        return pa.array(keys_of_texts(f"{time_ms} {user}" for user, time_ms in pairs))

    def __iter__(self) -> Iterator[RowsOfRequest]:
        """Yield the requests in the order of their rows."""
        context, cross = _rows_of(self._context, self.rows), _rows_of(self._cross, self.rows)
        bounds = [*np.flatnonzero(self._starts(context)).tolist(), self.rows]
        for first, last in itertools.pairwise(bounds):
            request = RankRequest(
                id=str(first),
                user=self._users[first],
                time_ms=self._time_ms[first],
                items=tuple(
                    Candidate(item, fields)
                    for item, fields in zip(self._items[first:last], cross[first:last], strict=True)
                ),
                context=context[first],
            )
            yield RowsOfRequest(request, first)

    def _starts(self, context: Sequence[Mapping[str, Any]]) -> Array:
        """bool [rows]: where a new request begins."""
        starts = np.ones(self.rows, dtype=bool)
        parts: list[Sequence[Any]] = [self._users, self._time_ms, context]
        if self._request_ids is not None:
            parts.append(self._request_ids)
        for row in range(1, self.rows):
            starts[row] = any(part[row] != part[row - 1] for part in parts)
        return starts


def _rows_of(columns: Mapping[str, Sequence[Any]], rows: int) -> list[dict[str, Any]]:
    """Return the values of every row by column."""
    if not columns:
        return [{}] * rows
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
