"""RequestBatch: what the loader yields, what the model takes and what the server builds.

Letters used in shapes, here and in the model:

    R users (rows of user state)   Q requests   N candidates   E events, all users together
    I distinct item rows
    T tasks   F one-valued id columns   K numbers

A user row holds one user's features and one contiguous range of events, sorted by time. Requests
point to user rows, candidates to requests; candidates and events point to item rows. Nothing here
is padded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hemix.data.batch_checks import validate_batch
from hemix.data.batch_selections import (
    expand_per_impression,
    select_candidates,
    select_users,
)
from hemix.data.columns import Columns
from hemix.data.devices import to_device
from hemix.data.spec import InputSpec

__all__ = ["RequestBatch"]


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
    """float32 [T]: in a microbatch, the weight of the whole batch. The loss is divided by it, so
    that the microbatches' losses add up to the batch's.
    """
    cpu_copy: RequestBatch | None = None
    """On another device: the same batch in the CPU's memory (:attr:`cpu_batch`)"""

    @property
    def cpu_batch(self) -> RequestBatch:
        """The batch in the CPU's memory.

        Read from here what decides shapes, so that no step waits for a device.
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

    @property
    def candidates_per_request(self) -> Tensor:
        """int64 [Q], in the CPU's memory."""
        return torch.bincount(self.cpu_batch.request_index, minlength=self.requests_count)

    def to(self, device: torch.device | str) -> RequestBatch:
        """Return the batch on another device, with this one as its :attr:`cpu_batch`."""
        device = torch.device(device)
        if device == self.request_index.device:
            return self

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return to_device(value, device)
            return value.to(device) if isinstance(value, Columns) else value

        names = [f.name for f in dataclasses.fields(self) if f.name != "cpu_copy"]
        fields = {name: move(getattr(self, name)) for name in names}
        return RequestBatch(**fields, cpu_copy=self.cpu_batch)

    def select_users(self, users: Tensor) -> tuple[RequestBatch, Tensor]:
        """Return some users with all their events, requests and candidates.

        Requests and candidates stay in their order. Only item rows that are used stay.

        Args:
            users: int64 [n], distinct user rows, in the order of the new batch.

        Returns:
            The batch, and int64: which of this batch's candidates it holds.
        """
        return select_users(self, users)

    def microbatch(self, index: int, count: int) -> tuple[RequestBatch, Tensor]:
        """Return one of ``count`` batches that together hold every candidate once.

        A user is in one of them only. With more microbatches than users some are empty.

        Args:
            index: 0 ... count - 1; the microbatch has the users index, index + count, ...
            count: How many there are.

        Returns:
            The microbatch, and int64: which of this batch's candidates it holds.
        """
        return select_users(self, torch.arange(self.users_count)[index::count])

    def select_candidates(self, first: int, last: int) -> tuple[RequestBatch, slice]:
        """Return the candidates [first, last) with all users, events and requests, as views.

        Item rows before the first and behind the last that is used are left out.

        Args:
            first: The first candidate.
            last: The position behind the last candidate.

        Returns:
            The batch, and which of this batch's item rows it holds.
        """
        return select_candidates(self, first, last)

    def expand_per_impression(self, first: int = 0, last: int | None = None) -> RequestBatch:
        """Return some impressions with nothing shared: each has a user row, a history and a request
        of its own.

        A history is cut to what its impression sees. Item row i is impression i's candidate; behind
        these comes one item row per event, so that a model computes an event's vector for each
        impression that sees it. Scores and gradients are those of the shared batch.

        Args:
            first: The first impression.
            last: The position behind the last impression; None: the end of the batch.
        """
        return expand_per_impression(self, first, self.candidates_count if last is None else last)

    def validate(self, spec: InputSpec) -> None:
        """Check shapes, indices, history ranges and numbers against ``spec``.

        This takes a pass over the batch: call it where a batch comes from outside, not in every
        step.

        Raises:
            DataError: Names the field, what was expected and what was found.
        """
        validate_batch(self, spec)
