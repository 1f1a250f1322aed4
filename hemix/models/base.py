"""What every neural ranker looks like from outside: embed, encode the user, encode the request, score.

``embed`` reads the tables once for all levels that are asked for; after it no model touches an id. A server keeps what
``encode_user`` returns and calls the other two with later batches, whose cuts point into the kept events, so a user state
depends on nothing of the request. Kept states of several users become one by :meth:`Ranker.join_users`.

Letters: N candidates, E events, T tasks.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hemix.config import ModelSettings
from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec
from hemix.nn import heads
from hemix.nn.embedding import Tables
from hemix.nn.heads import Heads
from hemix.nn.inputs import LEVELS, Inputs, embed

__all__ = ["Ranker"]


class Ranker(nn.Module, ABC):
    """A model that scores candidates. Its user and request states are its own: what one method returns, the next takes. A user state is
    a tensor by user or a dataclass of such, whose ``by_event`` names the tensors by event, row 0 of which is the null event's."""

    heads: Heads

    def __init__(self, spec: InputSpec, settings: ModelSettings) -> None:
        super().__init__()
        self.spec = spec
        self.settings = settings
        self.tables = Tables(spec.tables, settings.embedding_size)

    @abstractmethod
    def encode_user(self, inputs: Inputs) -> Any:
        """What depends on the users and their events alone. Needs the level ``user``."""

    @abstractmethod
    def encode_request(self, state: Any, inputs: Inputs) -> Any:
        """What depends on the requests, not on the candidates. Needs the level ``request``."""

    @abstractmethod
    def score(self, state: Any, inputs: Inputs) -> Tensor:
        """Logits [N, T] (of a task with ``given``: conditional on it). Needs the level ``candidate``."""

    def join_users(self, states: Sequence[Any]) -> Any:
        """Kept states of several users as one: users, and events behind the one null event, in the order of the states."""
        return states[0] if len(states) == 1 else _joined(states)

    def extend_user(self, state: Any, new: Any, order: Tensor) -> Any:
        """The kept state of one user with new events of theirs, whose state is ``new``: ``order`` int64 [E] are the events to keep, by
        time, as positions among those of ``state`` and then those of ``new``."""
        rows = torch.cat([order.new_zeros(1), order + 1])
        return _extended(state, new, rows)

    def attention(self, state: Any, inputs: Inputs, most: int, also: int | None = None) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002
        """(positions of events int64 [N, most], -1 for none; weights [N, most], falling) of the events that drew the candidates'
        attention most, for a request state of few candidates. ``also``: the position of an event that is told in any case, in a column
        more where it is not among them. None: the model weighs no events by candidate."""
        return None

    def forward(self, batch: RequestBatch) -> Tensor:
        """Logits [N, T] of a whole batch."""
        inputs = self.embed(batch)
        user = self.encode_user(inputs)
        request = self.encode_request(user, inputs)
        return self.score(request, inputs)

    def loss(self, logits_NT: Tensor, batch: RequestBatch) -> Tensor:
        """The training loss of a batch with labels, a scalar."""
        assert batch.labels is not None and batch.weights is not None, "the loss needs a batch with labels"
        return heads.loss(logits_NT, batch.labels, batch.weights, self.spec, self.settings.funnel, batch.loss_weight)

    def loss_weight(self, batch: RequestBatch) -> Tensor:
        """[T]: what the loss of a batch with labels is divided by."""
        assert batch.labels is not None and batch.weights is not None, "the loss needs a batch with labels"
        return heads.loss_sums(torch.zeros_like(batch.labels), batch.labels, batch.weights, self.spec, self.settings.funnel)[1]

    def loss_sums(self, logits_NT: Tensor, batch: RequestBatch) -> tuple[Tensor, Tensor]:
        """(summed loss [T], weight [T]) of a batch that has labels: what adds up over the batches of a split."""
        assert batch.labels is not None and batch.weights is not None
        return heads.loss_sums(logits_NT, batch.labels, batch.weights, self.spec, self.settings.funnel)

    @torch.no_grad()
    def predict(self, batch: RequestBatch) -> dict[str, Tensor]:
        """Probabilities [N] of every task, and of every task given the one it depends on; negative sampling undone."""
        return heads.probabilities(self(batch), self.spec)

    def rescale(self, slope_T: Tensor, shift_T: Tensor) -> None:
        """Make every task's logit ``slope * logit + shift`` from now on; kept in the weights."""
        self.output_heads().rescale(slope_T, shift_T)

    def output_heads(self) -> Heads:
        """What gives the logits; a model whose ``heads`` lie elsewhere says where."""
        return self.heads

    def embed(self, batch: RequestBatch, levels: Sequence[str] = LEVELS) -> Inputs:
        """Look up the vectors of ``levels`` (of ``user``, ``request``, ``candidate``) in one go."""
        return embed(self.tables, self.spec, batch, levels)

    def compilable(self) -> Sequence[nn.Module]:
        """The parts that ``torch.compile`` may take over: dense tensors of fixed rank in, the same out."""
        return ()

    def take_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for weights of these shapes, by name: for a model of which only training knows how large it is."""

    def named_dense_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter but the embedding tables, by name."""
        return ((name, p) for name, p in self.named_parameters() if name != "tables.weight")

    def dense_parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter but the embedding tables."""
        return (p for _, p in self.named_dense_parameters())


def _joined(states: Sequence[Any]) -> Any:
    first = states[0]
    if first is None or isinstance(first, Tensor):
        return None if first is None else torch.cat(list(states))
    parts = {}
    for field in dataclasses.fields(first):
        values = [getattr(state, field.name) for state in states]
        by_event = field.name in first.by_event and values[0] is not None
        parts[field.name] = torch.cat([values[0], *(v[1:] for v in values[1:])]) if by_event else _joined(values)
    return type(first)(**parts)


def _extended(state: Any, new: Any, rows: Tensor) -> Any:
    if state is None or isinstance(state, Tensor):
        return state
    parts = {}
    for field in dataclasses.fields(state):
        value, more = getattr(state, field.name), getattr(new, field.name)
        by_event = field.name in state.by_event and value is not None
        parts[field.name] = torch.cat([value, more[1:]]).index_select(0, rows) if by_event else _extended(value, more, rows)
    return type(state)(**parts)
