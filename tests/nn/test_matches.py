"""Counts of matches: worked out by hand, exact at the edges of every window, and of what a request
sees alone.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.spec import FIRST, TIMELESS_MS, UNKNOWN, InputSpec, LevelSpec, Task
from hemix.models import build_model
from hemix.models.hemix import HeMix
from hemix.nn.histories import event_times
from hemix.nn.matches import ACTIONS_MAX, Matches
from tests.batches import make_batch, make_config, make_spec, smallest_spec
from tests.models.test_parity import SMALL

NOW_MS = 1_770_000_000_000
MINUTE_MS = 60_000
VIEW, ORDER = FIRST, FIRST + 1

SPEC = InputSpec(
    tables={"item": 9, "kind": 7, "action": FIRST + 2},
    user=LevelSpec(),
    context=LevelSpec(),
    item=LevelSpec(names=("item", "kind"), tables=("item", "kind")),
    cross=LevelSpec(),
    event=LevelSpec(names=("action",), tables=("action",)),
    event_item_columns=(0, 1),
    tasks=(Task(name="click"),),
    logit_shift=(0.0,),
)

ITEMS = ((2, 3), (4, 3), (5, 6), (UNKNOWN, 3))
EVENTS = (  # minutes ago (None: timeless), item row, action
    (None, 0, ORDER),
    (8 * 24 * 60, 1, VIEW),
    (7 * 24 * 60, 0, VIEW),
    (60, 2, VIEW),
    (15, 3, VIEW),
    (1, 1, ORDER),
)


def batch_of(
    events: tuple[tuple[float | None, int, int], ...] = EVENTS, realtime: int = 3
) -> RequestBatch:
    """One request of one user with all items as candidates; the last ``realtime`` events are of
    today.
    """
    E, N = len(events), len(ITEMS)
    none = Columns(ids=torch.zeros(1, 0, dtype=torch.int64), numbers=torch.zeros(1, 0))
    times = [TIMELESS_MS if ago is None else NOW_MS - int(ago * MINUTE_MS) for ago, _, _ in events]
    return RequestBatch(
        users=none,
        event_offsets=torch.tensor([0, E]),
        event_item=torch.tensor([item for _, item, _ in events], dtype=torch.int64),
        event_time_ms=torch.tensor(times, dtype=torch.int64),
        event_ids=torch.tensor([[action] for *_, action in events], dtype=torch.int64).view(E, 1),
        user_index=torch.zeros(1, dtype=torch.int64),
        request_time_ms=torch.tensor([NOW_MS]),
        context=none,
        history_ranges=torch.tensor([[0, E - realtime, E]]),
        request_index=torch.zeros(N, dtype=torch.int64),
        item_index=torch.arange(N),
        cross=Columns(ids=torch.zeros(N, 0, dtype=torch.int64), numbers=torch.zeros(N, 0)),
        bias=torch.zeros(N, dtype=torch.int64),
        items=Columns(ids=torch.tensor(ITEMS), numbers=torch.zeros(N, 0)),
    )


def counts(
    batch: RequestBatch, spec: InputSpec = SPEC, **options: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(events [Q, actions, windows], matches [N, columns, actions, windows]), whole numbers
    again.
    """
    matches = Matches(spec, **options)
    kept = matches.of_users(batch)
    state, of_requests = matches.of_requests(*matches.sorted_index(kept, event_times(batch), batch))
    of_candidates = matches.of_candidates(state, batch)
    assert of_requests.shape == (batch.requests_count, matches.request_count)
    assert of_candidates.shape == (batch.candidates_count, matches.candidate_count)
    windows = matches.request_count // matches.actions
    return (
        of_requests.expm1().round().view(-1, matches.actions, windows),
        of_candidates.expm1()
        .round()
        .view(batch.candidates_count, len(spec.event_item_columns), matches.actions, windows),
    )


