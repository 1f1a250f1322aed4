"""Groups: every request once, every event that it sees and no other, and little padding whatever
the lengths.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hemix.nn.grouping import group_requests
from hemix.nn.history_ranges import HistoryRanges, rows_in_ranges
from hemix.nn.slots import HostIndex, from_slots, positions, slots, to_slots

CPU = torch.device("cpu")


def ranges_of(users: torch.Tensor, begin: torch.Tensor, end: torch.Tensor) -> HistoryRanges:
    return HistoryRanges(user_index_Q=users, begin_Q=begin, end_Q=end)


def test_the_newest_events_of_every_range() -> None:
    """Of 5, 2 and 0 events the newest 3."""
    ranges = ranges_of(
        torch.tensor([0, 0, 1]), torch.tensor([2, 5, 9]), torch.tensor([7, 7, 9])
    ).newest(3)
    assert (ranges.begin_Q.tolist(), ranges.lengths.tolist()) == ([4, 5, 9], [3, 2, 0])


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], list[int]]:
    """(user, begin, end, candidates) of requests, each range within its user's 100 events."""
    users = draw(st.lists(st.integers(0, 7), min_size=1, max_size=20))
    begin = [100 * u + draw(st.integers(0, 99)) for u in users]
    end = [b + draw(st.integers(0, 100 * (u + 1) - b)) for u, b in zip(users, begin, strict=True)]
    return users, begin, end, [draw(st.integers(0, 5)) for _ in users]


@given(requests())
def test_every_request_sees_its_range_and_the_null_event(
    drawn: tuple[list[int], list[int], list[int], list[int]],
) -> None:
    users, begin, end, candidates = drawn
    groups = group_requests(
        ranges_of(*(torch.tensor(x) for x in (users, begin, end))), torch.tensor(candidates), CPU
    )
    seen: dict[int, list[int]] = {}
    for group in groups:
        assert (group.rows_BL[:, 0] == 0).all()
        for b, c in group.has_request_BC.nonzero().tolist():
            request = int(group.requests_BC[b, c])
            assert request not in seen
            seen[request] = group.rows_BL[b][group.visible_BCL[b, c]].tolist()
    assert seen == {q: [0, *range(begin[q] + 1, end[q] + 1)] for q in range(len(users))}


@given(requests())
def test_candidates_find_their_way_back(
    drawn: tuple[list[int], list[int], list[int], list[int]],
) -> None:
    users, begin, end, candidates = drawn
    groups = group_requests(
        ranges_of(*(torch.tensor(x) for x in (users, begin, end))), torch.tensor(candidates), CPU
    )
    request_index = torch.repeat_interleave(torch.arange(len(users)), torch.tensor(candidates))
    layout = slots(groups, HostIndex(request_index), len(users), CPU)
    values = torch.arange(float(len(request_index))).unsqueeze(1).requires_grad_()
    there = to_slots(values, layout.rows, layout.slot_N)
    for group, rows in zip(groups, layout.rows, strict=True):
        of_request = request_index[rows] if len(request_index) else rows
        valid = torch.zeros_like(rows, dtype=torch.bool)
        valid[group.has_request_BC] = True
        count = torch.tensor(candidates)[group.requests_BC]
        valid &= torch.arange(rows.shape[2]) < count.unsqueeze(2)
        assert (of_request == group.requests_BC.unsqueeze(2))[valid].all()
    back = from_slots(there, layout.slot_N)
    assert torch.equal(back, values)
    (back * torch.arange(len(request_index)).unsqueeze(1)).sum().backward()
    assert values.grad is not None and torch.equal(
        values.grad.squeeze(1), torch.arange(float(len(request_index)))
    )


def test_one_long_history_does_not_pad_the_short_ones() -> None:
    """One user with 5,000 events and 255 with 20: at most half as much padding as events, not 256 x
    5,000.
    """
    users = torch.arange(256)
    length = torch.full((256,), 20).index_fill(0, torch.tensor([17]), 5000)
    end = length.cumsum(0)
    groups = group_requests(
        ranges_of(users, end - length, end), torch.ones(256, dtype=torch.int64), CPU
    )
    assert sum(group.rows_BL.numel() for group in groups) < 1.5 * int(length.sum())


def test_heavy_tailed_lengths_are_padded_by_less_than_half() -> None:
    generator = torch.Generator().manual_seed(0)
    length = (torch.randn(1000, generator=generator).exp() * 300).long().clamp(max=5000)
    end = length.cumsum(0)
    groups = group_requests(
        ranges_of(torch.arange(1000), end - length, end), torch.ones(1000, dtype=torch.int64), CPU
    )
    assert sum(group.rows_BL.numel() for group in groups) < 1.5 * int(length.sum())
    assert len(groups) < 16


def test_rows_in_ranges() -> None:
    """User 0 sees positions 2 and 3 in one request and none in another, whose range is ignored;
    user 1 sees 7.
    """
    ranges = ranges_of(torch.tensor([0, 0, 1]), torch.tensor([2, 0, 7]), torch.tensor([4, 0, 8]))
    rows, position = rows_in_ranges(ranges, users=2, rows=10, device=CPU)
    assert rows.tolist() == [0, 3, 4, 8]
    assert position.tolist() == [0, 0, 0, 1, 2, 0, 0, 0, 3, 0]


def test_gradients_of_laid_out_rows() -> None:
    """Row 0 is the null event of both lists and padding; its gradient is the sum over the lists'
    first slots.
    """
    layout = [torch.tensor([[0, 2, 3], [0, 1, 0]]), torch.tensor([[0, 5]])]
    rows = torch.zeros(6, 1, requires_grad=True)
    out = to_slots(rows, layout, positions(layout, 6), null_first=True)
    (out[0] * torch.tensor([[[1.0], [2], [3]], [[4], [5], [0]]])).sum().backward(retain_graph=True)
    assert rows.grad is not None
    assert rows.grad.squeeze(1).tolist() == [5, 5, 2, 3, 0, 0]
    (out[1] * torch.tensor([[[10.0], [20]]])).sum().backward()
    assert rows.grad.squeeze(1).tolist() == [15, 5, 2, 3, 0, 20]
