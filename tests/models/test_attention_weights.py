"""The weights that explain a ranking are those with which it was made."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from hemix.data.batch import RequestBatch
from hemix.models import build_model
from hemix.models.hemix import HeMix, RequestState
from hemix.nn.history_state import DynamicQueries
from hemix.nn.inputs import Inputs
from hemix.nn.slots import HostIndex
from tests.batches import make_batch, make_config, make_spec

SPEC = make_spec()
BATCH = make_batch(SPEC, users=4, candidates=3)


def prepared(
    cached: bool = True, batch: RequestBatch = BATCH, **changes: object
) -> tuple[HeMix, RequestState, Inputs, torch.Tensor, torch.Tensor]:
    """A model, a request state, its inputs, event vectors [1 + E, D] and their times."""
    settings = make_config(**{"token_width": 8, "attention_heads": 1, "mix_heads": 2, **changes})
    model = build_model(SPEC, settings, seed=1)
    assert isinstance(model, HeMix)
    model.eval()
    with torch.no_grad():
        for parameter in model.dense_parameters():
            parameter += 0.3 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(2)
            )
        everything = model.embed(batch)
        user = model.encode_user(everything)
        if cached:
            user = model.keep_user(user)
        return (
            model,
            model.encode_request(user, everything),
            everything,
            user.events_ED,
            user.event_time_ms,
        )


@pytest.mark.parametrize("age", ["bias", "rotary", "none"])
@pytest.mark.parametrize("cached", [True, False])
def test_the_weights_sum_the_values_to_the_queries_results(age: str, cached: bool) -> None:
    """With one head and one query: interest = output(weights . values + bias), values by the
    layer's own matrix.
    """
    model, state, _, events_ED, time_ms = prepared(
        cached, time_encoding=age, ns_tokens_global=1, ns_tokens_realtime=1
    )
    queries = DynamicQueries(
        torch.randn(BATCH.candidates_count, 1, 8, generator=torch.Generator().manual_seed(3))
    )
    for interest, history in ((model.global_, state.global_), (model.realtime, state.realtime)):
        assert interest is not None and history is not None
        with torch.no_grad():
            weights = interest.weights(
                history, queries, HostIndex.of_candidates(BATCH), BATCH.event_item.shape[0]
            )
            values = interest.keys_values(events_ED, time_ms)[:, 8:]
            expected = interest.output(weights @ values)
            read = interest.dynamic(history, queries, HostIndex.of_candidates(BATCH))[:, 0]
        torch.testing.assert_close(expected, read, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("age", ["bias", "embedding"])
def test_weights_lie_within_the_history_ranges_and_sum_to_one(age: str) -> None:
    model, state, inputs, *_ = prepared(age=age, attention_heads=2)
    for interest, history, columns in (
        (model.global_, state.global_, (0, 1)),
        (model.realtime, state.realtime, (1, 2)),
    ):
        assert interest is not None and history is not None
        queries = DynamicQueries(torch.randn(BATCH.candidates_count, interest.dynamic_count, 8))
        with torch.no_grad():
            weights = interest.weights(
                history, queries, HostIndex.of_candidates(BATCH), BATCH.event_item.shape[0]
            )
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
        for n, row in enumerate(weights):
            first, last = BATCH.history_ranges[BATCH.request_index[n], list(columns)].tolist()
            assert set(row[1:].nonzero().flatten().tolist()) == set(range(first, last))

    with torch.no_grad():
        top = model.event_weights(state, inputs, 5)
    assert top is not None
    positions, top_weights = top
    assert positions.shape == top_weights.shape == (BATCH.candidates_count, 5)
    assert bool((top_weights[:, :-1] >= top_weights[:, 1:]).all()) and bool(
        (top_weights.sum(1) <= 1 + 1e-6).all()
    )
    for n, (row_positions, row) in enumerate(
        zip(positions.tolist(), top_weights.tolist(), strict=True)
    ):
        first, _, last = BATCH.history_ranges[BATCH.request_index[n]].tolist()
        seen = [p for p in row_positions if p >= 0]
        assert len(seen) == min(5, last - first) and all(first <= p < last for p in seen)
        assert all(
            weight == 0 for position, weight in zip(row_positions, row, strict=True) if position < 0
        )


def test_without_dynamic_queries_nothing_is_explained() -> None:
    model, state, inputs, *_ = prepared(dynamic_queries=False)
    assert model.event_weights(state, inputs, 5) is None


def test_without_one_history_the_weights_come_from_the_other() -> None:
    model, state, inputs, *_ = prepared(use_realtime=False)
    with torch.no_grad():
        top = model.event_weights(state, inputs, 5)
    assert top is not None
    begin, middle, _ = BATCH.history_ranges[BATCH.request_index].unbind(1)
    positions = top[0]
    assert bool(
        (
            (positions >= begin.unsqueeze(1)) & (positions < middle.unsqueeze(1)) | (positions < 0)
        ).all()
    )


@pytest.mark.parametrize("cached", [True, False])
def test_a_chunked_batch_has_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    """Lengths from 0 to 300 make several groups, and most chunks have no candidate in some."""
    batch = make_batch(SPEC, users=24, requests_per_user=1, candidates=1, history=300)
    model, state, inputs, *_ = prepared(cached, batch=batch)
    with torch.no_grad():
        whole = model.event_weights(state, inputs, 3)
        monkeypatch.setattr("hemix.nn.event_weights._WEIGHTS_AT_ONCE", 1)
        chunked = model.event_weights(state, inputs, 3)
    assert whole is not None and chunked is not None
    torch.testing.assert_close(whole[1], chunked[1])


def test_an_extra_event_is_always_reported_and_only_once() -> None:
    model, state, inputs, *_ = prepared()
    with torch.no_grad():
        all_of_them = model.event_weights(state, inputs, BATCH.event_item.shape[0])
        top = model.event_weights(state, inputs, 1, always_include=1)
    assert top is not None and all_of_them is not None
    for n, (positions, weights) in enumerate(zip(top[0].tolist(), top[1].tolist(), strict=True)):
        weight = dict(zip(all_of_them[0][n].tolist(), all_of_them[1][n].tolist(), strict=True))
        reported = {
            position: event_weight
            for position, event_weight in zip(positions, weights, strict=True)
            if position >= 0
        }
        wanted = {
            position for position in (all_of_them[0][n, 0].item(), 1) if weight.get(position, 0) > 0
        }
        assert reported == {position: pytest.approx(weight[position]) for position in wanted}


def test_a_candidate_finds_the_events_of_its_item() -> None:
    """Events of the candidate's item have its own key, so their cosine is 1. With no other query
    and a scale of 100 they draw all attention.
    """
    model = build_model(
        SPEC,
        make_config(
            token_width=8, mix_heads=2, qk_norm=True, candidate_query=True, time_encoding="none"
        ),
        seed=1,
    )
    assert isinstance(model, HeMix) and model.global_ is not None
    begin, middle, _ = BATCH.history_ranges[BATCH.request_index].unbind(1)
    has_events = begin < middle
    newest = (middle - 1).clamp(min=0)
    item_index = torch.where(has_events, BATCH.event_item[newest], BATCH.item_index)
    batch = dataclasses.replace(BATCH, item_index=item_index)
    with torch.no_grad():
        model.global_.query.weight.zero_()
        assert model.global_.log_scale is not None
        model.global_.log_scale.fill_(math.log(100))
        model.events.timeless.zero_()
        for name, block in model.events.project.blocks.items():
            if name != "item":
                block.zero_()
        inputs = model.embed(batch)
        state = model.encode_request(model.encode_user(inputs), inputs)
        queries, _ = model._dynamic_queries(model._ns_tokens(state, inputs), inputs)
        assert state.global_ is not None
        weights = model.global_.weights(
            state.global_, queries, HostIndex.of_candidates(batch), len(batch.event_item)
        )
    same = batch.event_item == item_index.unsqueeze(1)
    drawn = (weights[:, 1:] * same).sum(1)[has_events]
    assert len(drawn) > 10 and bool((drawn > 0.9).all())
