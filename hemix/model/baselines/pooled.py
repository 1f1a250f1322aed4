"""A base for the rivals that read histories as pooled fields, and the layers that those share.

Fields and pooled histories of a request are made once per request and gathered. Knows nothing of how fields interact.

Letters: R users, Q requests, N candidates, E events, F fields, d width of a table, C columns of an event, K numbers, P pooled width.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hemix.config import ModelSettings
from hemix.data.spec import InputSpec
from hemix.model.baselines.parts import Fields, event_columns, event_columns_count, visible_means
from hemix.model.heads import Heads
from hemix.model.ranker import Inputs, Ranker

__all__ = ["Perceptron", "PooledRanker", "PooledState", "hidden_width"]

_HIDDEN_TOKENS = 16
"""Width of a wide hidden layer, in tokens: gives the rivals about as many dense parameters as HeMix has at a named size."""


def hidden_width(settings: ModelSettings) -> int:
    """Units of a rival's wide hidden layers."""
    return _HIDDEN_TOKENS * settings.token_width


class Perceptron(nn.Sequential):
    """Linear maps, each with ReLU and dropout: widths[0] -> widths[1] -> ..."""

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers)


@dataclass(frozen=True, kw_only=True)
class PooledState:
    """Fields and numbers of users, or of requests."""

    by_event: ClassVar[tuple[str, ...]] = ("events_ED",)

    fields: Tensor
    """[R, F, d]; [Q, F, d] of requests: the user's, the context's, the pooled global and the pooled real-time history's"""
    numbers: Tensor
    """[R, K]; [Q, K] of requests"""
    events_ED: Tensor | None
    """[1 + E, C * d] of users; None of requests"""


class PooledFields(Fields):
    """Fields of the levels and, column by column, of the histories: a history's column is a multi-valued feature, the mean over the
    events that the request sees; one field per column of the global part and one per column of the real-time part.

    In this order: user, context, global history, real-time history, item, cross. Numbers make no field.
    """

    def __init__(self, spec: InputSpec, settings: ModelSettings) -> None:
        super().__init__(spec, settings, numbers=False)
        self.spec = spec
        self.columns = event_columns_count(spec)

    @property
    def count(self) -> int:
        """F: fields of a candidate with its request and its user."""
        return self.user_count + self.context_count + 2 * self.columns + self.candidate_count

    def of_users(self, inputs: Inputs) -> PooledState:
        """The users' fields and the events' columns."""
        events_ED = event_columns(inputs, self.spec, self.size)
        return PooledState(fields=self.user(inputs), numbers=self.user_numbers(inputs), events_ED=events_ED)

    def of_requests(self, state: PooledState, inputs: Inputs) -> PooledState:
        """The requests' fields, pooled histories among them."""
        assert state.events_ED is not None, "expected the state of users"
        of_user, visible = inputs.batch.user_index, inputs.batch.visible
        means = visible_means(state.events_ED, visible) if self.columns else ()
        histories = [mean.view(-1, self.columns, self.size) for mean in means]
        fields = [state.fields.index_select(0, of_user), self.context(inputs), *histories]
        numbers = [state.numbers.index_select(0, of_user), self.context_numbers(inputs)]
        return PooledState(fields=torch.cat(fields, 1), numbers=torch.cat(numbers, 1), events_ED=None)

    def of_candidates(self, state: PooledState, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(fields [N, F, d], numbers [N, K]) of every candidate with its request's and its user's."""
        of_request = inputs.batch.request_index
        fields_NFd = torch.cat([state.fields.index_select(0, of_request), self.candidate(inputs)], 1)
        return fields_NFd, torch.cat([state.numbers.index_select(0, of_request), self.candidate_numbers(inputs)], 1)


class PooledRanker(Ranker):
    """A rival that reads pooled fields. A subclass says how a candidate's fields interact, and what the towers take from that."""

    def __init__(self, spec: InputSpec, settings: ModelSettings) -> None:
        super().__init__(spec, settings)
        self.fields = PooledFields(spec, settings)

    def make_heads(self, pooled: int) -> Heads:
        """The towers above ``pooled`` inputs."""
        return Heads(self.spec, pooled, self.settings.tower_hidden, self.settings.dropout)

    @abstractmethod
    def interact(self, fields_NFd: Tensor, numbers_NK: Tensor) -> Tensor:
        """What the towers read, [N, P]."""

    def encode_user(self, inputs: Inputs) -> PooledState:
        """The users' fields and the events' columns."""
        return self.fields.of_users(inputs)

    def encode_request(self, state: PooledState, inputs: Inputs) -> PooledState:
        """The requests' fields, pooled histories among them."""
        return self.fields.of_requests(state, inputs)

    def score(self, state: PooledState, inputs: Inputs) -> Tensor:
        """Logits [N, T]."""
        logits_NT: Tensor = self.heads(self.interact(*self.fields.of_candidates(state, inputs)), inputs.batch.bias)
        return logits_NT
