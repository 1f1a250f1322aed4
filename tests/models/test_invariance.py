"""What must not change a probability: more padding, the order of users, the split into batches,
events that nobody sees.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec
from hemix.models import Ranker
from hemix.nn.heads import probabilities
from tests.batches import (
    make_batch,
    make_config,
    make_spec,
    reorder_users,
    select_candidates,
    take_requests,
    without_events,
)
from tests.models.test_parity import SMALL, randomised
from tests.tolerances import INVARIANCE_PROBABILITY

AGES = pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])


def setting(age: str = "bias", **batch: Any) -> tuple[InputSpec, Ranker, RequestBatch]:
    spec = make_spec()
    return (
        spec,
        randomised(spec, make_config(**SMALL, time_encoding=age), torch.float32).eval(),
        make_batch(spec, **batch),
    )


def assert_same(spec: InputSpec, ours: Tensor, theirs: Tensor) -> None:
    for name, value in probabilities(ours, spec).items():
        torch.testing.assert_close(
            value, probabilities(theirs, spec)[name], **INVARIANCE_PROBABILITY
        )


@AGES
@torch.no_grad()
def test_invariance_to_events_outside_the_history_ranges(age: str) -> None:
    """Events before the global part and at or after the end may be anything."""
    spec, model, batch = setting(age)
    first = torch.full((batch.users_count,), 10**9).scatter_reduce(
        0, batch.user_index, batch.history_ranges[:, 0], "amin"
    )
    last = torch.zeros(batch.users_count, dtype=torch.int64).scatter_reduce(
        0, batch.user_index, batch.history_ranges[:, 2], "amax"
    )
    owner = torch.repeat_interleave(torch.arange(batch.users_count), batch.event_offsets.diff())
    position = torch.arange(batch.event_item.shape[0])
    unseen = (position < first[owner]) | (position >= last[owner])
    assert unseen.any()
    changed = dataclasses.replace(
        batch, event_item=torch.where(unseen, (batch.event_item + 7) % 40, batch.event_item)
    )
    assert_same(spec, model(batch), model(changed))


@AGES
@torch.no_grad()
def test_invariance_to_padding_by_a_longer_neighbour(age: str) -> None:
    """A user with 400 events beside the others changes how everyone is padded."""
    spec, model, long = setting(age, users=5, requests_per_user=2, history=400, realtime=50)
    longest = int(long.event_offsets.diff().argmax())
    others = (long.user_index != longest).nonzero().squeeze(1)
    of_others = torch.isin(long.request_index, others)
    assert_same(spec, model(long)[of_others], model(take_requests(long, others)))


@AGES
@torch.no_grad()
def test_invariance_to_the_order_of_users(age: str) -> None:
    spec, model, batch = setting(age)
    order = torch.randperm(batch.users_count, generator=torch.Generator().manual_seed(4))
    moved = reorder_users(batch, order)
    moved.validate(spec)
    assert_same(spec, model(batch), model(moved))


@AGES
@torch.no_grad()
def test_invariance_to_the_split_into_batches(age: str) -> None:
    spec, model, batch = setting(age)
    whole = model(batch)
    for request in range(batch.requests_count):
        alone = take_requests(batch, torch.tensor([request]))
        assert_same(spec, whole[batch.request_index == request], model(alone))


@AGES
@torch.no_grad()
def test_invariance_of_a_server_that_keeps_the_user_state(age: str) -> None:
    """encode_user once; later requests come without events, their cuts point into the kept
    state.
    """
    spec, model, batch = setting(age)
    user_state = model.keep_user(model.encode_user(model.embed(batch, stages=("user",))))
    for request in range(0, batch.requests_count, 3):
        later = without_events(take_requests(batch, torch.tensor([request])))
        inputs = model.embed(later, stages=("request", "candidate"))
        assert inputs.user_RW is None
        logits = model.score(model.encode_request(user_state, inputs), inputs)
        assert_same(spec, model(batch)[batch.request_index == request], logits)


@torch.no_grad()
def test_candidates_may_come_in_chunks() -> None:
    """One request state scores any candidates of its requests, also none."""
    spec, model, batch = setting()
    inputs = model.embed(batch)
    state = model.encode_request(model.encode_user(inputs), inputs)
    whole = model.score(state, inputs)
    for keep in (
        batch.request_index % 2 == 0,
        torch.zeros_like(batch.request_index, dtype=torch.bool),
    ):
        chunk = select_candidates(batch, keep)
        assert_same(
            spec, whole[keep], model.score(state, model.embed(chunk, stages=("candidate",)))
        )


@torch.no_grad()
def test_a_seen_event_does_change_the_scores() -> None:
    """The control of the tests above: what is inside the cuts matters, and so does its time."""
    _, model, batch = setting()
    before = model(batch)
    request = int((batch.history_ranges[:, 2] - batch.history_ranges[:, 0]).argmax())
    seen = int(batch.history_ranges[request, 0])
    item, time = batch.event_item.clone(), batch.event_time_ms.clone()
    item[seen] = (item[seen] + 1) % 40
    time[seen] = time[seen] - 50 * 3_600_000 if time[seen] > 0 else 1_760_000_000_000
    rows = batch.request_index == request
    for changed in (
        dataclasses.replace(batch, event_item=item),
        dataclasses.replace(batch, event_time_ms=time),
    ):
        difference = (model(changed) - before)[rows].abs().max()
        assert difference > 10 * INVARIANCE_PROBABILITY["atol"]
