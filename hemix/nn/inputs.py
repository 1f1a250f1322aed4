"""What a model reads: a batch, and the vectors of its levels out of the embedding tables.

Letters: R users, Q requests, N candidates, E events, I distinct item rows, V distinct values of an
event field. W is the width of a level's vectors, d the width of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.devices import to_device
from hemix.data.spec import InputSpec, LevelSpec
from hemix.nn.embedding import EmbeddingTables, LookUp, distinct_rows
from hemix.nn.histories import Layout, RaggedLayout

__all__ = ["STAGES", "EventField", "Inputs", "embed", "level_width", "level_widths"]

STAGES = ("user", "request", "candidate")


@dataclass(frozen=True, kw_only=True)
class EventField:
    """One field of the events: vectors of its distinct values, and which one each event has."""

    values_Vd: Tensor
    index_E: Tensor


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A batch and the vectors of the levels that were embedded (None: not asked for)."""

    batch: RequestBatch
    user_RW: Tensor | None = None
    event_fields: tuple[EventField, ...] | None = None
    item_IW: Tensor | None = None
    context_QW: Tensor | None = None
    cross_NW: Tensor | None = None
    padded: Layout | None = None
    """Where events and candidates lie, where that is not as in the batch"""

    def select_candidates(self, first: int, last: int) -> Inputs:
        """Return the candidates [first, last) of a batch in the CPU's memory, as views.

        Args:
            first: The first candidate.
            last: The position behind the last candidate.
        """
        assert self.batch.cpu_copy is None, "lies on a device"
        batch, items = self.batch.select_candidates(first, last)
        return replace(
            self,
            batch=batch,
            item_IW=None if self.item_IW is None else self.item_IW[items],
            cross_NW=None if self.cross_NW is None else self.cross_NW[first:last],
        )

    @property
    def layout(self) -> Layout:
        """Where events and candidates lie."""
        return self.padded or RaggedLayout(self.batch)


def level_width(level: LevelSpec, embedding_size: int) -> int:
    """Return W, the width of a level's vectors.

    Ids come first, then the multi-valued features, then the numbers.

    Args:
        level: The columns of the level.
        embedding_size: d, the width of an embedding table.
    """
    return (len(level.tables) + len(level.jagged_tables)) * embedding_size + level.numbers


def level_widths(spec: InputSpec, embedding_size: int) -> dict[str, int]:
    """Return W of the stages user, context, item and cross.

    Args:
        spec: The columns of the levels.
        embedding_size: d, the width of an embedding table.
    """
    levels = {"user": spec.user, "context": spec.context, "item": spec.item, "cross": spec.cross}
    return {name: level_width(level, embedding_size) for name, level in levels.items()}


def embed(
    tables: EmbeddingTables, spec: InputSpec, batch: RequestBatch, stages: Sequence[str] = STAGES
) -> Inputs:
    """Look up the vectors of several levels in one go.

    Args:
        tables: The embedding tables.
        spec: Which columns every level has, and the table of each.
        batch: The batch, on the device of the tables.
        stages: Some of ``user``, ``request`` and ``candidate``.

    Returns:
        The batch with the vectors of these levels.
    """
    look_ups, fields = _LevelLookUps(), list[tuple[int, Tensor]]()
    cpu_batch, device = batch.cpu_batch, batch.request_index.device
    if "user" in stages:
        look_ups.add_columns("user", spec.user, cpu_batch.users, batch.users.numbers)
        for table, ids in zip(spec.event.tables, cpu_batch.event_ids.unbind(1), strict=True):
            distinct, index = distinct_rows(ids, spec.tables[table])
            look_up = LookUp(tables=(table,), ids=distinct.unsqueeze(1))
            fields.append((look_ups.add(look_up), to_device(index, device)))
    if "user" in stages or "candidate" in stages:
        look_ups.add_columns("item", spec.item, cpu_batch.items, batch.items.numbers)
    if "request" in stages:
        look_ups.add_columns("context", spec.context, cpu_batch.context, batch.context.numbers)
    if "candidate" in stages:
        look_ups.add_columns("cross", spec.cross, cpu_batch.cross, batch.cross.numbers)
    vectors = tables.look_up(look_ups.look_ups)
    event_fields = tuple(EventField(values_Vd=vectors[at], index_E=index) for at, index in fields)
    return Inputs(
        batch=batch,
        user_RW=look_ups.collect("user", vectors),
        event_fields=event_fields if "user" in stages else None,
        item_IW=look_ups.collect("item", vectors),
        context_QW=look_ups.collect("context", vectors),
        cross_NW=look_ups.collect("cross", vectors),
    )


class _LevelLookUps:
    """The look-ups of a step, and which of them make up which level."""

    def __init__(self) -> None:
        self.look_ups: list[LookUp] = []
        self._levels: dict[str, tuple[list[int], Tensor]] = {}

    def add(self, look_up: LookUp) -> int:
        self.look_ups.append(look_up)
        return len(self.look_ups) - 1

    def add_columns(self, name: str, level: LevelSpec, columns: Columns, numbers: Tensor) -> None:
        """Add the look-ups of a level.

        Args:
            name: The level.
            level: Its tables.
            columns: Its ids and jagged ids, in the CPU's memory.
            numbers: [rows, m], on the model's device.
        """
        positions = [self.add(LookUp(tables=level.tables, ids=columns.ids))] if level.tables else []
        for table, jagged in zip(level.jagged_tables, columns.jagged, strict=True):
            look_up = LookUp(tables=(table,), ids=jagged.values, offsets=jagged.offsets)
            positions.append(self.add(look_up))
        self._levels[name] = (positions, numbers)

    def collect(self, name: str, vectors: list[Tensor]) -> Tensor | None:
        """Return the vectors [rows, W] of a level; None for a level that was not added.

        Args:
            name: The level.
            vectors: The vectors of all look-ups, in the order of :attr:`look_ups`.
        """
        if name not in self._levels:
            return None
        positions, numbers = self._levels[name]
        columns = [vectors[position] for position in positions]
        if numbers.shape[1] or not columns:
            dtype = columns[0].dtype if columns else torch.get_default_dtype()
            columns.append(numbers.to(dtype))
        return columns[0] if len(columns) == 1 else torch.cat(columns, 1)
