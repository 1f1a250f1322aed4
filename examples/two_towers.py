"""Add your own model: the product of a user's and an item's vector.

    hemix train --import examples/two_towers.py --model two_towers --data DATA --out RUN
    hemix evaluate RUN --data DATA --import examples/two_towers.py

Letters: R users, Q requests, N candidates, h width of both vectors.
"""

from __future__ import annotations

from torch import Tensor, nn

from hemix import register_model
from hemix.config import Count
from hemix.data.spec import InputSpec
from hemix.models import NeuralConfig, Ranker
from hemix.nn.heads import Heads
from hemix.nn.inputs import Inputs, level_width


class TwoTowersConfig(NeuralConfig):
    """Settings: ``model.width``, and those of every neural model."""

    width: Count = 16
    """h."""


@register_model("two_towers")
class TwoTowers(Ranker):
    """Multiply a user's vector, computed once per user, with an item's."""

    Config = TwoTowersConfig
    config: TwoTowersConfig

    def __init__(self, spec: InputSpec, config: TwoTowersConfig) -> None:
        super().__init__(spec, config)
        size, width = config.embedding_size, config.width
        self.user = nn.Linear(level_width(spec.user, size), width)
        self.item = nn.Linear(level_width(spec.item, size), width)
        self.heads = Heads(spec, width, width, dropout=0.0)

    def encode_user(self, inputs: Inputs) -> Tensor:
        """[R, h]"""
        assert inputs.user_RW is not None
        vectors_Rh: Tensor = self.user(inputs.user_RW)
        return vectors_Rh

    def encode_request(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return the user vector of every request, [Q, h].

        Args:
            state: User vectors [R, h].
            inputs: Inputs with the stage ``request``.
        """
        return state.index_select(0, inputs.batch.user_index)

    def score(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The requests' user vectors [Q, h].
            inputs: Inputs with the stage ``candidate``.
        """
        assert inputs.item_IW is not None
        batch = inputs.batch
        items_Nh = self.item(inputs.item_IW).index_select(0, batch.item_index)
        users_Nh = state.index_select(0, batch.request_index)
        logits_NT: Tensor = self.heads(users_Nh * items_Nh, batch.bias)
        return logits_NT
