"""What holds for every baseline that reads pooled histories: one user state serves all, what is not
seen does not matter, it learns.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hemix import api
from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec
from hemix.models import Ranker, build_model
from hemix.nn.heads import probabilities
from hemix.training.table_optimizers import build_table_optimizer
from tests.batches import (
    briefly_trained,
    make_batch,
    make_config,
    make_spec,
    reorder_users,
    select_candidates,
    smallest_spec,
    take_requests,
    without_events,
)
from tests.models.test_parity import SMALL, randomised
from tests.tolerances import PARITY_FP64

BASELINES = pytest.mark.parametrize("name", ["dlrm", "dcnv2", "wukong", "rankmixer"])
SPEC = make_spec()


def small(name: str, spec: InputSpec = SPEC) -> Ranker:
    return randomised(spec, make_config(**SMALL, name=name), torch.float64).eval()


def batch_of(spec: InputSpec = SPEC, **sizes: Any) -> RequestBatch:
    return make_batch(spec, dtype=torch.float64, **sizes)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    for name, value in probabilities(ours, SPEC).items():
        torch.testing.assert_close(value, probabilities(theirs, SPEC)[name], **PARITY_FP64)


@BASELINES
@torch.no_grad()
def test_a_server_that_keeps_the_user_state_gives_the_same(name: str) -> None:
    """encode_user once; later requests come one by one, without events."""
    model, batch = small(name), batch_of()
    whole = model(batch)
    user_state = model.keep_user(model.encode_user(model.embed(batch, stages=("user",))))
    for request in range(batch.requests_count):
        later = without_events(take_requests(batch, torch.tensor([request])))
        inputs = model.embed(later, stages=("request", "candidate"))
        logits = model.score(model.encode_request(user_state, inputs), inputs)
        assert_same(whole[batch.request_index == request], logits)


@BASELINES
@torch.no_grad()
def test_split_and_order_change_nothing(name: str) -> None:
    """Every request alone; users in another order; candidates of a request in pieces, or none."""
    model, batch = small(name), batch_of()
    whole = model(batch)
    for request in range(batch.requests_count):
        assert_same(
            whole[batch.request_index == request],
            model(take_requests(batch, torch.tensor([request]))),
        )
    assert_same(whole, model(reorder_users(batch, torch.arange(batch.users_count).flip(0))))
    inputs = model.embed(batch)
    state = model.encode_request(model.encode_user(inputs), inputs)
    for keep in (
        torch.arange(batch.candidates_count) % 2 == 0,
        torch.zeros(batch.candidates_count, dtype=torch.bool),
    ):
        chunk = select_candidates(batch, keep)
        assert_same(whole[keep], model.score(state, model.embed(chunk, stages=("candidate",))))


@BASELINES
@torch.no_grad()
def test_only_seen_events_matter(name: str) -> None:
    """Events outside every cut may be anything; one inside of a request's cut changes that
    request.
    """
    model, batch = small(name), batch_of()
    seen = torch.zeros(batch.event_item.shape[0], dtype=torch.bool)
    for begin, _, end in batch.history_ranges.tolist():
        seen[begin:end] = True
    assert not seen.all()
    changed = dataclasses.replace(
        batch, event_item=torch.where(seen, batch.event_item, (batch.event_item + 7) % 40)
    )
    whole = model(batch)
    assert_same(whole, model(changed))
    request = int((batch.history_ranges[:, 2] - batch.history_ranges[:, 0]).argmax())
    item = batch.event_item.clone()
    item[batch.history_ranges[request, 0]] = (item[batch.history_ranges[request, 0]] + 7) % 40
    difference = (
        (model(dataclasses.replace(batch, event_item=item)) - whole)[batch.request_index == request]
        .abs()
        .max()
    )
    assert difference > 1e-3


@BASELINES
@torch.no_grad()
def test_histories_may_be_empty(name: str) -> None:
    batch = batch_of(users=3, history=0, realtime=0, ragged=False)
    assert torch.isfinite(small(name)(batch)).all()


@BASELINES
def test_a_schema_of_ids_alone(name: str) -> None:
    """No numbers, no multi-valued features, no context; every dense weight gets a gradient."""
    spec = smallest_spec()
    model, batch = small(name, spec).train(), batch_of(spec)
    logits = model(batch)
    model.loss(logits, batch).backward()
    assert logits.shape == (batch.candidates_count, 1)
    assert [n for n, p in model.named_dense_parameters() if p.numel() and p.grad is None] == []


@BASELINES
def test_bf16_autocast_is_close(name: str) -> None:
    model, batch = build_model(SPEC, make_config(name=name), 0).train(), make_batch(SPEC)
    exact = model(batch).detach()
    model.tables.take_step()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch)
    assert logits.dtype == torch.float32
    for task, value in probabilities(logits.detach(), SPEC).items():
        torch.testing.assert_close(value, probabilities(exact, SPEC)[task], rtol=0, atol=0.02)
    model.loss(logits, batch).backward()
    assert {p.grad.dtype for p in model.dense_parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.usefixtures("deterministic")
@BASELINES
def test_two_trainings_give_the_same_bytes(name: str) -> None:
    first, second = (briefly_trained(SPEC, make_config(**SMALL, name=name)) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
@BASELINES
def test_it_learns_a_cross_of_candidate_and_history(name: str) -> None:
    """A click when the candidate's category and that of today's only event lie on the same side:
    neither tells anything alone.
    """
    model = build_model(SPEC, make_config(name=name), 0).train()
    dense = torch.optim.AdamW(list(model.dense_parameters()), 2e-3)
    tables = build_table_optimizer("adam", model.tables)
    for seed in range(100):
        batch, _ = _clicks_by_cross(seed)
        model.training_loss(batch).backward()
        dense.step()
        dense.zero_grad()
        tables.step(1e-2)
    batch, clicked = _clicks_by_cross(1000)
    scores = model.eval().predict(batch)["click"]
    assert scores[clicked == 1].mean() > 0.8 and scores[clicked == 0].mean() < 0.2


def _clicks_by_cross(seed: int) -> tuple[RequestBatch, Tensor]:
    batch = make_batch(
        SPEC,
        seed=seed,
        users=30,
        requests_per_user=1,
        candidates=6,
        history=4,
        realtime=1,
        items=60,
        ragged=False,
    )
    category = batch.items.ids[:, 2]
    today = category[batch.event_item[batch.history_ranges[batch.request_index, 1]]]
    clicked = ((category[batch.item_index] >= 5) == (today >= 5)).float()
    labels = torch.stack([clicked, torch.zeros_like(clicked)], 1)
    return dataclasses.replace(batch, labels=labels, weights=torch.ones_like(labels)), clicked


@BASELINES
def test_it_trains_and_evaluates_like_any_model(
    name: str, planted_data: Path, tmp_path: Path
) -> None:
    settings = {
        "train.epochs": 1,
        "train.batch_size": 256,
        "train.warmup_steps": 2,
        "train.threads": 1,
    }
    run = api.train(planted_data, tmp_path / "run", model=name, settings=settings)
    api.evaluate(run, planted_data)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["model"] == name
    assert 0 < metrics["split"]["test"]["tasks"]["click"]["auc"] < 1
