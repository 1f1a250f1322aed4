"""A batch divided among processes: every candidate once, whole users, and a part says of its
candidates what the batch says.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hemix.data.parts import part_of
from hemix.models import build_model
from tests.batches import make_batch, make_config, make_spec
from tests.models.test_parity import SMALL


@pytest.mark.parametrize("parts", [1, 2, 3, 9])
def test_parts_hold_every_candidate_once_and_no_user_twice(parts: int) -> None:
    spec = make_spec()
    batch = make_batch(spec, users=7)
    batch = dataclasses.replace(batch, impression_index=torch.arange(batch.candidates_count) + 100)
    seen, users = [], 0
    for part in range(parts):
        found, candidates = part_of(batch, part, parts)
        found.validate(spec)
        assert found.impression_index is not None and torch.equal(
            found.impression_index, candidates + 100
        )
        seen.append(candidates)
        users += found.users_count
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(batch.candidates_count))
    assert users == batch.users_count


@pytest.mark.parametrize("parts", [2, 9])
def test_scores_and_losses_of_parts_are_those_of_the_batch(parts: int) -> None:
    spec = make_spec()
    model = build_model(spec, make_config(**SMALL), 0).double().eval()
    batch = make_batch(spec, users=7, dtype=torch.float64)
    logits = model(batch)
    weight = model.loss_weight(batch)
    total = torch.zeros((), dtype=torch.float64)
    for part in range(parts):
        found, candidates = part_of(batch, part, parts)
        own = model(found)
        torch.testing.assert_close(own, logits[candidates], rtol=0, atol=1e-12)
        total = total + model.loss(own, dataclasses.replace(found, loss_weight=weight))
    torch.testing.assert_close(total, model.loss(logits, batch))


def test_more_parts_than_users_leave_some_with_nothing() -> None:
    batch = make_batch(make_spec(), users=2)
    found, candidates = part_of(batch, 5, 6)
    assert (
        found.users_count == found.requests_count == found.candidates_count == len(candidates) == 0
    )
