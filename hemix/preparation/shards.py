"""Write encoded impressions as shards.

A user belongs to the shard of their first impression, counted through the split. So the shards
depend on the rows of the split, not on the partitions in which they are written.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import offsets_of
from hemix.data.layout import Appender, Block
from hemix.data.spec import FIRST, MISSING, UNKNOWN

__all__ = ["BlockAppender", "ShardRows", "ShardWriter", "row_states", "value_counts"]

Array = npt.NDArray[Any]

SHARD_CANDIDATES = 1_000_000
"""A shard ends with the user in whose impressions it reaches a multiple of this."""


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """Requests of one split, sorted by user, then time, with their candidates."""

    user: Array
    """int32 [q]"""
    user_row: Array
    """int32 [q]"""
    time_ms: Array
    """int64 [q], UTC"""
    context: Block
    """[q]"""
    counts: Array
    """int64 [q]: candidates of every request"""
    item_row: Array
    """int32 [n]"""
    cross: Block
    """[n]"""
    bias: Array
    """int32 [n]"""
    labels: Array
    """int8 [n, T]"""
    weight: Array
    """float32 [n]"""
    log_row: Array
    """int64 [n]"""

    def slice(self, begin: int, end: int) -> ShardRows:
        """Return a range of requests with their candidates.

        Args:
            begin: The first request.
            end: One after the last request.
        """
        first = offsets_of(self.counts)
        requests, candidates = np.arange(begin, end), np.arange(first[begin], first[end])
        per_request = {"user", "user_row", "time_ms", "counts", "context"}
        columns: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            rows = requests if field.name in per_request else candidates
            columns[field.name] = value.select(rows) if isinstance(value, Block) else value[rows]
        return ShardRows(**columns)


class BlockAppender:
    """Appends blocks to the files that Block.save writes."""

    def __init__(self, folder: Path, name: str, like: Block) -> None:
        """Open the files.

        Args:
            folder: Their folder.
            name: The beginning of their names.
            like: A block with the same columns.
        """
        self._ids = Appender(folder / f"{name}.ids.npy", np.int32, like.ids.shape[1])
        self._numbers = Appender(folder / f"{name}.numbers.npy", np.float32, like.numbers.shape[1])
        self._jagged = [
            (
                Appender(folder / f"{name}.bag{i}.values.npy", np.int32),
                Appender(folder / f"{name}.bag{i}.offsets.npy", np.int64),
            )
            for i in range(len(like.jagged))
        ]
        for _, offsets in self._jagged:
            offsets.append(np.zeros(1, np.int64))

    def append(self, block: Block) -> None:
        """Append the rows of a block."""
        self._ids.append(block.ids)
        self._numbers.append(block.numbers)
        for (values, offsets), array in zip(self._jagged, block.jagged, strict=True):
            offsets.append(array.offsets[1:] + values.rows)
            values.append(array.values)

    def close(self) -> None:
        """Complete the files."""
        for out in (self._ids, self._numbers, *(out for pair in self._jagged for out in pair)):
            out.close()


class _Shard:
    def __init__(self, folder: Path, truth: Path | None, like: ShardRows, truth_tasks: int) -> None:
        folder.mkdir(parents=True)
        tasks = like.labels.shape[1]
        kinds: dict[str, tuple[Any, int | None]] = {
            "user": (np.int32, None),
            "user_row": (np.int32, None),
            "time_ms": (np.int64, None),
            "first_candidate": (np.int64, None),
            "item_row": (np.int32, None),
            "bias": (np.int32, None),
            "labels": (np.int8, tasks),
            "weight": (np.float32, None),
            "log_row": (np.int64, None),
        }
        self._columns = {
            name: Appender(folder / f"{name}.npy", kind, width)
            for name, (kind, width) in kinds.items()
        }
        self._columns["first_candidate"].append(np.zeros(1, np.int64))
        self._blocks = {
            name: BlockAppender(folder, name, getattr(like, name)) for name in ("context", "cross")
        }
        self._truth = None if truth is None else Appender(truth, np.float64, truth_tasks)
        self._candidates = 0

    def append(self, rows: ShardRows, truth: Array | None) -> None:
        """Append rows to the columns of the shard.

        Args:
            rows: The rows.
            truth: The simulator's probabilities by log row; None if the log has none.
        """
        for name, out in self._columns.items():
            if name == "first_candidate":
                out.append(self._candidates + np.cumsum(rows.counts))
            else:
                out.append(getattr(rows, name))
        for name, block in self._blocks.items():
            block.append(getattr(rows, name))
        if self._truth is not None and truth is not None:
            self._truth.append(truth[rows.log_row])
        self._candidates += len(rows.item_row)

    def close(self) -> None:
        for column in self._columns.values():
            column.close()
        for block in self._blocks.values():
            block.close()
        if self._truth is not None:
            self._truth.close()


class ShardWriter:
    """Writes the shards of a split and counts its rows for the manifest."""

    def __init__(self, folder: Path, split: str, *, truth: Array | None = None) -> None:
        """Make a writer without shards.

        Args:
            folder: The dataset folder.
            split: ``train``, ``valid`` or ``test``.
            truth: float64 [log rows, T], true probabilities; those of the split are written into
                the folder ``truth``.
        """
        self._folder, self._split, self._truth = folder, split, truth
        self._open: tuple[int, _Shard] | None = None
        self._files = 0
        self.rows = 0
        self.requests = 0
        self.users = 0
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.positives: Array | None = None
        self.unknown: Array | None = None
        self.bias_values: set[int] = set()
        """The distinct values of the bias column"""
        self.values: dict[str, Array] = {}
        """level -> int64 [id columns + jagged columns, 3]: rows unknown, missing, all"""

    def write(self, rows: ShardRows) -> None:
        """Append requests. Users come in ascending order, each in one call."""
        first = offsets_of(rows.counts)[:-1]
        begins_user = np.diff(rows.user, prepend=-1) != 0
        shard_of_user = (self.rows + first[begins_user]) // SHARD_CANDIDATES
        shard = shard_of_user[np.cumsum(begins_user) - 1]
        bounds = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(shard)]
        for begin, end in itertools.pairwise(bounds):
            shard_rows = rows if len(bounds) == 2 else rows.slice(begin, end)
            self._shard(int(shard[begin]), shard_rows).append(shard_rows, self._truth)
        self._count(rows, int(begins_user.sum()))

    def _shard(self, number: int, like: ShardRows) -> _Shard:
        if self._open is None or self._open[0] != number:
            self.close()
            name, truth = f"{self._files:05d}", None
            if self._truth is not None:
                truth = self._folder / "truth" / self._split / f"{name}.npy"
                truth.parent.mkdir(parents=True, exist_ok=True)
            tasks = 0 if self._truth is None else self._truth.shape[1]
            self._open = (number, _Shard(self._folder / self._split / name, truth, like, tasks))
            self._files += 1
        return self._open[1]

    def _count(self, rows: ShardRows, users: int) -> None:
        self.rows += len(rows.item_row)
        self.requests += len(rows.user)
        self.users += users
        self.bias_values.update(np.unique(rows.bias).tolist())
        low, high = int(rows.time_ms.min()), int(rows.time_ms.max())
        self.first_ms = low if self.first_ms is None else min(self.first_ms, low)
        self.last_ms = high if self.last_ms is None else max(self.last_ms, high)
        positives, unknown = (rows.labels == 1).sum(axis=0), (rows.labels < 0).sum(axis=0)
        self.positives = positives if self.positives is None else self.positives + positives
        self.unknown = unknown if self.unknown is None else self.unknown + unknown
        for level, block, weights in (
            ("context", rows.context, rows.counts),
            ("cross", rows.cross, None),
        ):
            self.values[level] = self.values.get(level, 0) + value_counts(block, weights)

    def close(self) -> None:
        """Complete the open shard."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def value_counts(block: Block, weights: Array | None = None) -> Array:
    """Count unknown and missing values of every column.

    Args:
        block: Encoded rows.
        weights: int [rows], how often each row counts; by default once.

    Returns:
        int64 [id columns + jagged columns, 3]: rows with an unknown value, rows without a value,
        and all rows. See :func:`row_states`.
    """
    rows = len(block.ids)
    total = rows if weights is None else int(weights.sum())
    counts = [
        [_sum(states == UNKNOWN, weights), _sum(states == MISSING, weights), total]
        for states in (
            row_states(block, column) for column in range(block.ids.shape[1] + len(block.jagged))
        )
    ]
    return np.array(counts, dtype=np.int64).reshape(len(counts), 3)


def row_states(block: Block, column: int) -> Array:
    """Classify the rows of a column as unknown, missing or known.

    Args:
        block: Encoded rows.
        column: Position among the id columns, then the jagged columns.

    Returns:
        int8 [rows]: UNKNOWN for a row with an unknown value, MISSING for a row without a value or
        with nulls only, else FIRST.
    """
    if column < block.ids.shape[1]:
        return np.minimum(block.ids[:, column], FIRST).astype(np.int8)
    lists = block.jagged[column - block.ids.shape[1]]
    row_of = lists.row_index
    unknown, present = (
        np.bincount(row_of[at], minlength=lists.rows) > 0
        for at in (lists.values == UNKNOWN, lists.values != MISSING)
    )
    return np.where(unknown, UNKNOWN, np.where(present, FIRST, MISSING)).astype(np.int8)


def _sum(mask: Array, weights: Array | None) -> int:
    return int(mask.sum() if weights is None else weights[mask].sum())
