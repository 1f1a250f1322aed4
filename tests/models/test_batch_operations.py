"""Operations on a batch change no score: microbatches, some candidates, impressions with nothing
shared. The last do not change gradients either.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.models import Ranker, build_model
from hemix.nn.heads import probabilities
from tests.batches import make_batch, make_config, make_spec
from tests.models.test_parity import SMALL, randomised
from tests.tolerances import PARITY_FP64


def gradients(model: Ranker, batch: RequestBatch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    logits = model(batch)
    model.loss(logits, batch).backward()  # type: ignore[no-untyped-call]
    parameters = {
        name: p.grad.clone() for name, p in model.named_dense_parameters() if p.grad is not None
    }
    table_step = model.tables.take_step()
    assert table_step is not None
    tables = torch.zeros_like(model.tables.weight)
    tables[table_step[0]] = table_step[1]
    return logits, {**parameters, "tables": tables}


@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
def test_outputs_and_gradients_are_those_of_the_shared_batch(age: str) -> None:
    spec = make_spec()
    model = randomised(spec, make_config(**SMALL, time_encoding=age), torch.float64)
    batch = make_batch(spec, seed=9, dtype=torch.float64)
    apart = batch.expand_per_impression()
    apart.validate(spec)
    assert (
        apart.users_count
        == apart.requests_count
        == apart.candidates_count
        == batch.candidates_count
    )
    logits, of_weights = gradients(model, batch)
    logits_apart, of_weights_apart = gradients(model, apart)
    for name, value in probabilities(logits, spec).items():
        torch.testing.assert_close(value, probabilities(logits_apart, spec)[name], **PARITY_FP64)
    assert of_weights.keys() == of_weights_apart.keys()
    for name, value in of_weights.items():
        torch.testing.assert_close(
            value, of_weights_apart[name], **PARITY_FP64, msg=lambda m, name=name: f"{name}: {m}"
        )


@torch.no_grad()
def test_chunks_score_like_the_whole_batch() -> None:
    spec = make_spec()
    model = randomised(spec, make_config(**SMALL), torch.float64).eval()
    batch = make_batch(spec, seed=9, dtype=torch.float64)
    chunks = [
        model(batch.expand_per_impression(first, first + 10))
        for first in range(0, batch.candidates_count, 10)
    ]
    torch.testing.assert_close(torch.cat(chunks), model(batch), **PARITY_FP64)


@torch.no_grad()
@pytest.mark.parametrize("step", [1, 10])
def test_scores_of_some_candidates_are_those_of_the_batch(step: int) -> None:
    spec = make_spec()
    model = randomised(spec, make_config(**SMALL), torch.float64).eval()
    batch = make_batch(spec, seed=9, dtype=torch.float64)
    inputs = model.embed(batch)
    state = model.encode_request(model.encode_user(inputs), inputs)
    parts = [
        model.score(state, inputs.select_candidates(first, first + step))
        for first in range(0, batch.candidates_count, step)
    ]
    torch.testing.assert_close(torch.cat(parts), model(batch), **PARITY_FP64)


@pytest.mark.parametrize("count", [2, 9])
def test_scores_and_losses_of_microbatches_are_those_of_the_batch(count: int) -> None:
    spec = make_spec()
    model = build_model(spec, make_config(**SMALL), 0).double().eval()
    batch = make_batch(spec, users=7, dtype=torch.float64)
    logits = model(batch)
    weight = model.loss_weight(batch)
    total = torch.zeros((), dtype=torch.float64)
    for index in range(count):
        microbatch, candidates = batch.microbatch(index, count)
        own = model(microbatch)
        torch.testing.assert_close(own, logits[candidates], rtol=0, atol=1e-12)
        total = total + model.loss(own, dataclasses.replace(microbatch, loss_weight=weight))
    torch.testing.assert_close(total, model.loss(logits, batch))
