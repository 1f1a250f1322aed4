"""Operations of a RequestBatch: numbers worked out by hand, and what holds for random batches."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.jagged import Jagged
from tests.batches import make_batch, make_spec
from tests.data.test_dataset import leaves

SPEC = make_spec()


def column(*ids: int) -> Columns:
    """Rows of one id; row i has a list of i values and no number."""
    lists = [[10 * i + value for value in range(at)] for at, i in enumerate(ids)]
    return Columns(
        ids=torch.tensor(ids, dtype=torch.int64).view(-1, 1),
        numbers=torch.zeros(len(ids), 0),
        jagged=(Jagged.from_lists(lists),),
    )


def small() -> RequestBatch:
    """Users 70 with 3 events, 71 with none and 72 with 2. Their requests: 0 of user 72, 1 of 70,
    2 of 71 and 3 of 70, with 2, 1, 1 and 0 candidates.
    """
    return RequestBatch(
        users=column(70, 71, 72),
        event_offsets=torch.tensor([0, 3, 3, 5]),
        event_item=torch.tensor([4, 1, 4, 0, 2]),
        event_time_ms=torch.tensor([10, 20, 30, 40, 50]),
        event_ids=torch.tensor([[2], [3], [4], [5], [6]]),
        user_index=torch.tensor([2, 0, 1, 0]),
        request_time_ms=torch.tensor([100, 101, 102, 103]),
        context=column(80, 81, 82, 83),
        history_ranges=torch.tensor([[3, 4, 5], [0, 2, 3], [3, 3, 3], [1, 1, 2]]),
        request_index=torch.tensor([0, 0, 1, 2]),
        item_index=torch.tensor([3, 2, 4, 2]),
        cross=column(90, 91, 92, 93),
        bias=torch.tensor([0, 1, 2, 3]),
        items=column(60, 61, 62, 63, 64),
        labels=torch.tensor([[1.0], [0], [0], [1]]),
        weights=torch.ones(4, 1),
        impression_index=torch.tensor([1000, 1001, 1002, 1003]),
    )


def lists(columns: Columns) -> list[list[int]]:
    values, offsets = columns.jagged[0].values, columns.jagged[0].offsets.tolist()
    return [values[a:b].tolist() for a, b in pairwise(offsets)]


def facts(batch: RequestBatch) -> list[tuple[Any, ...]]:
    """All that is said of every impression: its user, request and item, what it sees and labels."""
    rows = []
    for n, q in enumerate(batch.request_index.tolist()):
        user, item = int(batch.user_index[q]), int(batch.item_index[n])
        begin, middle, end = batch.history_ranges[q].tolist()
        events = [
            (
                int(batch.event_time_ms[e]),
                batch.event_ids[e].tolist(),
                *level_row(batch.items, int(batch.event_item[e])),
            )
            for e in range(begin, end)
        ]
        row = [
            *level_row(batch.users, user),
            *level_row(batch.context, q),
            *level_row(batch.cross, n),
            *level_row(batch.items, item),
            int(batch.request_time_ms[q]),
            int(batch.bias[n]),
            middle - begin,
            events,
        ]
        for values in (batch.labels, batch.weights, batch.impression_index):
            row.append(None if values is None else values[n].tolist())
        rows.append(tuple(row))
    return rows


def level_row(columns: Columns, row: int) -> tuple[Any, ...]:
    values = [j.values[j.offsets[row] : j.offsets[row + 1]].tolist() for j in columns.jagged]
    return columns.ids[row].tolist(), columns.numbers[row].tolist(), values


def numbered(**sizes: Any) -> RequestBatch:
    batch = make_batch(SPEC, **sizes)
    index = torch.arange(batch.candidates_count) + 100
    return dataclasses.replace(batch, impression_index=index)


# -- users -----------------------------------------------------------------------------------------


def test_selected_users_bring_what_is_theirs() -> None:
    """Users 72 and 70, in this order: requests 0, 1 and 3; items 0, 1, 2, 3 and 4 but for none."""
    batch, candidates = small().select_users(torch.tensor([2, 0]))
    assert candidates.tolist() == [0, 1, 2]
    assert batch.users.ids.flatten().tolist() == [72, 70]
    assert lists(batch.users) == [[720, 721], []]
    assert batch.event_offsets.tolist() == [0, 2, 5]
    assert batch.event_time_ms.tolist() == [40, 50, 10, 20, 30]
    assert batch.event_ids.flatten().tolist() == [5, 6, 2, 3, 4]
    assert batch.user_index.tolist() == [0, 1, 1]
    assert batch.request_time_ms.tolist() == [100, 101, 103]
    assert lists(batch.context) == [[], [810], [830, 831, 832]]
    assert batch.history_ranges.tolist() == [[0, 1, 2], [2, 4, 5], [3, 3, 4]]
    assert batch.request_index.tolist() == [0, 0, 1]
    assert batch.item_index.tolist() == [3, 2, 4]
    assert batch.event_item.tolist() == [0, 2, 4, 1, 4]
    assert batch.cross.ids.flatten().tolist() == [90, 91, 92]
    assert batch.bias.tolist() == [0, 1, 2]
    assert batch.labels is not None and batch.labels.flatten().tolist() == [1, 0, 0]
    assert batch.impression_index is not None
    assert batch.impression_index.tolist() == [1000, 1001, 1002]


def test_a_user_without_events_brings_one_item() -> None:
    batch, candidates = small().select_users(torch.tensor([1]))
    assert candidates.tolist() == [3]
    assert (batch.event_offsets.tolist(), batch.event_item.tolist()) == ([0, 0], [])
    assert batch.history_ranges.tolist() == [[0, 0, 0]]
    assert batch.items.ids.flatten().tolist() == [62] and lists(batch.items) == [[620, 621]]
    assert batch.item_index.tolist() == [0]


def test_no_users() -> None:
    batch, candidates = small().select_users(torch.zeros(0, dtype=torch.int64))
    counts = (batch.users_count, batch.requests_count, batch.candidates_count, batch.items.rows)
    assert counts == (0, 0, 0, 0) and len(candidates) == 0
    assert batch.event_offsets.tolist() == [0] and batch.history_ranges.shape == (0, 3)


def test_microbatches_take_users_in_turn() -> None:
    assert small().microbatch(0, 2)[0].users.ids.flatten().tolist() == [70, 72]
    assert small().microbatch(1, 2)[0].users.ids.flatten().tolist() == [71]
    assert small().microbatch(0, 2)[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_microbatches_hold_every_candidate_once_and_no_user_twice(count: int) -> None:
    batch = numbered(users=7)
    seen, users, expected = [], 0, facts(batch)
    for index in range(count):
        microbatch, candidates = batch.microbatch(index, count)
        microbatch.validate(SPEC)
        assert facts(microbatch) == [expected[n] for n in candidates.tolist()]
        seen.append(candidates)
        users += microbatch.users_count
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(batch.candidates_count))
    assert users == batch.users_count


def test_more_microbatches_than_users_leave_some_empty() -> None:
    microbatch, candidates = make_batch(SPEC, users=2).microbatch(5, 6)
    microbatch.validate(SPEC)
    assert microbatch.users_count == microbatch.requests_count == len(candidates) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_users_selected_in_any_order_keep_what_the_batch_says(seed: int) -> None:
    batch = numbered(users=6, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    expected = facts(batch)
    for users in (order[:2], order[2:]):
        part, candidates = batch.select_users(users)
        part.validate(SPEC)
        assert facts(part) == [expected[n] for n in candidates.tolist()]
        assert torch.equal(part.users.ids, batch.users.ids[users])


# -- candidates ------------------------------------------------------------------------------------


def test_selected_candidates_keep_users_requests_and_events() -> None:
    """Candidates 1 and 2 have items 2 and 4; the events have 0 to 4."""
    batch, items = small().select_candidates(1, 3)
    assert items == slice(0, 5)
    assert batch.request_index.tolist() == [0, 1] and batch.item_index.tolist() == [2, 4]
    assert batch.cross.ids.flatten().tolist() == [91, 92]
    assert lists(batch.cross) == [[910], [920, 921]]
    assert batch.bias.tolist() == [1, 2]
    assert (batch.users_count, batch.requests_count, batch.items.rows) == (3, 4, 5)
    assert batch.impression_index is not None
    assert batch.impression_index.tolist() == [1001, 1002]


def test_item_rows_that_nothing_points_to_are_left_out() -> None:
    """Without events candidates 1 and 2 need the rows 2, 3 and 4."""
    batch = dataclasses.replace(
        small(),
        event_offsets=torch.zeros(4, dtype=torch.int64),
        event_item=torch.zeros(0, dtype=torch.int64),
    )
    selected, items = batch.select_candidates(1, 3)
    assert items == slice(2, 5)
    assert selected.item_index.tolist() == [0, 2]
    assert selected.items.ids.flatten().tolist() == [62, 63, 64]
    assert lists(selected.items)[0] == [620, 621]


def test_no_candidates() -> None:
    batch = small().select_users(torch.tensor([1]))[0]
    selected, items = batch.select_candidates(1, 1)
    assert (selected.candidates_count, items) == (0, slice(0, 0))


def test_one_candidate() -> None:
    batch, _ = small().select_candidates(3, 4)
    assert (batch.candidates_count, batch.request_index.tolist()) == (1, [2])
    assert facts(batch) == facts(small())[3:]


@pytest.mark.parametrize("step", [1, 4, 100])
def test_parts_of_the_candidates_are_the_whole(step: int) -> None:
    batch = numbered(seed=3)
    joined = []
    for first in range(0, batch.candidates_count, step):
        part, items = batch.select_candidates(first, first + step)
        assert torch.equal(part.items.ids, batch.items.ids[items])
        part.validate(SPEC)
        joined += facts(part)
    assert joined == facts(batch)


def test_candidates_per_request() -> None:
    assert small().candidates_per_request.tolist() == [2, 1, 1, 0]


# -- one row per impression ------------------------------------------------------------------------


def test_an_expanded_impression_has_rows_of_its_own() -> None:
    """Impressions 1 and 2 see events 3, 4 of user 72 and events 0, 1, 2 of user 70."""
    batch = small().expand_per_impression(1, 3)
    assert batch.users.ids.flatten().tolist() == [72, 70]
    assert batch.context.ids.flatten().tolist() == [80, 81]
    assert batch.event_offsets.tolist() == [0, 2, 5]
    assert batch.event_time_ms.tolist() == [40, 50, 10, 20, 30]
    assert batch.history_ranges.tolist() == [[0, 1, 2], [2, 4, 5]]
    assert batch.user_index.tolist() == batch.request_index.tolist() == [0, 1]
    assert batch.item_index.tolist() == [0, 1]
    assert batch.event_item.tolist() == [2, 3, 4, 5, 6]
    assert batch.items.ids.flatten().tolist() == [62, 64, 60, 62, 64, 61, 64]
    assert batch.bias.tolist() == [1, 2]


def test_an_impression_without_history_has_no_events() -> None:
    batch = small().expand_per_impression(3)
    assert (batch.event_offsets.tolist(), batch.history_ranges.tolist()) == ([0, 0], [[0, 0, 0]])
    assert batch.items.rows == batch.candidates_count == 1


@pytest.mark.parametrize("step", [1, 10, 100])
def test_expanded_chunks_say_of_impressions_what_the_batch_says(step: int) -> None:
    batch = numbered(seed=9)
    joined = []
    for first in range(0, batch.candidates_count, step):
        chunk = batch.expand_per_impression(first, first + step)
        chunk.validate(SPEC)
        assert chunk.users_count == chunk.requests_count == chunk.candidates_count
        assert chunk.items.rows == chunk.candidates_count + len(chunk.event_item)
        joined += facts(chunk)
    assert joined == facts(batch)


# -- columns ---------------------------------------------------------------------------------------


def test_selected_columns_are_the_slice() -> None:
    columns = make_batch(SPEC, items=9).items
    selected, whole = columns.select(torch.arange(3, 9)), columns.slice(3, 9)
    assert whole.rows == 6
    assert lists(whole) == lists(columns)[3:]
    for (name, tensor), (_, expected) in zip(leaves(selected), leaves(whole), strict=True):
        assert torch.equal(tensor, expected), name


# -- devices ---------------------------------------------------------------------------------------


def test_to_moves_every_tensor() -> None:
    def tensors(batch: RequestBatch) -> list[Tensor]:
        return [tensor for _, tensor in leaves(batch)]

    batch = make_batch(SPEC)
    there = batch.to("meta")
    assert there.cpu_copy is batch and there.cpu_batch is batch and batch.cpu_batch is batch
    alone = dataclasses.replace(there, cpu_copy=None)
    assert len(tensors(alone)) == len(tensors(batch)) > 20
    assert all(tensor.device.type == "meta" for tensor in tensors(alone))
    assert [t.shape for t in tensors(alone)] == [t.shape for t in tensors(batch)]
    assert batch.to("cpu") is batch
    assert alone.impression_index is None


def test_counts_are_read_from_the_cpu() -> None:
    batch = make_batch(SPEC)
    assert torch.equal(batch.to("meta").candidates_per_request, batch.candidates_per_request)
