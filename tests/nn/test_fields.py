"""Fields by level and means of what a request sees, against numbers worked out by hand and against
the plain way.
"""

from __future__ import annotations

import dataclasses

import torch

from hemix.data.spec import LevelSpec
from hemix.models import build_model
from hemix.nn.fields import Fields, event_columns, event_columns_count
from hemix.nn.histories import history_means
from tests.batches import make_batch, make_config, make_spec

SPEC = make_spec()


def test_means_by_hand() -> None:
    """Four events (1 2), (3 4), (5 6), (7 8) behind the null event, which no mean counts.

    Request 0 sees events 0 and 1 as global, event 2 as real time; request 1 nothing and events 1,
    2, 3; request 2 nothing at all.
    """
    events_ED = torch.tensor([[9.0, 9], [1, 2], [3, 4], [5, 6], [7, 8]])
    global_QD, realtime_QD = history_means(
        events_ED, torch.tensor([[0, 2, 3], [1, 1, 4], [2, 2, 2]])
    )
    assert global_QD.tolist() == [[2, 3], [0, 0], [0, 0]]
    assert realtime_QD.tolist() == [[5, 6], [5, 6], [0, 0]]


def test_means_and_their_gradients_are_those_of_the_plain_way() -> None:
    batch = make_batch(SPEC, users=9, requests_per_user=4, dtype=torch.float64)
    events = torch.randn(
        batch.event_item.shape[0] + 1,
        3,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )
    ours, plain = events.clone().requires_grad_(), events.clone().requires_grad_()
    means = history_means(ours, batch.history_ranges)
    for part in range(2):
        rows = [plain[1 + int(v[part]) : 1 + int(v[part + 1])] for v in batch.history_ranges]
        expected = torch.stack([r.mean(0) if len(r) else r.sum(0) for r in rows])
        torch.testing.assert_close(means[part], expected, rtol=1e-12, atol=1e-12)
        weight = torch.randn(
            expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(part)
        )
        (means[part] * weight).sum().backward(retain_graph=True)
        (expected * weight).sum().backward()
    assert ours.grad is not None and plain.grad is not None
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-12, atol=1e-12)


def test_means_without_requests_or_events() -> None:
    none = torch.zeros((0, 3), dtype=torch.int64)
    assert [m.shape for m in history_means(torch.ones(5, 2), none)] == [(0, 2), (0, 2)]
    assert [
        m.tolist() for m in history_means(torch.ones(1, 2), torch.zeros((1, 3), dtype=torch.int64))
    ] == [[[0, 0]], [[0, 0]]]


@torch.no_grad()
def test_a_field_is_a_column_and_the_numbers_are_one_more() -> None:
    """Users of the small spec: three id columns, a multi-valued one, two numbers: five fields."""
    model, batch = build_model(SPEC, make_config(embedding_size=4), 0).eval(), make_batch(SPEC)
    inputs = model.embed(batch)
    fields = Fields(SPEC, 4)
    for parameter in fields.parameters():
        parameter.fill_(1.0)
    assert (fields.user_count, fields.context_count, fields.candidate_count) == (5, 4, 8)
    assert fields.numbers_count == 2 + 1 + 2 + 1
    user_RFd = fields.user(inputs)
    homes = model.tables.by_name()["city"].index_select(0, batch.users.ids[:, 2])
    assert torch.equal(user_RFd[:, 2], homes)
    torch.testing.assert_close(
        user_RFd[:, 4], (batch.users.numbers.sum(1, keepdim=True) + 1).expand(-1, 4)
    )
    candidate_NFd = fields.candidate(inputs)
    brands = model.tables.by_name()["brand"].index_select(0, batch.items.ids[batch.item_index, 3])
    distances = model.tables.by_name()["distance"].index_select(0, batch.cross.ids[:, 0])
    assert torch.equal(candidate_NFd[:, 3], brands) and torch.equal(candidate_NFd[:, 6], distances)


@torch.no_grad()
def test_numbers_may_stay_as_they_are() -> None:
    model, batch = build_model(SPEC, make_config(embedding_size=4), 0).eval(), make_batch(SPEC)
    inputs, fields = model.embed(batch), Fields(SPEC, 4, numbers=False)
    assert (fields.user_count, fields.context_count, fields.candidate_count) == (4, 3, 6)
    assert fields.user(inputs).shape == (7, 4, 4)
    expected = torch.cat([batch.items.numbers[batch.item_index], batch.cross.numbers], 1)
    assert torch.equal(fields.candidate_numbers(inputs), expected)
    assert torch.equal(fields.context_numbers(inputs), batch.context.numbers)


@torch.no_grad()
def test_columns_of_events() -> None:
    """Item id, category, brand, then action and hour; the null event in front is zero."""
    model, batch = build_model(SPEC, make_config(embedding_size=4), 0).eval(), make_batch(SPEC)
    columns = event_columns(model.embed(batch), SPEC, 4)
    assert event_columns_count(SPEC) == 5 and columns.shape == (1 + batch.event_item.shape[0], 20)
    assert not columns[0].any()
    tables = model.tables.by_name()
    assert torch.equal(
        columns[1:, 4:8], tables["category"].index_select(0, batch.items.ids[batch.event_item, 2])
    )
    assert torch.equal(columns[1:, 16:], tables["hour"].index_select(0, batch.event_ids[:, 1]))


@torch.no_grad()
def test_events_without_columns() -> None:
    spec = dataclasses.replace(SPEC, event=LevelSpec(), event_item_columns=())
    model, batch = build_model(spec, make_config(embedding_size=4), 0).eval(), make_batch(spec)
    assert event_columns(model.embed(batch), spec, 4).shape == (1 + batch.event_item.shape[0], 0)
