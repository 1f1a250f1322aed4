"""Histories as sequences of tokens, one for every request, and candidates that read them.

A sequence is the null event and the events that the request sees, by time, the newest last. Those
of requests with similar lengths form a group and are padded in front.

Letters: Q requests, N candidates, E events. In a group: B requests, K candidates a request, L
tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.devices import to_device
from hemix.nn.grouping import Group, group_requests
from hemix.nn.history_ranges import HistoryRanges
from hemix.nn.slots import HostIndex, Slots, from_slots, slots, to_slots

__all__ = [
    "EventSequences",
    "SequenceGroup",
    "candidate_slots",
    "event_sequences",
    "read_sequences",
]

_SCORES_AT_ONCE = 2**21
"""Attention scores of candidates are made for so many at a time."""


@dataclass(frozen=True, kw_only=True)
class SequenceGroup:
    """The sequences of some requests, padded in front to the longest."""

    requests_B: Tensor
    """int64 [B], on the model's device: which requests"""
    rows_BL: Tensor
    """int64: the row of each event; 0 for the null event and for padding"""
    valid_BL: Tensor
    """bool: False for padding"""
    realtime_BL: Tensor
    """bool: whether an event is of the real-time part"""

    def gather(self, events_Ex: Tensor) -> Tensor:
        """Return the rows of the events, [B, L, ...].

        Args:
            events_Ex: [1 + E, ...], the null event in row 0.
        """
        flat = events_Ex.index_select(0, self.rows_BL.flatten())
        return flat.view(*self.rows_BL.shape, *events_Ex.shape[1:])


@dataclass(frozen=True, kw_only=True)
class EventSequences:
    """The sequences of all requests of a batch."""

    groups: list[Group]
    sequences: list[SequenceGroup]
    """By group"""


def event_sequences(
    batch: RequestBatch, device: torch.device, newest: int | None = None
) -> EventSequences:
    """Lay out what every request sees of its user's history, both parts as one.

    Args:
        batch: The requests.
        device: The model's.
        newest: Events that a sequence has at most; None: all.
    """
    ranges = HistoryRanges.of(batch, "both")
    ranges = (ranges if newest is None else ranges.newest(newest)).one_user_per_request()
    groups = group_requests(ranges, batch.candidates_per_request, device)
    middle_Q = torch.maximum(batch.cpu_batch.history_ranges[:, 1], ranges.begin_Q)
    bounds_Q3 = torch.stack([ranges.begin_Q, middle_Q, ranges.end_Q], 1)
    sequences = []
    for group in groups:
        requests_B = group.requests_BC[:, 0]
        begin_B1, middle_B1, end_B1 = (
            to_device(bounds_Q3[requests_B], device).unsqueeze(2).unbind(1)
        )
        position_BL = end_B1 + torch.arange(-group.rows_BL.shape[1], 0, device=device)
        is_event_BL = position_BL >= begin_B1  # the null event is right before the oldest one
        sequences.append(
            SequenceGroup(
                requests_B=to_device(requests_B, device),
                rows_BL=(position_BL + 1).masked_fill(~is_event_BL, 0),
                valid_BL=position_BL >= begin_B1 - 1,
                realtime_BL=(position_BL >= middle_B1) & is_event_BL,
            )
        )
    return EventSequences(groups=groups, sequences=sequences)


def candidate_slots(
    batch: RequestBatch, groups: list[Group], requests: int, device: torch.device
) -> Slots:
    """Lay the candidates of a batch out beside their requests' sequences.

    Args:
        batch: The candidates.
        groups: From :func:`event_sequences`.
        requests: Q.
        device: The model's.
    """
    return slots(groups, HostIndex.of_candidates(batch), requests, device)


def read_sequences(
    rows_Nx: Tensor,
    layout: Slots,
    sequences: Sequence[tuple[Tensor, ...]],
    scores_each: int,
    read: Callable[..., Tensor],
) -> Tensor:
    """Let every candidate read its request's sequence, some requests at a time.

    Args:
        rows_Nx: What each candidate brings, [N, x].
        layout: Where the candidates lie.
        sequences: By group, tensors [B, L, ...] and [B, ...], the first one with L.
        scores_each: Scores of one candidate and one token.
        read: Gives [b, K, y] from [b, K, x] and the tensors of b requests.

    Returns:
        [N, y].
    """
    by_group = []
    laid_out = to_slots(rows_Nx, layout.rows, layout.slot_N)
    for rows_B1Kx, tensors in zip(laid_out, sequences, strict=True):
        rows_BKx = rows_B1Kx.squeeze(1)
        each = scores_each * rows_BKx.shape[1] * tensors[0].shape[1]
        step = max(1, _SCORES_AT_ONCE // max(each, 1))
        pieces = zip(*(torch.split(tensor, step) for tensor in (rows_BKx, *tensors)), strict=True)
        by_group.append(torch.cat([read(*piece) for piece in pieces]).unsqueeze(1))
    return from_slots(by_group, layout.slot_N)
