"""Sharing changes neither scores nor gradients: a batch against the same impressions with nothing
shared, whole or in chunks.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.unshared import unshared
from hemix.models import Ranker
from hemix.nn.heads import probabilities
from tests.batches import make_batch, make_config, make_spec
from tests.models.test_parity import SMALL, randomised
from tests.tolerances import PARITY_FP64


def gradients(model: Ranker, batch: RequestBatch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    logits = model(batch)
    model.loss(logits, batch).backward()  # type: ignore[no-untyped-call]
    found = {
        name: p.grad.clone() for name, p in model.named_dense_parameters() if p.grad is not None
    }
    taken = model.tables.take_step()
    assert taken is not None
    tables = torch.zeros_like(model.tables.weight)
    tables[taken[0]] = taken[1]
    return logits, {**found, "tables": tables}


@pytest.mark.parametrize("age", ["bias", "rotary", "embedding", "none"])
def test_outputs_and_gradients_are_those_of_the_shared_batch(age: str) -> None:
    spec = make_spec()
    model = randomised(spec, make_config(**SMALL, time_encoding=age), torch.float64)
    batch = make_batch(spec, seed=9, dtype=torch.float64)
    apart = unshared(batch)
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
def test_chunks_are_pieces_of_the_whole() -> None:
    spec = make_spec()
    model = randomised(spec, make_config(**SMALL), torch.float64).eval()
    batch = make_batch(spec, seed=9, dtype=torch.float64)
    pieces = [
        model(unshared(batch, first, first + 10)) for first in range(0, batch.candidates_count, 10)
    ]
    torch.testing.assert_close(torch.cat(pieces), model(batch), **PARITY_FP64)


def test_an_impression_brings_what_it_sees_and_no_more() -> None:
    """Each impression has its visible events, one item row for its candidate and one for each of
    them.
    """
    batch = make_batch(make_spec(), seed=4)
    apart = unshared(batch, 3, 8)
    begin, _, end = batch.history_ranges[batch.request_index[3:8]].unbind(1)
    assert torch.equal(apart.event_offsets.diff(), end - begin)
    assert apart.items.rows == 5 + int((end - begin).sum())
    seen = torch.cat([torch.arange(int(b), int(e)) for b, e in zip(begin, end, strict=True)])
    assert torch.equal(apart.event_time_ms, batch.event_time_ms[seen])
    assert torch.equal(apart.items.ids[apart.event_item], batch.items.ids[batch.event_item[seen]])
