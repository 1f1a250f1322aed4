"""Features as fields: vectors of one width, for the columns of levels, events and pooled histories.

User fields are made once per user row, and item fields once per distinct item. Context fields and
pooled histories are made once per request. A candidate only gathers them.

Letters: R users, Q requests, N candidates, E events, F fields, d width of a table, c columns of an
event, m numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.data.spec import InputSpec, LevelSpec
from hemix.nn.inputs import Inputs

__all__ = ["Fields", "event_columns", "event_columns_count"]

_LEVELS = ("user", "context", "item", "cross")


class Fields(nn.Module):
    """Every id column and every multi-valued feature is a field, a vector of width d; so are a
    level's numbers, all together, by a
    linear map. In the order of the columns, the numbers last.

    With ``numbers=False`` numbers make no field; :meth:`user_numbers` and its sisters give them as
    they are.
    """

    def __init__(self, spec: InputSpec, embedding_size: int, *, numbers: bool = True) -> None:
        super().__init__()
        self.size = embedding_size
        self._levels: dict[str, LevelSpec] = {name: getattr(spec, name) for name in _LEVELS}
        self.numbers = nn.ModuleDict(
            {
                name: nn.Linear(level.numbers, self.size)
                for name, level in self._levels.items()
                if numbers and level.numbers
            }
        )

    @property
    def user_count(self) -> int:
        """Fields of a user."""
        return self._count("user")

    @property
    def context_count(self) -> int:
        """Fields of a request."""
        return self._count("context")

    @property
    def candidate_count(self) -> int:
        """Fields of a candidate: its item's, then the crosses."""
        return self._count("item") + self._count("cross")

    @property
    def numbers_count(self) -> int:
        """m: numbers of all levels together."""
        return sum(level.numbers for level in self._levels.values())

    def user(self, inputs: Inputs) -> Tensor:
        """[R, F, d]"""
        return self._fields("user", inputs.user_RW)

    def context(self, inputs: Inputs) -> Tensor:
        """[Q, F, d]"""
        return self._fields("context", inputs.context_QW)

    def candidate(self, inputs: Inputs) -> Tensor:
        """[N, F, d]"""
        item_IFd, cross_NFd = (
            self._fields("item", inputs.item_IW),
            self._fields("cross", inputs.cross_NW),
        )
        return torch.cat([item_IFd.index_select(0, inputs.batch.item_index), cross_NFd], 1)

    def user_numbers(self, inputs: Inputs) -> Tensor:
        """[R, m of the users]"""
        return self._split("user", inputs.user_RW)[1]

    def context_numbers(self, inputs: Inputs) -> Tensor:
        """[Q, m of the requests]"""
        return self._split("context", inputs.context_QW)[1]

    def candidate_numbers(self, inputs: Inputs) -> Tensor:
        """[N, m of the items and the crosses]"""
        item_Im, cross_Nm = (
            self._split("item", inputs.item_IW)[1],
            self._split("cross", inputs.cross_NW)[1],
        )
        return torch.cat([item_Im.index_select(0, inputs.batch.item_index), cross_Nm], 1)

    def _count(self, name: str) -> int:
        level = self._levels[name]
        return len(level.tables) + len(level.jagged_tables) + (name in self.numbers)

    def _split(self, name: str, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """A level's vectors and its numbers."""
        assert rows is not None, f"the level of the {name} columns was not embedded"
        numbers = self._levels[name].numbers
        vectors, values = torch.split(rows, [rows.shape[1] - numbers, numbers], 1)
        return vectors, values

    def _fields(self, name: str, rows: Tensor | None) -> Tensor:
        vectors, numbers = self._split(name, rows)
        if name in self.numbers:
            vectors = torch.cat([vectors, self.numbers[name](numbers).to(vectors.dtype)], 1)
        return vectors.reshape(vectors.shape[0], self._count(name), self.size)


# -- events --------------------------------------------------------------------------------------


def event_columns_count(spec: InputSpec) -> int:
    """c: the item columns that an event carries, and its own fields."""
    return len(spec.event_item_columns) + len(spec.event.tables)


def event_columns(inputs: Inputs, spec: InputSpec, size: int) -> Tensor:
    """Return the vectors of all columns of every event, [1 + E, c * d].

    Item columns come first. Row 0, the null event, is zero.

    Args:
        inputs: Inputs with the stage ``user``.
        spec: The columns of events.
        size: d.
    """
    assert inputs.item_IW is not None and inputs.event_fields is not None, (
        "events need the stage user"
    )
    parts = [inputs.item_IW[:, c * size : (c + 1) * size] for c in spec.event_item_columns]
    columns = [torch.cat(parts, 1).index_select(0, inputs.batch.event_item)] if parts else []
    columns += [field.values_Vd.index_select(0, field.index_E) for field in inputs.event_fields]
    if not columns:
        return inputs.item_IW.new_zeros(1 + inputs.batch.event_item.shape[0], 0)
    return F.pad(torch.cat(columns, 1), (0, 0, 1, 0))
