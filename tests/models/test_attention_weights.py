"""The weights that explain a ranking are those with which it was made."""

from __future__ import annotations

import pytest
import torch

from hemix.models import build_model
from hemix.models.hemix import HeMix, RequestState
from hemix.nn.inputs import Inputs
from hemix.nn.slots import HostIndex
from tests.batches import make_batch, make_config, make_spec

SPEC = make_spec()
BATCH = make_batch(SPEC, users=4, candidates=3)


def prepared(
    kept: bool = True, **changes: object
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
        everything = model.embed(BATCH)
        user = model.encode_user(model.embed(BATCH, ["user"]) if kept else everything)
        return (
            model,
            model.encode_request(user, everything),
            everything,
            user.events_ED,
            user.event_time_ms,
        )


@pytest.mark.parametrize("age", ["bias", "rotary", "none"])
@pytest.mark.parametrize("kept", [True, False])
def test_they_give_what_the_queries_found(age: str, kept: bool) -> None:
    """With one head and one query: interest = output(weights . values + bias), values by the
    layer's own matrix.
    """
    model, state, _, events_ED, time_ms = prepared(
        kept, time_encoding=age, ns_tokens_global=1, ns_tokens_realtime=1
    )
    queries = torch.randn(BATCH.candidates_count, 1, 8, generator=torch.Generator().manual_seed(3))
    for interest, history in ((model.global_, state.global_), (model.realtime, state.realtime)):
        assert interest is not None and history is not None
        with torch.no_grad():
            weights = interest.weights(
                history, queries, HostIndex.of_candidates(BATCH), BATCH.event_item.shape[0]
            )
            values = interest.keys_values(events_ED, time_ms)[:, 8:]
            expected = interest.output(weights @ values + interest.key_value.bias[8:])
            found = interest.dynamic(history, queries, HostIndex.of_candidates(BATCH))[:, 0]
        torch.testing.assert_close(expected, found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("age", ["bias", "embedding"])
def test_only_what_a_request_sees_has_weight_and_all_of_it_is_one(age: str) -> None:
    model, state, inputs, *_ = prepared(age=age, attention_heads=2)
    for interest, history, cuts in (
        (model.global_, state.global_, (0, 1)),
        (model.realtime, state.realtime, (1, 2)),
    ):
        assert interest is not None and history is not None
        queries = torch.randn(BATCH.candidates_count, interest.dynamic_count, 8)
        with torch.no_grad():
            weights = interest.weights(
                history, queries, HostIndex.of_candidates(BATCH), BATCH.event_item.shape[0]
            )
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
        for n, row in enumerate(weights):
            first, last = BATCH.history_ranges[BATCH.request_index[n], list(cuts)].tolist()
            assert set(row[1:].nonzero().flatten().tolist()) == set(range(first, last))

    with torch.no_grad():
        found = model.event_weights(state, inputs, 5)
    assert found is not None
    positions, shares = found
    assert positions.shape == shares.shape == (BATCH.candidates_count, 5)
    assert bool((shares[:, :-1] >= shares[:, 1:]).all()) and bool((shares.sum(1) <= 1 + 1e-6).all())
    for n, (places, row) in enumerate(zip(positions.tolist(), shares.tolist(), strict=True)):
        first, _, last = BATCH.history_ranges[BATCH.request_index[n]].tolist()
        seen = [p for p in places if p >= 0]
        assert len(seen) == min(5, last - first) and all(first <= p < last for p in seen)
        assert all(weight == 0 for place, weight in zip(places, row, strict=True) if place < 0)


def test_without_dynamic_queries_nothing_is_explained() -> None:
    model, state, inputs, *_ = prepared(dynamic_queries=False)
    assert model.event_weights(state, inputs, 5) is None


def test_without_a_history_the_other_one_explains() -> None:
    model, state, inputs, *_ = prepared(use_realtime=False)
    with torch.no_grad():
        found = model.event_weights(state, inputs, 5)
    assert found is not None
    begin, middle, _ = BATCH.history_ranges[BATCH.request_index].unbind(1)
    positions = found[0]
    assert bool(
        (
            (positions >= begin.unsqueeze(1)) & (positions < middle.unsqueeze(1)) | (positions < 0)
        ).all()
    )


def test_a_batch_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, state, inputs, *_ = prepared()
    with torch.no_grad():
        whole = model.event_weights(state, inputs, 3)
        monkeypatch.setattr("hemix.nn.event_weights._WEIGHTS_AT_ONCE", 1)
        pieces = model.event_weights(state, inputs, 3)
    assert whole is not None and pieces is not None
    torch.testing.assert_close(whole[1], pieces[1])


def test_an_event_is_told_in_any_case_and_once() -> None:
    model, state, inputs, *_ = prepared()
    with torch.no_grad():
        all_of_them = model.event_weights(state, inputs, BATCH.event_item.shape[0])
        found = model.event_weights(state, inputs, 1, extra=1)
    assert found is not None and all_of_them is not None
    for n, (places, shares) in enumerate(zip(found[0].tolist(), found[1].tolist(), strict=True)):
        weight = dict(zip(all_of_them[0][n].tolist(), all_of_them[1][n].tolist(), strict=True))
        told = {place: share for place, share in zip(places, shares, strict=True) if place >= 0}
        wanted = {place for place in (all_of_them[0][n, 0].item(), 1) if weight.get(place, 0) > 0}
        assert told == {place: pytest.approx(weight[place]) for place in wanted}
