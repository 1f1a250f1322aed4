"""The example in the docstring of hemix.nn.slots: two users, three requests, six candidates."""

from __future__ import annotations

import pytest
import torch

from hemix.nn import grouping
from hemix.nn.grouping import Group, group_requests
from hemix.nn.history_ranges import HistoryRanges
from hemix.nn.slots import HostIndex, from_slots, slots, to_slots

CPU = torch.device("cpu")


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[Group]:
    monkeypatch.setattr(grouping, "_GROUP_COST", 0)
    ranges = HistoryRanges(
        user_index_Q=torch.tensor([0, 1, 1]),
        begin_Q=torch.tensor([0, 5, 5]),
        end_Q=torch.tensor([5, 7, 8]),
    )
    return group_requests(ranges, torch.tensor([1, 2, 3]), CPU)


def test_groups(groups: list[Group]) -> None:
    assert [group.requests_BC.tolist() for group in groups] == [[[0]], [[1, 2]]]
    assert [group.rows_BL.tolist() for group in groups] == [[[0, 1, 2, 3, 4, 5]], [[0, 6, 7, 8]]]
    assert [group.visible_BCL.long().tolist() for group in groups] == [
        [[[1, 1, 1, 1, 1, 1]]],
        [[[1, 1, 1, 0], [1, 1, 1, 1]]],
    ]


def test_slots_of_candidates(groups: list[Group]) -> None:
    layout = slots(groups, HostIndex(torch.tensor([0, 1, 1, 2, 2, 2])), 3, CPU)
    assert [rows.tolist() for rows in layout.rows] == [[[[0]]], [[[1, 2, 0], [3, 4, 5]]]]
    assert layout.slot_N.tolist() == [0, 1, 2, 4, 5, 6]
    rows_Nx = torch.arange(6.0).unsqueeze(1)
    in_slots = to_slots(rows_Nx, layout.rows, layout.slot_N)
    assert [x.shape for x in in_slots] == [(1, 1, 1, 1), (1, 2, 3, 1)]
    assert torch.equal(from_slots(in_slots, layout.slot_N), rows_Nx)
