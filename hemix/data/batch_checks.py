"""Checks of a :class:`~hemix.data.batch.RequestBatch` against the InputSpec of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hemix.data.columns import Columns
from hemix.data.spec import InputSpec, LevelSpec
from hemix.errors import DataError

if TYPE_CHECKING:
    from hemix.data.batch import RequestBatch

__all__ = ["validate_batch"]


def validate_batch(batch: RequestBatch, spec: InputSpec) -> None:
    """Check shapes, indices, history ranges and numbers.

    Args:
        batch: In the CPU's memory.
        spec: What its columns, tables and tasks have to be.

    Raises:
        DataError: Names the field, what was expected and what was found.
    """
    rows = {
        "users": batch.users_count,
        "context": batch.requests_count,
        "items": batch.items.rows,
        "cross": batch.candidates_count,
    }
    levels = {"users": spec.user, "context": spec.context, "items": spec.item, "cross": spec.cross}
    for name, level in levels.items():
        _columns(name, getattr(batch, name), level, spec, rows[name])
    _shapes(batch, spec)
    _indices(batch, spec)
    _history_ranges(batch)
    for name in ("labels", "weights"):
        value = getattr(batch, name)
        if value is not None:
            _shape(name, value, (batch.candidates_count, len(spec.tasks)))
            _finite(name, value)
    if batch.impression_index is not None:
        _shape("impression_index", batch.impression_index, (batch.candidates_count,))


def _shapes(batch: RequestBatch, spec: InputSpec) -> None:
    R, Q, N = batch.users_count, batch.requests_count, batch.candidates_count
    E = int(batch.event_item.shape[0])
    _shape("event_offsets", batch.event_offsets, (R + 1,))
    _shape("event_item", batch.event_item, (E,))
    _shape("event_time_ms", batch.event_time_ms, (E,))
    _shape("event_ids", batch.event_ids, (E, len(spec.event.tables)))
    _shape("user_index", batch.user_index, (Q,))
    _shape("request_time_ms", batch.request_time_ms, (Q,))
    _shape("history_ranges", batch.history_ranges, (Q, 3))
    _shape("request_index", batch.request_index, (N,))
    _shape("item_index", batch.item_index, (N,))
    _shape("bias", batch.bias, (N,))


def _indices(batch: RequestBatch, spec: InputSpec) -> None:
    _offsets("event_offsets", batch.event_offsets, int(batch.event_item.shape[0]))
    _within("user_index", batch.user_index, batch.users_count, "users")
    _within("request_index", batch.request_index, batch.requests_count, "requests")
    if bool((batch.request_index[1:] < batch.request_index[:-1]).any()):
        raise DataError("RequestBatch.request_index: expected ascending requests")
    _within("item_index", batch.item_index, batch.items.rows, "items")
    _within("event_item", batch.event_item, batch.items.rows, "items")
    _within("bias", batch.bias, max(spec.bias_rows, 1), "rows")
    for column, table in enumerate(spec.event.tables):
        name, of = f"event_ids[:, {column}]", f"rows of table {table}"
        _within(name, batch.event_ids[:, column], spec.tables[table], of)


def _history_ranges(batch: RequestBatch) -> None:
    begin, middle, end = batch.history_ranges.unbind(1)
    first, last = batch.event_offsets[batch.user_index], batch.event_offsets[batch.user_index + 1]
    wrong = (begin < first) | (middle < begin) | (end < middle) | (end > last)
    if bool(wrong.any()):
        q = int(wrong.nonzero()[0])
        raise DataError(
            f"RequestBatch.history_ranges[{q}]: expected {int(first[q])} <= begin <= real time <= "
            f"end <= {int(last[q])}, the user's history; got {batch.history_ranges[q].tolist()}"
        )


def _shape(name: str, value: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(value.shape) != expected:
        raise DataError(f"RequestBatch.{name}: expected shape {expected}, got {tuple(value.shape)}")


def _within(name: str, value: Tensor, rows: int, of: str) -> None:
    wrong = (value < 0) | (value >= rows)
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0, 0])
        raise DataError(
            f"RequestBatch.{name}: points outside its {rows} {of}: {int(value[at])} at position "
            f"{at}"
        )


def _finite(name: str, value: Tensor) -> None:
    wrong = ~torch.isfinite(value)
    if bool(wrong.any()):
        at = wrong.nonzero()[0].tolist()
        raise DataError(
            f"RequestBatch.{name}: expected finite numbers, got {float(value[tuple(at)])} at {at}"
        )


def _offsets(name: str, offsets: Tensor, total: int) -> None:
    if (
        int(offsets[0]) != 0
        or int(offsets[-1]) != total
        or bool((offsets[1:] < offsets[:-1]).any())
    ):
        raise DataError(f"RequestBatch.{name}: expected ascending offsets from 0 to {total}")


def _columns(name: str, columns: Columns, level: LevelSpec, spec: InputSpec, rows: int) -> None:
    _shape(f"{name}.ids", columns.ids, (rows, len(level.tables)))
    _shape(f"{name}.numbers", columns.numbers, (rows, level.numbers))
    _finite(f"{name}.numbers", columns.numbers)
    for feature, table, ids in zip(level.names, level.tables, columns.ids.unbind(1), strict=True):
        _within(f"{name}.ids[{feature}]", ids, spec.tables[table], f"rows of table {table}")
    if len(columns.jagged) != len(level.jagged_tables):
        raise DataError(
            f"RequestBatch.{name}.jagged: expected {len(level.jagged_tables)}, "
            f"got {len(columns.jagged)}"
        )
    for feature, table, jagged in zip(
        level.jagged_names, level.jagged_tables, columns.jagged, strict=True
    ):
        _shape(f"{name}.jagged[{feature}].offsets", jagged.offsets, (rows + 1,))
        _offsets(f"{name}.jagged[{feature}].offsets", jagged.offsets, jagged.values.shape[0])
        _within(
            f"{name}.jagged[{feature}]", jagged.values, spec.tables[table], f"rows of table {table}"
        )
