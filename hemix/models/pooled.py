"""A base for the models that read histories as pooled fields.

Letters: N candidates, F fields, d width of a table, m numbers, P pooled width.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from hemix.data.spec import InputSpec
from hemix.models.base import Ranker, SizedConfig
from hemix.nn.heads import Heads
from hemix.nn.inputs import Inputs
from hemix.nn.pooled import PooledFields, PooledState

__all__ = ["PooledRanker"]


class PooledRanker(Ranker):
    """A model that reads pooled fields. A subclass says how a candidate's fields interact, and what
    the towers take from that."""

    config: SizedConfig

    def __init__(self, spec: InputSpec, config: SizedConfig) -> None:
        super().__init__(spec, config)
        self.fields = PooledFields(spec, config.embedding_size)

    def make_heads(self, pooled: int) -> Heads:
        """The towers above ``pooled`` inputs."""
        return Heads(self.spec, pooled, self.config.tower_hidden, self.config.dropout)

    @abstractmethod
    def interact(self, fields_NFd: Tensor, numbers_Nm: Tensor) -> Tensor:
        """Return the towers' input, [N, P].

        Args:
            fields_NFd: Fields of every candidate, with those of its request and user.
            numbers_Nm: Standardised numbers of the same.
        """

    def encode_user(self, inputs: Inputs) -> PooledState:
        """The users' fields and the events' columns."""
        return self.fields.of_users(inputs)

    def encode_request(self, state: PooledState, inputs: Inputs) -> PooledState:
        """Return the requests' fields, pooled histories among them.

        Args:
            state: The users' fields and events.
            inputs: Inputs with the stage ``request``.
        """
        return self.fields.of_requests(state, inputs)

    def score(self, state: PooledState, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The requests' fields.
            inputs: Inputs with the stage ``candidate``.
        """
        logits_NT: Tensor = self.heads(
            self.interact(*self.fields.of_candidates(state, inputs)), inputs.batch.bias
        )
        return logits_NT
