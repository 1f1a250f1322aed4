"""Users' states that are kept: several joined to one, one extended by new events.

A state is None, a tensor by user, or a dataclass of such, whose ``by_event`` names its tensors by
event. Row 0 of a tensor by event is the null event's, row e + 1 event e's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["extend_state", "join_states"]


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
        if field.name in first.by_event and values[0] is not None:
            fields[field.name] = torch.cat([values[0], *(value[1:] for value in values[1:])])
        else:
            fields[field.name] = _joined(values)
    return type(first)(**fields)


def _extended(state: Any, new: Any, rows: Tensor) -> Any:
    if state is None or isinstance(state, Tensor):
        return state
    fields = {}
    for field in dataclasses.fields(state):
        value, more = getattr(state, field.name), getattr(new, field.name)
        if field.name in state.by_event and value is not None:
            fields[field.name] = torch.cat([value, more[1:]]).index_select(0, rows)
        else:
            fields[field.name] = _extended(value, more, rows)
    return type(state)(**fields)
