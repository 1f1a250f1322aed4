"""Histories as pooled fields, next to the fields of the levels.

They are made once per user and once per request, then gathered.

Letters: R users, Q requests, N candidates, E events, F fields, d width of a table, c columns of an
event, m numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hemix.data.spec import InputSpec
from hemix.nn.fields import Fields, event_columns, event_columns_count
from hemix.nn.inputs import Inputs
from hemix.nn.states import PER_EVENT

__all__ = ["PooledFields", "PooledState"]


@dataclass(frozen=True, kw_only=True)
class PooledState:
    """Fields and numbers of users, or of requests."""

    fields: Tensor
    """[R, F, d]; [Q, F, d] of requests: the user's, the context's, the pooled global and the pooled
    real-time history's"""
    numbers: Tensor
    """[R, m]; [Q, m] of requests"""
    events_ED: Tensor | None = field(metadata=PER_EVENT)
    """[1 + E, c * d] of users; None of requests, and where histories make no field"""


class PooledFields(Fields):
    """Fields of the levels and, column by column, of the histories.

    A history's column is a multi-valued feature: the mean over the events that the request sees.
    Each column gives one field for the global part and one for the real-time part.

    In this order: user, context, global history, real-time history, item, cross. Numbers make no
    field.
    """

    def __init__(
        self,
        spec: InputSpec,
        embedding_size: int,
        histories: Sequence[str] = ("global", "realtime"),
    ) -> None:
        """``histories``: the parts that make fields."""
        super().__init__(spec, embedding_size, numbers=False)
        self.spec = spec
        self.histories = histories
        self.columns = event_columns_count(spec) if histories else 0

    @property
    def request_count(self) -> int:
        """Fields of a request with its user and its histories."""
        return self.user_count + self.context_count + len(self.histories) * self.columns

    @property
    def count(self) -> int:
        """F: fields of a candidate with its request and its user."""
        return self.request_count + self.candidate_count

    def of_users(self, inputs: Inputs) -> PooledState:
        """The users' fields and the events' columns."""
        events_ED = event_columns(inputs, self.spec, self.size) if self.columns else None
        return PooledState(
            fields=self.user(inputs), numbers=self.user_numbers(inputs), events_ED=events_ED
        )

    def of_requests(self, state: PooledState, inputs: Inputs) -> PooledState:
        """Return the requests' fields, pooled histories among them.

        Args:
            state: The users' fields and events.
            inputs: Inputs with the stage ``request``.
        """
        of_user = inputs.batch.user_index
        histories = list[Tensor]()
        if state.events_ED is not None:
            means = zip(("global", "realtime"), inputs.layout.means(state.events_ED), strict=True)
            histories = [
                mean_QD.view(-1, self.columns, self.size)
                for part, mean_QD in means
                if part in self.histories
            ]
        fields = [state.fields.index_select(0, of_user), self.context(inputs), *histories]
        numbers = [state.numbers.index_select(0, of_user), self.context_numbers(inputs)]
        return PooledState(
            fields=torch.cat(fields, 1), numbers=torch.cat(numbers, 1), events_ED=None
        )

    def of_candidates(self, state: PooledState, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return fields and numbers of every candidate with its request's and its user's.

        Args:
            state: The requests' fields.
            inputs: Inputs with the stage ``candidate``.

        Returns:
            Fields [N, F, d] and numbers [N, m].
        """
        of_request = inputs.batch.request_index
        fields_NFd = torch.cat(
            [state.fields.index_select(0, of_request), self.candidate(inputs)], 1
        )
        return fields_NFd, torch.cat(
            [state.numbers.index_select(0, of_request), self.candidate_numbers(inputs)], 1
        )