def test_by_hand() -> None:
    """Windows: a quarter of an hour, an hour, a week, today, everything; an event at a window's
    very edge is in it.
    """
    seen, matching = counts(batch_of())
    assert seen[0].tolist() == [[1, 2, 3, 2, 4], [1, 1, 1, 1, 2]]  # views, orders
    item, kind = matching.unbind(1)
    assert item[0].tolist() == [
        [0, 0, 1, 0, 1],
        [0, 0, 0, 0, 1],
    ]  # a view a week ago, a timeless order
    assert item[1].tolist() == [[0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert item[2].tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert kind[0].tolist() == [[1, 1, 2, 1, 3], [1, 1, 1, 1, 2]]
    assert torch.equal(kind[0], kind[1]) and torch.equal(kind[0], kind[3])  # all of kind 3
    assert kind[2].tolist() == item[2].tolist()


def test_numbers_are_logarithms() -> None:
    batch = batch_of()
    matches = Matches(SPEC)
    state, numbers = matches.of_requests(
        *matches.sorted_index(matches.of_users(batch), event_times(batch), batch)
    )
    assert numbers[0, 4].item() == pytest.approx(math.log(5))
    assert matches.of_candidates(state, batch).dtype == numbers.dtype == torch.float32


def test_what_is_unknown_matches_nothing() -> None:
    item = counts(batch_of())[1][3, 0]
    assert (
        item.sum() == 0
    )  # the event of the unknown item is another unknown item, for all one knows


def test_a_moment_outside_a_window_is_outside() -> None:
    late = tuple((None if ago is None else ago + 1e-4, *rest) for ago, *rest in EVENTS)
    seen, _ = counts(batch_of(late))
    assert seen[0].tolist() == [[0, 1, 2, 2, 4], [1, 1, 1, 1, 2]]


def test_a_history_that_is_not_used_is_not_counted() -> None:
    both, _ = counts(batch_of())
    today, of_today = counts(batch_of(), use_global=False)
    before, of_before = counts(batch_of(), use_realtime=False)
    assert today[0, :, 4].tolist() == [2, 1] and before[0, :, 4].tolist() == [2, 1]
    assert torch.equal(today[..., 4] + before[..., 4], both[..., 4])
    assert before[..., 3].sum() == 0 and of_before[..., 3].sum() == 0
    assert torch.equal(
        of_today + of_before, counts(batch_of())[1].where(torch.tensor([1, 1, 1, 1, 1]) > 0, 0)
    )


def test_no_events_no_shared_columns_no_actions() -> None:
    seen, matching = counts(batch_of(events=(), realtime=0))
    assert seen.sum() == 0 and matching.sum() == 0
    bare = dataclasses.replace(
        SPEC, event_item_columns=(), event=LevelSpec(), tables={"item": 9, "kind": 7}
    )
    batch = batch_of()
    batch = dataclasses.replace(batch, event_ids=torch.zeros(len(EVENTS), 0, dtype=torch.int64))
    seen, matching = counts(batch, bare)
    assert seen[0].tolist() == [[2, 3, 4, 3, 6]] and matching.numel() == 0


def test_actions_beyond_the_counted_ones_are_counted_together() -> None:
    spec = dataclasses.replace(SPEC, tables={**SPEC.tables, "action": FIRST + ACTIONS_MAX + 5})
    events = tuple((1, 0, FIRST + action) for action in range(ACTIONS_MAX + 5))
    seen, _ = counts(batch_of(events, realtime=0), spec)
    assert seen[0, :, 0].tolist() == [1] * (ACTIONS_MAX - 1) + [6]


@pytest.mark.parametrize("spec", [make_spec(), smallest_spec()])
def test_of_several_users_and_requests_each_sees_its_own(spec: InputSpec) -> None:
    """Every request's numbers are those that it has alone."""
    batch = make_batch(spec)
    model = build_model(spec, make_config(**SMALL), 0)
    assert isinstance(model, HeMix) and model.matches is not None
    state, of_requests = model.matches.of_requests(
        *model.matches.sorted_index(model.matches.of_users(batch), event_times(batch), batch)
    )
    of_candidates = model.matches.of_candidates(state, batch)
    assert of_candidates.sum() > 0
    for request in range(batch.requests_count):
        own = batch.request_index == request
        alone = dataclasses.replace(
            batch,
            user_index=batch.user_index[request, None],
            request_time_ms=batch.request_time_ms[request, None],
            history_ranges=batch.history_ranges[request, None],
            request_index=torch.zeros(int(own.sum()), dtype=torch.int64),
            item_index=batch.item_index[own],
        )
        state, numbers = model.matches.of_requests(
            *model.matches.sorted_index(model.matches.of_users(alone), event_times(alone), alone)
        )
        assert torch.equal(numbers[0], of_requests[request])
        assert torch.equal(model.matches.of_candidates(state, alone), of_candidates[own])


def test_without_matches_there_are_no_columns_and_states_keep_nothing() -> None:
    spec, batch = make_spec(), make_batch(make_spec())
    model = build_model(spec, make_config(**SMALL, matches=False), 0)
    assert isinstance(model, HeMix) and not [
        name for name in model.state_dict() if "matches" in name
    ]
    inputs = model.embed(batch)
    user = model.encode_user(inputs)
    assert user.matches is None and model.encode_request(user, inputs).matches is None
