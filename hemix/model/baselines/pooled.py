"""A base for the rivals that read histories as pooled fields, and the layers that those share.

Knows nothing of how fields interact.

Letters: N candidates, F fields, d width of a table, K numbers, P pooled width.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from hemix.config import ModelSettings
from hemix.data.spec import InputSpec
from hemix.model.heads import Heads
from hemix.model.pooled import PooledFields, PooledState
from hemix.model.ranker import Inputs, Ranker

__all__ = ["Perceptron", "PooledRanker", "hidden_width"]

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
