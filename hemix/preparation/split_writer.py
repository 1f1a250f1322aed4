"""Write the encoded impressions of a split of one partition, in ranges of users."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import JaggedArray
from hemix.data.layout import Appender, Block
from hemix.data.raw_columns import RawColumn
from hemix.data.spec import FIRST, MISSING, UNKNOWN
from hemix.files import storage_errors
from hemix.schema import Schema

__all__ = ["BlockAppender", "SplitCounts", "SplitRows", "SplitWriter", "row_states", "value_counts"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SplitRows:
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
    row_key: RawColumn | None = None
    """int64 [n], or the UTF-8 bytes of texts; None without ``roles.row_key``"""


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


@dataclass
class SplitCounts:
    """Counts of the rows of a split for the manifest."""

    positives: Array
    """int64 [T]"""
    unknown: Array
    """int64 [T]: rows whose label is unknown"""
    values: dict[str, Array]
    """level -> int64 [id columns + jagged columns, 3], see :func:`value_counts`"""
    rows: int = 0
    requests: int = 0
    users: int = 0
    first_ms: int = 2**62
    last_ms: int = -(2**62)
    positions: set[int] = field(default_factory=set)
    """The distinct values of the bias column"""

    def add(self, rows: SplitRows) -> None:
        """Count requests; all requests of a user come in one call."""
        self.update(
            SplitCounts(
                positives=(rows.labels == 1).sum(axis=0),
                unknown=(rows.labels < 0).sum(axis=0),
                values={
                    "context": value_counts(rows.context, rows.counts),
                    "cross": value_counts(rows.cross),
                },
                rows=len(rows.item_row),
                requests=len(rows.user),
                users=int((np.diff(rows.user, prepend=-1) != 0).sum()),
                first_ms=int(rows.time_ms.min()),
                last_ms=int(rows.time_ms.max()),
                positions=set(np.unique(rows.bias).tolist()),
            )
        )

    def update(self, other: SplitCounts) -> None:
        """Add the counts of other users."""
        self.positives = self.positives + other.positives
        self.unknown = self.unknown + other.unknown
        self.values = {level: counts + other.values[level] for level, counts in self.values.items()}
        self.rows += other.rows
        self.requests += other.requests
        self.users += other.users
        self.first_ms = min(self.first_ms, other.first_ms)
        self.last_ms = max(self.last_ms, other.last_ms)
        self.positions = self.positions | other.positions


class _RowKeyAppender:
    """Appends keys of rows: to ``row_key.npy``, or texts to ``row_key.values.npy`` and offsets."""

    def __init__(self, folder: Path, *, as_int64: bool) -> None:
        name = "row_key" if as_int64 else "row_key.values"
        self._values = Appender(folder / f"{name}.npy", np.int64 if as_int64 else np.uint8)
        self._offsets = None
        if not as_int64:
            self._offsets = Appender(folder / "row_key.offsets.npy", np.int64)
            self._offsets.append(np.zeros(1, np.int64))

    def append(self, keys: RawColumn) -> None:
        if isinstance(keys, JaggedArray):
            assert self._offsets is not None
            self._offsets.append(keys.offsets[1:] + self._values.rows)
            keys = keys.values
        self._values.append(keys)

    def close(self) -> None:
        self._values.close()
        if self._offsets is not None:
            self._offsets.close()


class SplitWriter:
    """Writes the requests of a split of one partition, and counts its rows."""

    def __init__(
        self,
        folder: Path,
        split: str,
        schema: Schema,
        *,
        truth: Array | None = None,
        int64_keys: bool = False,
    ) -> None:
        """Open the files.

        Args:
            folder: The partition's folder.
            split: ``train``, ``valid`` or ``test``.
            schema: The schema, for the numbers of columns.
            truth: float64 [log rows, T], true probabilities; those of the split are written into
                the folder ``truth``.
            int64_keys: Whether the keys of rows are int64, not texts.
        """
        tasks = len(schema.tasks)
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
        own = folder / split
        with storage_errors(own):
            own.mkdir(parents=True)
        self._columns = {
            name: Appender(own / f"{name}.npy", kind, width)
            for name, (kind, width) in kinds.items()
        }
        self._columns["first_candidate"].append(np.zeros(1, np.int64))
        blocks = {level: _empty_block(schema, level) for level in ("context", "cross")}
        self._blocks = {level: BlockAppender(own, level, block) for level, block in blocks.items()}
        self._row_key = None
        if schema.roles.row_key is not None:
            self._row_key = _RowKeyAppender(own, as_int64=int64_keys)
        self._truth, self._truth_file = truth, None
        if truth is not None:
            path = folder / "truth" / f"{split}.npy"
            with storage_errors(path):
                path.parent.mkdir(exist_ok=True)
            self._truth_file = Appender(path, np.float64, truth.shape[1])
        self.counts = SplitCounts(
            positives=np.zeros(tasks, np.int64),
            unknown=np.zeros(tasks, np.int64),
            values={level: value_counts(block) for level, block in blocks.items()},
        )

    def write(self, rows: SplitRows) -> None:
        """Append requests. Users come in ascending order, each in one call."""
        for name, out in self._columns.items():
            if name == "first_candidate":
                out.append(self.counts.rows + np.cumsum(rows.counts))
            else:
                out.append(getattr(rows, name))
        for name, block in self._blocks.items():
            block.append(getattr(rows, name))
        if self._row_key is not None and rows.row_key is not None:
            self._row_key.append(rows.row_key)
        if self._truth is not None and self._truth_file is not None:
            self._truth_file.append(self._truth[rows.log_row])
        self.counts.add(rows)

    def close(self) -> None:
        """Complete the files."""
        for column in self._columns.values():
            column.close()
        for block in self._blocks.values():
            block.close()
        if self._row_key is not None:
            self._row_key.close()
        if self._truth_file is not None:
            self._truth_file.close()


def _empty_block(schema: Schema, level: str) -> Block:
    """A block without rows: the features of a level, then the numbers of its statistics."""
    columns = [feature.tensor_columns() for feature in schema.features.level(level).values()]
    numbers = sum(len(c.numbers) for c in columns)
    numbers += sum(
        len(schema.statistics[name].number_names(name)) for name in schema.statistics_of(level)
    )
    return Block(
        ids=np.zeros((0, sum(c.ids for c in columns)), np.int32),
        numbers=np.zeros((0, numbers), np.float32),
        jagged=tuple(
            JaggedArray.from_lengths(np.zeros(0, np.int32), []) for c in columns if c.jagged
        ),
    )


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
