"""Kept user states: joined, extended, and refused where a field says nothing of its rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from hemix.nn.states import PER_EVENT, extend_state, join_states


@dataclass(frozen=True, kw_only=True)
class Inner:
    ages_E: Tensor | None = field(metadata=PER_EVENT)


@dataclass(frozen=True, kw_only=True)
class State:
    user_RD: Tensor
    events_E: Tensor = field(metadata=PER_EVENT)
    inner: Inner


def state(user: float, events: list[float], ages: bool = True) -> State:
    events_E = torch.tensor([0.0, *events])
    return State(
        user_RD=torch.tensor([[user]]),
        events_E=events_E,
        inner=Inner(ages_E=-events_E if ages else None),
    )


def test_joined_states_have_one_null_event() -> None:
    joined = join_states([state(1.0, [11, 12]), state(2.0, [21]), state(3.0, [])])
    assert joined.user_RD.tolist() == [[1], [2], [3]]
    assert joined.events_E.tolist() == [0, 11, 12, 21]
    assert joined.inner.ages_E.tolist() == [0, -11, -12, -21]


def test_extended_state_has_the_events_in_the_order_given() -> None:
    order = torch.tensor([1, 3, 2])  # of the events 11, 12, 31, 32
    extended = extend_state(state(1.0, [11, 12]), state(1.0, [31, 32]), order)
    assert extended.user_RD.tolist() == [[1]]
    assert extended.events_E.tolist() == [0, 12, 32, 31]
    assert extended.inner.ages_E.tolist() == [0, -12, -32, -31]


def test_a_missing_tensor_stays_missing() -> None:
    states = [state(1.0, [11], ages=False), state(2.0, [21], ages=False)]
    assert join_states(states).inner.ages_E is None
    assert extend_state(*states, torch.tensor([0, 1])).inner.ages_E is None


def test_event_rows_without_metadata_are_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Unmarked:
        events_E: Tensor

    old, new = Unmarked(events_E=torch.zeros(3)), Unmarked(events_E=torch.zeros(2))
    with pytest.raises(ValueError) as caught:
        extend_state(old, new, torch.tensor([0, 1, 2]))
    assert "events_E" in str(caught.value)
