"""Users' states that are kept: several joined to one, one extended by new events.

A state is None, a tensor with a row per user, or a dataclass of states. A field of a dataclass with
the metadata :data:`PER_EVENT` is a tensor with a row per event, or None. Row 0 is the null event's,
row e + 1 is event e's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["PER_EVENT", "extend_state", "join_states"]

PER_EVENT: Mapping[str, str] = {"rows": "events"}
"""Metadata of a dataclass field: ``events_ED: Tensor = field(metadata=PER_EVENT)``."""


def join_states(states: Sequence[Any]) -> Any:
    """Return several users' states as one: users in their order, one null event, their events."""
    return states[0] if len(states) == 1 else _joined(states)


def extend_state(state: Any, new: Any, order: Tensor) -> Any:
    """Return one user's state with new events.

    Args:
        state: The kept state.
        new: The state of the new events.
        order: int64 [E], the events to keep, by time: positions among those of ``state`` and then
            those of ``new``.

    Raises:
        ValueError: A tensor of the state has neither one row nor the metadata ``PER_EVENT``.
    """
    return _extended(state, new, torch.cat([order.new_zeros(1), order + 1]))


def _joined(states: Sequence[Any]) -> Any:
    first = states[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    fields = {}
    for field in dataclasses.fields(first):
        values = [getattr(state, field.name) for state in states]
        if _is_per_event(field) and values[0] is not None:
            fields[field.name] = torch.cat([values[0], *(value[1:] for value in values[1:])])
        else:
            fields[field.name] = _joined(values)
    return type(first)(**fields)


def _extended(state: Any, new: Any, rows: Tensor, name: str = "state") -> Any:
    if state is None:
        return None
    if isinstance(state, Tensor):
        if state.shape[0] != 1:
            raise ValueError(
                f"{name}: expected one row, of the one user, got {state.shape[0]}; a tensor with a "
                "row per event is a field with the metadata PER_EVENT"
            )
        return state
    fields = {}
    for field in dataclasses.fields(state):
        value, more = getattr(state, field.name), getattr(new, field.name)
        if _is_per_event(field) and value is not None:
            fields[field.name] = torch.cat([value, more[1:]]).index_select(0, rows)
        else:
            fields[field.name] = _extended(value, more, rows, field.name)
    return type(state)(**fields)


def _is_per_event(field: dataclasses.Field[Any]) -> bool:
    return field.metadata.get("rows") == PER_EVENT["rows"]
