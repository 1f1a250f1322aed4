"""SIM's heart: which events the search finds, and what the exact search makes of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.spec import MISSING
from hemix.errors import SettingsError
from hemix.models import build_model
from hemix.models.sim import SIM, ExactSearch, best
from hemix.nn.time_encoding import AGE_BUCKETS, age_bucket
from tests.batches import make_batch, make_config, make_spec
from tests.models.test_parity import SMALL, randomised
from tests.refusals import raises

SPEC = make_spec()


def make(batch: RequestBatch, **settings: object) -> SIM:
    model = randomised(
        SPEC, make_config(**SMALL, name="sim", **settings), batch.users.numbers.dtype
    ).eval()
    assert isinstance(model, SIM)
    return model


def searched_rows(model: SIM, batch: RequestBatch) -> tuple[list[set[int]], Tensor, Tensor]:
    """(rows found for every candidate, event vectors, candidate vectors)."""
    inputs = model.embed(batch)
    state = model.encode_user(inputs)
    candidates = model.events.candidates(inputs)
    rows = model.search(model.encode_request(state, inputs), candidates, batch).rows_Nk
    return [{int(row) for row in each if row > 0} for each in rows], state.events_ED, candidates


@pytest.mark.parametrize(
    ("count", "columns"),
    [(1, {3}), (2, {1, 3}), (3, {1, 2, 3}), (4, {0, 1, 2, 3}), (9, {0, 1, 2, 3})],
)
def test_the_best_by_hand(count: int, columns: set[int]) -> None:
    """Column 4 scores highest but may not be chosen; columns 1 and 3 are equal, and the later is
    better.
    """
    scores = torch.tensor([-2.0, 3.0, -1.0, 3.0, 9.0])
    chosen, exists = best(scores, torch.tensor([True, True, True, True, False]), count)
    assert set(chosen[exists].tolist()) == columns


def test_nothing_is_chosen_where_nothing_may_be() -> None:
    _, exists = best(torch.zeros(2, 3), torch.tensor([[False] * 3, [True, False, False]]), 2)
    assert exists.sum(1).tolist() == [0, 1]


def test_the_exact_search_by_hand() -> None:
    """Scores 0 and ln 3 weigh 1/4 and 3/4; what does not exist weighs nothing."""
    search = ExactSearch(2, 1, 1)
    with torch.no_grad():
        search.query.weight.copy_(torch.eye(2))
        search.key.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
        search.age_vector.zero_()
        search.age_vector[5] = math.log(3) / 2
        events = torch.tensor([[[0.0, 4.0], [0.0, 8.0], [50.0, 50.0]]])
        got = search(
            torch.tensor([[1.0, 2.0]]),
            events,
            torch.tensor([[0, 5, 0]]),
            torch.tensor([[True, True, False]]),
        )
    torch.testing.assert_close(got, torch.tensor([[0.0, 1.0 + 6.0, 0.75 * math.log(3) / 2]]))


@torch.no_grad()
def test_soft_search_finds_the_largest_inner_products() -> None:
    """Against sorting every visible global event by (W_b e) . (W_a t), candidate by candidate."""
    batch = make_batch(SPEC, history=60, realtime=3, dtype=torch.float64)
    model = make(batch, search_events=4)
    assert model.search_event is not None and model.search_candidate is not None
    rows, events, candidates = searched_rows(model, batch)
    for n, request in enumerate(batch.request_index.tolist()):
        begin, middle, _ = batch.history_ranges[request].tolist()
        scores = (
            model.search_event(events[begin + 1 : middle + 1])
            @ model.search_candidate(candidates[n])
        ).bfloat16()
        order = sorted(range(middle - begin), key=lambda i, s=scores: (float(s[i]), i))[-4:]
        assert rows[n] == {begin + 1 + i for i in order}


@torch.no_grad()
def test_hard_search_finds_the_newest_of_the_candidates_category() -> None:
    batch = make_batch(SPEC, history=60, realtime=3)
    model = make(batch, search="category", search_events=2)
    rows, _, _ = searched_rows(model, batch)
    category = batch.items.ids[:, 2]
    for n, request in enumerate(batch.request_index.tolist()):
        begin, middle, _ = batch.history_ranges[request].tolist()
        wanted = int(category[batch.item_index[n]])
        same = [
            e + 1
            for e in range(begin, middle)
            if int(category[batch.event_item[e]]) == wanted > MISSING
        ]
        assert rows[n] == set(same[-2:])
    assert any(rows)


def test_hard_search_by_a_feature_that_events_lack_is_refused() -> None:
    names = ("item_id, category, brand", "'price'")
    with raises(SettingsError, *names, field="model.search"):
        build_model(SPEC, make_config(name="sim", search="price"), 0)


@torch.no_grad()
def test_finding_everything_is_full_attention() -> None:
    """With at least as many places as events, the exact search is plain attention over the whole
    global part and the null event.
    """
    batch = make_batch(SPEC, dtype=torch.float64)
    model = make(batch, search_events=30)
    inputs = model.embed(batch)
    seen: list[Tensor] = []
    model.exact.register_forward_hook(lambda _module, _arguments, out: seen.append(out))
    whole = model(batch)
    state, candidates = model.encode_user(inputs), model.events.candidates(inputs)
    H, d = model.exact.heads, candidates.shape[1] // model.exact.heads
    for n, request in enumerate(batch.request_index.tolist()):
        rows = torch.tensor(
            [
                0,
                *range(
                    int(batch.history_ranges[request, 0]) + 1,
                    int(batch.history_ranges[request, 1]) + 1,
                ),
            ]
        )
        age = age_bucket(batch.request_time_ms[request], state.time_ms[rows])
        age[0] = AGE_BUCKETS
        z = torch.cat([state.events_ED[rows], model.exact.age_vector[age]], 1)
        keys, query = model.exact.key(z), model.exact.query(candidates[n])
        heads = [
            (keys[:, h * d : (h + 1) * d] @ query[h * d : (h + 1) * d]).softmax(0) @ z
            for h in range(H)
        ]
        torch.testing.assert_close(seen[0][n], torch.cat(heads), rtol=1e-9, atol=1e-9)
    few = make(batch, search_events=2)
    few.load_state_dict(model.state_dict())
    assert not torch.allclose(few(batch), whole)


def test_the_search_unit_learns_from_its_own_loss() -> None:
    """In training the loss is that of both logits; the search's weights get their gradient from the
    second alone.
    """
    batch = make_batch(SPEC, dtype=torch.float64)
    model = make(batch).train()
    logits, searched = model.training_logits(batch)
    total = model.loss(logits, batch, [searched])
    torch.testing.assert_close(total, model.loss(logits, batch) + model.loss(searched, batch))
    assert model.search_event is not None
    weight = model.search_event.weight
    (gradient,) = torch.autograd.grad(total, [weight], retain_graph=True)
    assert gradient.abs().max() > 0
    assert torch.autograd.grad(model.loss(logits, batch), [weight], allow_unused=True) == (None,)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(batch), logits)


def test_hard_search_has_no_auxiliary_logits() -> None:
    batch = make_batch(SPEC, dtype=torch.float64)
    assert len(make(batch, search="category").train().training_logits(batch)) == 1


def test_equal_scores_of_minus_zero_and_zero() -> None:
    chosen, _ = best(torch.tensor([0.0, -0.0, -1e-3]), torch.ones(3, dtype=torch.bool), 1)
    assert chosen.tolist() == [1]
