"""Shards: where one ends, and blocks written piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hemix.preparation.shards import BlockAppender, ShardRows, ShardWriter, value_counts

from hemix.data.jagged_array import JaggedArray
from hemix.data.layout import Block, load_array
from hemix.preparation import shards


def block(*lists: list[int]) -> Block:
    """Rows of one id (the row's number of values), one number and one list."""
    jagged = JaggedArray.from_lists(lists, np.int32)
    return Block(
        ids=jagged.lengths[:, None].astype(np.int32),
        numbers=np.zeros((len(lists), 1), np.float32),
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


def requests(users: list[int], first_log_row: int) -> ShardRows:
    """Two candidates a request."""
    q, n = len(users), 2 * len(users)
    return ShardRows(
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
def test_a_user_stays_in_one_shard_for_any_size_of_the_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounds: list[int]
) -> None:
    monkeypatch.setattr(shards, "SHARD_CANDIDATES", 4)
    users = [0, 0, 1, 2, 2, 5, 6, 6]
    truth = np.arange(16.0)[:, None] / 16
    writer = ShardWriter(tmp_path, "train", truth=truth)
    for begin, end in zip([0, *bounds], [*bounds, len(users)], strict=True):
        writer.write(requests(users[begin:end], 2 * begin))
    writer.close()
    # candidates before each user: 0, 4, 6, 10, 12: the quotients by 4 are 0, 1, 1, 2, 3
    shard_users = [
        load_array(tmp_path / "train" / f"{i:05d}" / "user.npy").tolist() for i in range(4)
    ]
    assert shard_users == [[0, 0], [1, 2, 2], [5], [6, 6]]
    second = tmp_path / "train" / "00001"
    assert load_array(second / "first_candidate.npy").tolist() == [0, 2, 4, 6]
    assert load_array(second / "log_row.npy").tolist() == list(range(4, 10))
    assert load_array(second / "context.bag0.values.npy").tolist() == [1, 2, 2]
    assert (load_array(tmp_path / "truth" / "train" / "00001.npy") == truth[4:10]).all()
    assert (writer.rows, writer.requests, writer.users) == (16, 8, 5)
    assert writer.positives is not None and writer.unknown is not None
    assert (writer.positives.tolist(), writer.unknown.tolist()) == ([8], [8])
    assert (writer.first_ms, writer.last_ms) == (
        0,
        2 * max([0, *bounds]) + len(users) - max([0, *bounds]) - 1,
    )


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
