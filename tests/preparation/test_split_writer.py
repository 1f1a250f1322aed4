"""Splits and blocks that are written piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemix.data.jagged_array import JaggedArray
from hemix.data.layout import Block, load_array
from hemix.preparation.split_writer import BlockAppender, SplitRows, SplitWriter, value_counts
from hemix.schema import Schema

LEVEL = """{
  n: {type: categorical},
  x: {type: numeric, encoding: standardise},
  tags: {type: categorical, multi: true}}"""
SCHEMA = Schema.parse(f"""
name: small
labels: {{click: {{}}}}
features: {{context: {LEVEL}, cross: {LEVEL}}}
split: {{valid: 1, test: 2}}
""")


def block(*lists: list[int]) -> Block:
    """Rows of one id (the row's number of values), two numbers and one list."""
    jagged = JaggedArray.from_lists(lists, np.int32)
    return Block(
        ids=jagged.lengths[:, None].astype(np.int32),
        numbers=np.zeros((len(lists), 2), np.float32),
        jagged=(jagged,),
    )


def test_appended_blocks_equal_the_saved_block(tmp_path: Path) -> None:
    out = BlockAppender(tmp_path, "x", block([1]))
    for rows in (block([5, 6], []), block([7]), block([], [8, 9])):
        out.append(rows)
    out.close()
    whole = Block.load(tmp_path, "x", 1)
    assert whole.jagged[0].values.tolist() == [5, 6, 7, 8, 9]
    assert whole.jagged[0].offsets.tolist() == [0, 2, 2, 3, 3, 5]
    assert whole.ids[:, 0].tolist() == [2, 0, 1, 0, 2]
    block([5, 6], [], [7], [], [8, 9]).save(tmp_path, "y")
    for part in ("ids", "numbers", "bag0.values", "bag0.offsets"):
        assert (tmp_path / f"x.{part}.npy").read_bytes() == (
            tmp_path / f"y.{part}.npy"
        ).read_bytes()


def requests(users: list[int], first_log_row: int) -> SplitRows:
    """Two candidates a request."""
    q, n = len(users), 2 * len(users)
    return SplitRows(
        user=np.array(users, np.int32),
        user_row=np.array(users, np.int32),
        time_ms=np.arange(q) + first_log_row,
        context=block(*[[u] for u in users]),
        counts=np.full(q, 2),
        item_row=np.ones(n, np.int32),
        cross=block(*[[]] * n),
        bias=np.zeros(n, np.int32),
        labels=np.array([[1], [-1]] * q, np.int8),
        weight=np.ones(n, np.float32),
        log_row=np.arange(first_log_row, first_log_row + n),
    )


@pytest.mark.parametrize("bounds", [[], [2], [2, 5], [3]])
def test_requests_are_appended_for_any_size_of_the_writes(
    tmp_path: Path, bounds: list[int]
) -> None:
    users = [0, 0, 1, 2, 2, 5, 6, 6]
    truth = np.arange(16.0)[:, None] / 16
    writer = SplitWriter(tmp_path, "train", SCHEMA, truth=truth)
    for begin, end in zip([0, *bounds], [*bounds, len(users)], strict=True):
        writer.write(requests(users[begin:end], 2 * begin))
    writer.close()

    def array(name: str) -> list[float]:
        return load_array(tmp_path / "train" / f"{name}.npy").tolist()

    assert array("user") == users
    assert array("first_candidate") == list(range(0, 18, 2))
    assert array("log_row") == list(range(16))
    assert array("context.bag0.values") == users
    assert array("context.bag0.offsets") == list(range(9))
    assert array("cross.bag0.offsets") == [0] * 17
    assert (load_array(tmp_path / "truth" / "train.npy") == truth).all()
    counts = writer.counts
    assert (counts.rows, counts.requests, counts.users) == (16, 8, 5)
    assert (counts.positives.tolist(), counts.unknown.tolist()) == ([8], [8])
    assert (counts.first_ms, counts.last_ms) == (
        0,
        2 * max([0, *bounds]) + len(users) - max([0, *bounds]) - 1,
    )


def test_a_split_without_rows_has_empty_arrays(tmp_path: Path) -> None:
    for folder, rows in (("none", []), ("some", [0])):
        writer = SplitWriter(tmp_path / folder, "valid", SCHEMA, truth=np.zeros((2, 1)))
        if rows:
            writer.write(requests(rows, 0))
        writer.close()
    none, some = (sorted((tmp_path / name).rglob("*.npy")) for name in ("none", "some"))
    assert [p.relative_to(tmp_path / "none") for p in none] == [
        p.relative_to(tmp_path / "some") for p in some
    ]
    for empty, other in zip(map(load_array, none), map(load_array, some), strict=True):
        assert (empty.dtype, empty.shape[1:]) == (other.dtype, other.shape[1:])
        assert empty.tolist() in ([], [0])  # [0]: offsets


def test_counts_of_unknown_and_missing_values_are_weighted() -> None:
    rows = block([0, 1], [1], [7, 8])  # ids 2, 1, 2
    assert value_counts(rows).tolist() == [[0, 1, 3], [1, 1, 3]]
    assert value_counts(rows, np.array([10, 1, 0])).tolist() == [[0, 1, 11], [10, 1, 11]]


def test_a_row_of_a_jagged_column_is_counted_once() -> None:
    rows = block(
        [], [1], [1, 1], [0, 0, 5], [1, 5]
    )  # empty, null, nulls, two unknown values, a null beside a known one
    assert value_counts(rows).tolist()[1] == [1, 3, 5]
    assert value_counts(rows, np.array([1, 2, 3, 4, 5])).tolist()[1] == [4, 6, 15]
