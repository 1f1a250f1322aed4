"""The whole model: determinism, bf16, dropout, and the traps of the public re-implementation."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.models import build_model
from hemix.nn.heads import probabilities
from hemix.training.table_optimizers import build_table_optimizer
from tests.batches import briefly_trained, make_batch, make_config, make_spec, take_requests
from tests.models.test_parity import SMALL, randomised

SPEC = make_spec()


@pytest.fixture
def deterministic() -> object:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
def test_two_trainings_give_the_same_bytes(age: str) -> None:
    first, second = (
        briefly_trained(SPEC, make_config(**SMALL, time_encoding=age)) for _ in range(2)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_learns_a_rule_from_one_pass_over_batches() -> None:
    """Clicks depend on the candidate's category alone; 60 batches are enough to separate unseen
    candidates.
    """
    model = build_model(SPEC, make_config(), 0).train()
    dense = torch.optim.AdamW(list(model.dense_parameters()), 2e-3)
    tables = build_table_optimizer("adam", model.tables)
    for seed in range(60):
        batch, clicked = _clicks_by_category(seed)
        model.training_loss(batch).backward()
        dense.step()
        dense.zero_grad()
        tables.step(1e-2)
    batch, clicked = _clicks_by_category(1000)
    scores = model.eval().predict(batch)["click"]
    assert scores[clicked == 1].mean() > 0.8 and scores[clicked == 0].mean() < 0.2


def _clicks_by_category(seed: int) -> tuple[RequestBatch, Tensor]:
    batch = make_batch(SPEC, seed=seed, users=15, requests_per_user=2, candidates=6, history=8)
    clicked = (batch.items.ids[batch.item_index, 2] >= 5).float()
    labels = torch.stack([clicked, torch.zeros_like(clicked)], 1)
    return dataclasses.replace(batch, labels=labels, weights=torch.ones_like(labels)), clicked


def test_bf16_autocast_is_close_and_its_gradients_are_fp32() -> None:
    model, batch = build_model(SPEC, make_config(), 0).train(), make_batch(SPEC)
    exact = model(batch).detach()
    model.tables.take_step()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch)
    assert logits.dtype == torch.float32
    for name, value in probabilities(logits.detach(), SPEC).items():
        torch.testing.assert_close(value, probabilities(exact, SPEC)[name], rtol=0, atol=0.02)
    model.loss(logits, batch).backward()
    assert {p.grad.dtype for p in model.dense_parameters() if p.grad is not None} == {torch.float32}


def test_dropout_acts_in_training_alone() -> None:
    model, batch = build_model(SPEC, make_config(dropout=0.5), 0), make_batch(SPEC)
    with torch.no_grad():
        assert torch.equal(model.eval()(batch), model(batch))
        assert not torch.equal(model.train()(batch), model(batch))


@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
def test_zeroed_padding_takes_no_attention(age: str) -> None:
    """The trap: 5 events padded to 20.

    Alone or beside a user with 20 events, the same 5 events give the same gradient to every weight;
    padding that took part in the softmax would take its share.
    """
    model = randomised(SPEC, make_config(**SMALL, time_encoding=age), torch.float64)
    batch = make_batch(
        SPEC,
        users=2,
        requests_per_user=1,
        candidates=1,
        history=20,
        realtime=3,
        ragged=False,
        dtype=torch.float64,
    )
    history_ranges = batch.history_ranges.clone()
    history_ranges[0] = torch.tensor([15, 17, 20])
    batch = dataclasses.replace(
        batch, history_ranges=history_ranges, user_index=torch.tensor([0, 1])
    )
    logits = model(batch)[0]
    model.tables.take_step()
    torch.testing.assert_close(
        logits, model(take_requests(batch, torch.tensor([0])))[0], rtol=1e-12, atol=1e-12
    )


def test_an_empty_history_reads_the_null_event() -> None:
    """Without events the null event's vector moves the score; no softmax over nothing, no NaN."""
    model = randomised(SPEC, make_config(**SMALL), torch.float32).eval()
    batch = make_batch(SPEC, users=2, history=0, realtime=0, ragged=False)
    with torch.no_grad():
        before = model(batch)
        assert torch.isfinite(before).all()
        model.get_parameter("events.null").add_(1.0)
        assert not torch.allclose(model(batch), before)
