"""RequestBatch: what the loader yields, what the model takes and what the server builds.

Letters used in shapes, here and in the model:

    R users (rows of user state)   Q requests   N candidates   E events, all users together
    I distinct item rows
    T tasks   F one-valued id columns   K numbers

A user row holds one user's features and one contiguous piece of their event history, sorted by
time. Requests point to user rows, candidates to requests; candidates and events point to item rows.
Nothing here is padded.

This module knows tensors, not files: no schema, no encoder.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hemix.data.spec import InputSpec, LevelSpec
from hemix.errors import DataError

__all__ = ["Columns", "Jagged", "RequestBatch", "to_device"]


@dataclass(frozen=True, kw_only=True)
class Jagged:
    """Lists of ids: row i holds ``values[offsets[i]:offsets[i + 1]]``."""

    values: Tensor
    """int64 [total]"""
    offsets: Tensor
    """int64 [rows + 1], from 0 to total"""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The encoded features of one level."""

    ids: Tensor
    """int64 [rows, F]"""
    numbers: Tensor
    """float32 [rows, K]"""
    jagged: tuple[Jagged, ...] = ()
    """One per multi-valued feature."""

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.ids.shape[0])


@dataclass(frozen=True, kw_only=True)
class RequestBatch:
    """One batch.

    Levels: user -> request -> candidate; item rows are shared by candidates and events.
    """

    users: Columns
    """[R]"""
    event_offsets: Tensor
    """int64 [R + 1]: user r's events are event_offsets[r] : event_offsets[r + 1], sorted by time"""
    event_item: Tensor
    """int64 [E] -> items"""
    event_time_ms: Tensor
    """int64 [E], UTC; TIMELESS_MS for an event without a time"""
    event_ids: Tensor
    """int64 [E, fields]: action first"""

    user_index: Tensor
    """int64 [Q] -> users"""
    request_time_ms: Tensor
    """int64 [Q], UTC"""
    context: Columns
    """[Q]"""
    history_ranges: Tensor
    """int64 [Q, 3], positions among the E events: where the global part begins, where real time
    begins, where it ends
    """

    request_index: Tensor
    """int64 [N] -> requests, ascending"""
    item_index: Tensor
    """int64 [N] -> items"""
    cross: Columns
    """[N]"""
    bias: Tensor
    """int64 [N]: row of the bias table; zeros where the schema has no bias column"""

    items: Columns
    """[I]: the distinct item rows of candidates and events"""

    labels: Tensor | None = None
    """float32 [N, T]; 0 where unknown (see `weights`). None when serving"""
    weights: Tensor | None = None
    """float32 [N, T]: 0 masks an unknown label"""
    impression_index: Tensor | None = None
    """int64 [N]: position of the impression in its split, to join predictions by"""
    loss_weight: Tensor | None = None
    """float32 [T]: in a part of a batch, the weight of the whole, by which the part's loss is
    divided so that parts add up
    """
    cpu_copy: RequestBatch | None = None
    """On another device: the same batch in the host's memory (:attr:`cpu_batch`)"""

    @property
    def cpu_batch(self) -> RequestBatch:
        """The batch in the host's memory.

        Whatever decides shapes is read from here, so that no step waits for a device.
        """
        return self.cpu_copy or self

    @property
    def users_count(self) -> int:
        """R."""
        return self.users.rows

    @property
    def requests_count(self) -> int:
        """Q."""
        return int(self.user_index.shape[0])

    @property
    def candidates_count(self) -> int:
        """N."""
        return int(self.request_index.shape[0])

    def to(self, device: torch.device | str) -> RequestBatch:
        """The same batch on another device, which keeps this one as its :attr:`cpu_batch`."""
        device = torch.device(device)
        if device == self.request_index.device:
            return self

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return to_device(value, device)
            if isinstance(value, Columns | Jagged):
                return type(value)(
                    **{f.name: move(getattr(value, f.name)) for f in dataclasses.fields(value)}
                )
            return tuple(move(v) for v in value) if isinstance(value, tuple) else value

        parts = {
            f.name: move(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name != "cpu_copy"
        }
        return RequestBatch(**parts, cpu_copy=self.cpu_batch)

    def validate(self, spec: InputSpec) -> None:
        """Check shapes, indices, cuts and numbers against ``spec``.

        Raises DataError naming the field, what was expected and what was found. Costs a pass over
        the batch: call it where a batch comes from outside, not in every step.
        """
        R, Q, N, E = (
            self.users_count,
            self.requests_count,
            self.candidates_count,
            self.event_item.shape[0],
        )
        _columns("users", self.users, spec.user, spec, R)
        _columns("context", self.context, spec.context, spec, Q)
        _columns("items", self.items, spec.item, spec, self.items.rows)
        _columns("cross", self.cross, spec.cross, spec, N)
        _shape("event_offsets", self.event_offsets, (R + 1,))
        _shape("event_item", self.event_item, (E,))
        _shape("event_time_ms", self.event_time_ms, (E,))
        _shape("event_ids", self.event_ids, (E, len(spec.event.tables)))
        _shape("user_index", self.user_index, (Q,))
        _shape("request_time_ms", self.request_time_ms, (Q,))
        _shape("history_ranges", self.history_ranges, (Q, 3))
        _shape("request_index", self.request_index, (N,))
        _shape("item_index", self.item_index, (N,))
        _shape("bias", self.bias, (N,))
        _offsets("event_offsets", self.event_offsets, E)
        _within("user_index", self.user_index, R, "users")
        _within("request_index", self.request_index, Q, "requests")
        if bool((self.request_index[1:] < self.request_index[:-1]).any()):
            raise DataError("RequestBatch.request_index: expected ascending requests")
        _within("item_index", self.item_index, self.items.rows, "items")
        _within("event_item", self.event_item, self.items.rows, "items")
        _within("bias", self.bias, max(spec.bias_rows, 1), "rows")
        for column, table in enumerate(spec.event.tables):
            _within(
                f"event_ids[:, {column}]",
                self.event_ids[:, column],
                spec.tables[table],
                f"rows of table {table}",
            )
        begin, middle, end = self.history_ranges.unbind(1)
        first, last = self.event_offsets[self.user_index], self.event_offsets[self.user_index + 1]
        wrong = (begin < first) | (middle < begin) | (end < middle) | (end > last)
        if bool(wrong.any()):
            q = int(wrong.nonzero()[0])
            raise DataError(
                f"RequestBatch.history_ranges[{q}]: expected {int(first[q])} <= begin <= "
                f"real time <= end <= {int(last[q])}, "
                f"the user's history; got {self.history_ranges[q].tolist()}"
            )
        for name in ("labels", "weights"):
            value = getattr(self, name)
            if value is not None:
                _shape(name, value, (N, len(spec.tasks)))
                _finite(name, value)
        if self.impression_index is not None:
            _shape("impression_index", self.impression_index, (N,))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on ``device``.

    A copy to a GPU leaves from pinned memory, else the host would wait for it.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


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
