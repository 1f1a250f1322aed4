"""Groups of users with histories of similar length, so that a short history is never padded to the
longest. `hemix.nn.slots` has a picture.

Users are put into groups by the length of what any of their requests sees and by how many
candidates they have; a group is padded to its own longest. Users without a request are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.devices import to_device
from hemix.data.jagged import offsets_of
from hemix.nn.history_ranges import HistoryRanges, ranges_per_user

__all__ = ["Group", "group_requests"]

_LENGTH_CLASSES = [*(least * 2**n for n in range(10) for least in (8, 12)), 8192, 16384]
"""The longest history of each class of similar lengths, in events: 8, 12, 16, 24, ..."""
_GROUP_COST = 1500
"""What one more group costs, in padded events."""
_QUERY_COST = 0.05
"""What a candidate adds to the cost of an event that it looks at, in events."""
_MERGE_MAX = 24


@dataclass(frozen=True, kw_only=True)
class Group:
    """B users with up to C requests each, whose events, the null event in front, are padded to
    L."""

    candidates: int
    """The most candidates of one user, counting each of their requests like the one with most."""
    requests_BC: Tensor
    """int64, in the CPU's memory: row of each request; the user's first where a user has fewer
    than C"""
    has_request_BC: Tensor
    """bool, in the CPU's memory"""
    rows_BL: Tensor
    """int64: row of each event; the null event's, 0, first, and for padding"""
    visible_BCL: Tensor
    """bool: whether the request sees the event; the null event always, padding never"""


def group_requests(
    ranges: HistoryRanges, candidates_Q: Tensor, device: torch.device
) -> list[Group]:
    """Group requests by the lengths of what they see. Every request is in exactly one group.

    Args:
        ranges: What each request sees.
        candidates_Q: int64 [Q], in the CPU's memory: how many candidates each has.
        device: The model's.
    """
    user_index_Q, begin_Q, end_Q = ranges.user_index_Q, ranges.begin_Q, ranges.end_Q
    if user_index_Q.shape[0] == 0:
        return []
    if user_index_Q.shape[0] == 1:
        only_BC = torch.zeros(1, 1, dtype=torch.int64)
        ranges_of = (begin_Q, end_Q, begin_Q.unsqueeze(1), end_Q.unsqueeze(1))
        length = int(end_Q - begin_Q)
        return [_group(only_BC, only_BC == 0, length, int(candidates_Q), ranges_of, device)]
    by_user = torch.argsort(user_index_Q, stable=True)
    _, user_of, requests_U = torch.unique_consecutive(
        user_index_Q[by_user], return_inverse=True, return_counts=True
    )
    users = requests_U.shape[0]
    first_U, last_U = ranges_per_user(user_of, begin_Q[by_user], end_Q[by_user], users)
    candidates_U = (
        torch.zeros_like(requests_U).scatter_reduce_(0, user_of, candidates_Q[by_user], "amax")
        * requests_U
    )
    first_request_U = offsets_of(requests_U)[:-1]

    by_shape, users_per_group = _users_by_shape(last_U - first_U, candidates_U)
    groups = []
    shapes = _shapes(
        torch.split(by_shape, users_per_group), requests_U, last_U - first_U, candidates_U
    )
    for group_users, width, length, candidates in shapes:
        step = torch.arange(width)
        has_request_BC = step < requests_U[group_users].unsqueeze(1)
        first_B1 = first_request_U[group_users].unsqueeze(1)
        requests_BC = by_user[torch.where(has_request_BC, first_B1 + step, first_B1)]
        ranges_of = (
            first_U[group_users],
            last_U[group_users],
            begin_Q[requests_BC],
            end_Q[requests_BC],
        )
        groups.append(_group(requests_BC, has_request_BC, length, candidates, ranges_of, device))
    return groups


def _group(
    requests_BC: Tensor,
    has_request_BC: Tensor,
    length: int,
    candidates: int,
    ranges_of: tuple[Tensor, Tensor, Tensor, Tensor],
    device: torch.device,
) -> Group:
    """``ranges_of``, in the CPU's memory: [first, last) [B] of the users' events, at most
    ``length``, and [begin, end) [B, C] of those that their requests see."""
    first_B, last_B, begin_BC, end_BC = (to_device(bound, device) for bound in ranges_of)
    events_BL = first_B.unsqueeze(1) + torch.arange(length, device=device)
    seen_BCL = events_BL.unsqueeze(1) >= begin_BC.unsqueeze(2)
    seen_BCL &= events_BL.unsqueeze(1) < end_BC.unsqueeze(2)
    return Group(
        candidates=candidates,
        requests_BC=requests_BC,
        has_request_BC=has_request_BC,
        rows_BL=F.pad(torch.where(events_BL < last_B.unsqueeze(1), events_BL + 1, 0), (1, 0)),
        visible_BCL=F.pad(seen_BCL, (1, 0), value=True),
    )


def _shapes(groups: tuple[Tensor, ...], *sizes_U: Tensor) -> list[tuple[Any, ...]]:
    """Every group's users with the largest of each size."""
    largest = torch.stack(
        [torch.stack([size[users].max() for size in sizes_U]) for users in groups]
    ).tolist()
    return [(users, *sizes) for users, sizes in zip(groups, largest, strict=True)]


def _users_by_shape(length_U: Tensor, candidates_U: Tensor) -> tuple[Tensor, list[int]]:
    """(users ordered so that similar ones are neighbours, how many of them each group takes)."""
    classes = torch.tensor(_LENGTH_CLASSES, device=length_U.device)
    candidates_class = (candidates_U.clamp(min=1).double().log2() / 2).ceil().long()
    key = candidates_class * (len(_LENGTH_CLASSES) + 1) + torch.bucketize(length_U, classes)
    key, order = torch.sort(key, stable=True)
    _, class_of, count = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    largest = torch.zeros((2, count.shape[0]), dtype=torch.int64, device=key.device)
    largest.scatter_reduce_(
        1, class_of.expand(2, -1), torch.stack([length_U[order], candidates_U[order]]), "amax"
    )
    return order, _cheapest_groups(count.tolist(), *largest.tolist())


def _cheapest_groups(count: list[int], length: list[int], candidates: list[int]) -> list[int]:
    """Merge neighbouring classes into groups of least total cost (dynamic programming); users per
    group."""
    cost: list[float] = [0.0]
    start: list[int] = []
    for stop in range(1, len(count) + 1):
        best, best_from, users, longest, most = float("inf"), stop - 1, 0, 0, 0
        for first in range(stop - 1, max(-1, stop - 1 - _MERGE_MAX), -1):
            users += count[first]
            longest, most = max(longest, length[first]), max(most, candidates[first])
            padded = users * (longest + 1) * (1 + _QUERY_COST * most)
            if cost[first] + _GROUP_COST + padded < best:
                best, best_from = cost[first] + _GROUP_COST + padded, first
        cost.append(best)
        start.append(best_from)
    sizes, stop = list[int](), len(count)
    while stop:
        sizes.append(sum(count[start[stop - 1] : stop]))
        stop = start[stop - 1]
    return sizes[::-1]
