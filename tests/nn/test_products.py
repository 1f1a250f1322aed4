"""Products of fields: worked out by hand, and made of what each level alone knows."""

from __future__ import annotations

import dataclasses

import torch

from hemix.models import build_model
from hemix.models.hemix import HeMix
from hemix.nn.products import FieldProducts, cross_dots, pair_dots
from tests.batches import make_batch, make_config, make_spec, smallest_spec
from tests.models.test_parity import SMALL, randomised


def test_pairs_by_hand() -> None:
    request = torch.tensor([[[1.0, 2], [3, 4]]])
    candidate = torch.tensor([[[5.0, 6], [7, 8]]])
    assert pair_dots(request).tolist() == [[1 * 3 + 2 * 4]]
    # Field by field with the request's: 5*1+6*2, 5*3+6*4, 7*1+8*2, 7*3+8*4; then the candidate's
    # own pair 7*5+8*6.
    assert cross_dots(candidate, request).tolist() == [[17, 39, 23, 53, 83]]


def test_what_is_counted_is_what_is_made() -> None:
    for spec in (make_spec(), smallest_spec()):
        batch = make_batch(spec)
        for products in ("fields", "histories"):
            model = build_model(spec, make_config(**SMALL, products=products), 0)
            assert isinstance(model, HeMix) and isinstance(model.products, FieldProducts)
            inputs = model.embed(batch)
            fields_QFd, products_QP = model.products.of_requests(
                model.products.of_users(inputs), inputs
            )
            products_NP = model.products.of_candidates(fields_QFd, inputs)
            assert products_QP.shape == (batch.requests_count, model.products.request_count)
            assert products_NP.shape == (batch.candidates_count, model.products.candidate_count)


def test_every_pair_is_there_once() -> None:
    spec = make_spec()
    for products in ("fields", "histories"):
        model = build_model(spec, make_config(**SMALL, products=products), 0)
        assert isinstance(model, HeMix) and model.products is not None
        F = model.products.fields.count
        assert model.products.request_count + model.products.candidate_count == F * (F - 1) // 2


def test_without_products_the_tokeniser_has_no_columns_for_them_and_states_keep_nothing() -> None:
    spec, batch = make_spec(), make_batch(make_spec())
    model = build_model(spec, make_config(**SMALL, products="none"), 0)
    assert isinstance(model, HeMix) and model.products is None
    assert not [name for name in model.state_dict() if "products" in name]
    inputs = model.embed(batch)
    user = model.encode_user(inputs)
    assert user.fields is None and model.encode_request(user, inputs).fields_QFd is None


def test_a_history_that_is_not_used_makes_no_products() -> None:
    spec = make_spec()

    def fields(**options: bool) -> int:
        model = build_model(spec, make_config(**SMALL, **options), 0)
        assert isinstance(model, HeMix) and model.products is not None
        return model.products.fields.count

    columns = len(spec.event_item_columns) + len(spec.event.tables)
    assert fields() - fields(use_realtime=False) == columns == fields() - fields(use_global=False)
    assert fields() - fields(use_realtime=False, use_global=False) == 2 * columns


def test_products_of_histories_see_only_what_the_request_sees() -> None:
    """Another item in an event behind the request's cut changes nothing; in one before it, the
    score.
    """
    spec = smallest_spec()
    batch = make_batch(
        spec, users=1, requests_per_user=1, candidates=3, history=8, realtime=3, ragged=False
    )
    settings = make_config(**SMALL)
    model = randomised(spec, settings, torch.float32).eval()
    history_ranges = batch.history_ranges.clone()
    history_ranges[:, 2] -= 1  # the newest event comes too late
    batch = dataclasses.replace(batch, history_ranges=history_ranges)

    def scores(event: int | None) -> torch.Tensor:
        items = batch.event_item.clone()
        if event is not None:
            items[event] = (items[event] + 1) % batch.items.ids.shape[0]
            assert not torch.equal(
                batch.items.ids[items[event]], batch.items.ids[batch.event_item[event]]
            )
        with torch.no_grad():
            return model(dataclasses.replace(batch, event_item=items))

    unchanged = scores(None)
    assert torch.equal(scores(7), unchanged)
    assert not torch.equal(scores(6), unchanged) and not torch.equal(scores(0), unchanged)
