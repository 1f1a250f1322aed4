"""The deep network above DIN's and SIM's interests: one multi-layer perceptron over all features
and the interests from the history.

Its first layer is linear in the concatenation. So a user's columns are multiplied once per user,
and the context's once per request.

Letters: R users, Q requests, N candidates, W width of a level's vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from hemix.data.spec import InputSpec
from hemix.nn.heads import Heads
from hemix.nn.inputs import Inputs, level_widths
from hemix.nn.layers import BlockLinear

__all__ = ["MLP", "DeepNetwork", "hidden_width"]

_HIDDEN_TOKENS = 16
"""Width of a wide hidden layer, in tokens: about as many dense parameters as HeMix has at a
size."""


def hidden_width(token_width: int) -> int:
    """Return the units of a wide hidden layer."""
    return _HIDDEN_TOKENS * token_width


class MLP(nn.Sequential):
    """Linear maps, each with ReLU and dropout: widths[0] -> widths[1] -> ..."""

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers)


class DeepNetwork(nn.Module):
    """Linear maps with PReLU, all equally wide, then the towers."""

    def __init__(
        self,
        spec: InputSpec,
        *,
        embedding_size: int,
        interests: Mapping[str, int],
        hidden: int,
        layers: int,
        tower_hidden: int,
        dropout: float = 0.0,
    ) -> None:
        """Make the layers.

        Args:
            spec: The columns of the levels, and the tasks.
            embedding_size: d, the width of a table.
            interests: Widths of what is read from the history, by name.
            hidden: Units of every layer.
            layers: How many.
            tower_hidden: Units of a tower's inner layer.
            dropout: After every layer, and in the towers.
        """
        super().__init__()
        self.first = BlockLinear({**level_widths(spec, embedding_size), **interests}, hidden)
        rest: list[nn.Module] = [nn.PReLU(hidden), nn.Dropout(dropout)]
        for _ in range(layers - 1):
            rest += [nn.Linear(hidden, hidden), nn.PReLU(hidden), nn.Dropout(dropout)]
        self.rest = nn.Sequential(*rest)
        self.heads = Heads(spec, hidden, tower_hidden, dropout)

    def project_user(self, inputs: Inputs) -> Tensor:
        """[R, hidden]: the user's summand of the first layer, and the bias."""
        assert inputs.user_RW is not None, "encode_user needs the stage user"
        projected = self.first.project_part("user", inputs.user_RW)
        return (
            self.first.bias.expand(inputs.user_RW.shape[0], -1)
            if projected is None
            else projected + self.first.bias
        )

    def project_request(self, user_RU: Tensor, inputs: Inputs) -> Tensor:
        """Return the first layer's product of user and context, [Q, hidden].

        Args:
            user_RU: The product of the user's columns.
            inputs: Inputs with the stage ``request``.
        """
        assert inputs.context_QW is not None, "encode_request needs the stage request"
        of_user, projected = (
            user_RU.index_select(0, inputs.batch.user_index),
            self.first.project_part("context", inputs.context_QW),
        )
        return of_user if projected is None else of_user + projected

    def forward(
        self, request_QU: Tensor, inputs: Inputs, interests: Mapping[str, Tensor]
    ) -> Tensor:
        """Return logits [N, T].

        Args:
            request_QU: From :meth:`project_request`.
            inputs: Inputs with the stage ``candidate``.
            interests: Interests [N, width] of every candidate, by name.
        """
        assert inputs.item_IW is not None and inputs.cross_NW is not None, (
            "score needs the stage candidate"
        )
        hidden_NU = request_QU.index_select(0, inputs.batch.request_index)
        item_NW = inputs.item_IW.index_select(0, inputs.batch.item_index)
        for name, columns in {"item": item_NW, "cross": inputs.cross_NW, **interests}.items():
            projected = self.first.project_part(name, columns)
            hidden_NU = hidden_NU if projected is None else hidden_NU + projected
        logits_NT: Tensor = self.heads(self.rest(hidden_NU), inputs.batch.bias)
        return logits_NT
