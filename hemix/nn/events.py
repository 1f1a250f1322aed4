"""Events to vectors: an item part, computed once per distinct item row, and a part per event field.

One linear map of [item columns ; fields], computed as a sum of partial products. It is linear on
purpose: an event's vector does not depend on the request, and an age part can be split off exactly.
Row 0 of the result is the null event that every history carries; event e is row e + 1.

Letters: E events, I distinct item rows, D token width, W width of a level's vectors, d of a table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.data.spec import TIMELESS_MS, InputSpec
from hemix.nn.init import WeightInit
from hemix.nn.inputs import Inputs
from hemix.nn.layers import BlockLinear, summed_rows

__all__ = ["EventEncoder"]


class EventEncoder(nn.Module):
    """Vectors of the null event and of all events of a batch."""

    def __init__(self, spec: InputSpec, embedding_size: int, token_width: int) -> None:
        """Make the map.

        Args:
            spec: Which columns events have.
            embedding_size: d, the width of a table.
            token_width: D, the width of an event's vector.
        """
        super().__init__()
        self.columns = spec.event_item_columns
        self.size = embedding_size
        fields = {f"field_{i}": self.size for i in range(len(spec.event.tables))}
        self.project = BlockLinear({"item": len(self.columns) * self.size, **fields}, token_width)
        self.null = nn.Parameter(torch.empty(token_width))
        self.timeless = nn.Parameter(torch.empty(token_width))

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw the null event and what a timeless event has more, like embeddings."""
        init.normal(self.null, init.embedding_std)
        init.normal(self.timeless, init.embedding_std)

    def forward(self, inputs: Inputs) -> Tensor:
        """[1 + E, D]: the null event, then the events."""
        assert inputs.item_IW is not None and inputs.event_fields is not None
        batch, traced = inputs.batch, inputs.padded is not None
        parts = [self._with_null(self.items(inputs.item_IW), batch.event_item, self.null, traced)]
        nothing = torch.zeros_like(self.null)
        timeless = torch.stack([nothing, self.timeless])
        small = [
            self._with_null(timeless, (batch.event_time_ms == TIMELESS_MS).long(), nothing, traced)
        ]
        for i, field in enumerate(inputs.event_fields):
            projected = self.project.project_part(f"field_{i}", field.values_Vd)
            assert projected is not None
            small.append(self._with_null(projected, field.index_E, nothing, traced))
        small.sort(key=lambda part: part[0].shape[0])
        return summed_rows(parts + small, merge=not traced)

    def items(self, item_IW: Tensor) -> Tensor:
        """[I, D]: what of an event's vector is its item's, the bias included."""
        projected = self.project.project_part("item", self._event_columns(item_IW))
        return (
            self.project.bias.expand(item_IW.shape[0], -1)
            if projected is None
            else projected + self.project.bias
        )

    def candidates(self, inputs: Inputs) -> Tensor:
        """[N, D]: every candidate as an event, without action and fields."""
        assert inputs.item_IW is not None, "score needs the stage candidate"
        return self.items(inputs.item_IW.index_select(0, inputs.batch.item_index))

    @staticmethod
    def _with_null(
        rows: Tensor, index: Tensor, null: Tensor, traced: bool
    ) -> tuple[Tensor, Tensor]:
        """The same gather with the null event's row in front.

        ``traced``: the null's row is the first, for a count of rows would become a constant of a
        graph.
        """
        null_1D = null.to(rows.dtype).unsqueeze(0)
        if traced:
            return torch.cat([null_1D, rows]), F.pad(index + 1, (1, 0))
        return torch.cat([rows, null_1D]), F.pad(index, (1, 0), value=rows.shape[0])

    def _event_columns(self, item_IW: Tensor) -> Tensor:
        """The item columns that events carry."""
        if self.columns == tuple(range(len(self.columns))):
            return item_IW[:, : len(self.columns) * self.size]
        return torch.cat([item_IW[:, c * self.size : (c + 1) * self.size] for c in self.columns], 1)
