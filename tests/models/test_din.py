"""DIN's heart: the activation unit by hand, and a sum that nothing normalises."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from hemix.models import build_model
from hemix.models.din import DIN, ActivationUnit, Recent
from hemix.nn.history_ranges import HistoryRanges
from hemix.nn.layers import BlockLinear
from hemix.nn.slots import HostIndex
from tests.batches import make_batch, make_config, make_spec, take_requests
from tests.models.test_parity import SMALL, randomised


def by_hand() -> ActivationUnit:
    """A unit of width 2 with two live inner units."""
    unit = ActivationUnit(2)
    rows = {
        "event": [[1.0, 0.0], [0.0, 1.0]],
        "product": [[0.0, 1.0], [0.0, 0.0]],
        "difference": [[2.0, 0.0], [0.0, 0.0]],
        "candidate": [[0.0, -1.0], [-3.0, 0.0]],
    }
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.zero_()
        for name, values in rows.items():
            unit.first.blocks[name][:2] = torch.tensor(values)
        unit.first.bias[0] = 0.5
        unit.prelu.weight.fill_(0.25)
        unit.second.weight[0, :2] = torch.tensor([2.0, 1.0])
        unit.second.bias.fill_(0.25)
    return unit


def recent(
    unit: ActivationUnit,
    events: list[list[float]],
    user_ranges: list[tuple[int, int]],
    users: list[int],
) -> Recent:
    begin, end = torch.tensor(user_ranges).unbind(1)
    ranges = HistoryRanges(user_index_Q=torch.tensor(users), begin_Q=begin, end_Q=end)
    return unit.recent(torch.tensor([[7.0, 7.0], *events]), ranges, max(users) + 1)


CANDIDATE = torch.tensor([[2.0, 1.0]])


@torch.no_grad()
def test_the_activation_unit_by_hand() -> None:
    """Inner unit 0: e = (1, 2) gives 1 + 2 - 2 - 1 + 0.5 = 0.5, e = (3, -1) gives 3 - 1 + 2 - 1 +
    0.5 = 3.5. Inner unit 1: 2 - 6 = -4, -1 - 6 = -7, of which PReLU lets a quarter through. So a =
    2 * 0.5 - 1 + 0.25 = 0.25 and 2 * 3.5 - 1.75 + 0.25 = 5.5.
    """
    unit = by_hand()
    read = recent(unit, [[1.0, 2.0], [3.0, -1.0]], [(0, 2)], [0])
    weights = unit.weights(read, torch.tensor([1, 2]), CANDIDATE, torch.tensor([0, 0]))
    torch.testing.assert_close(weights, torch.tensor([0.25, 5.5]))
    interest = unit(read, CANDIDATE, HostIndex(torch.tensor([0])))
    torch.testing.assert_close(interest, torch.tensor([[0.25 + 16.5, 0.5 - 5.5]]))


@torch.no_grad()
def test_the_sum_is_not_normalised() -> None:
    """The same event twice counts twice; a request without events gets the null event; users lie
    side by side.
    """
    unit = by_hand()
    events = [[1.0, 2.0], [1.0, 2.0], [3.0, -1.0]]
    read = recent(unit, events, [(0, 1), (0, 2), (2, 2), (2, 3)], [0, 0, 1, 1])
    interest = unit(read, CANDIDATE.expand(4, 2), HostIndex(torch.arange(4)))
    torch.testing.assert_close(
        interest, torch.tensor([[0.25, 0.5], [0.5, 1.0], [7.0, 7.0], [16.5, -5.5]])
    )


def test_the_split_weights_are_one_linear_map_of_the_concatenation() -> None:
    """First layer of [e ; e * t ; e - t ; t], whatever is multiplied once per event or once per
    candidate.
    """
    generator = torch.Generator().manual_seed(0)
    unit = ActivationUnit(5).double()
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    events, candidates = (
        torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (4, 3)
    )
    ranges = HistoryRanges(
        user_index_Q=torch.tensor([0]), begin_Q=torch.tensor([0]), end_Q=torch.tensor([3])
    )
    read = unit.recent(events, ranges, 1)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    e, t = events[pairs[:, 0]], candidates[pairs[:, 1]]
    assert isinstance(unit.first, BlockLinear)
    weight = torch.cat(
        [unit.first.blocks[name] for name in ("event", "product", "difference", "candidate")], 1
    )
    inner = torch.cat([e, e * t, e - t, t], 1) @ weight.T + unit.first.bias
    expected = unit.second(unit.prelu(inner)).squeeze(1)
    torch.testing.assert_close(
        unit.weights(read, pairs[:, 0], candidates, pairs[:, 1]), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("back", "matters"), [(3, True), (4, False)])
@torch.no_grad()
def test_only_the_newest_events_are_read(back: int, matters: bool) -> None:
    spec = make_spec()
    model = randomised(
        spec, make_config(**SMALL, name="din", history_events=3), torch.float64
    ).eval()
    assert isinstance(model, DIN)
    batch = make_batch(spec, dtype=torch.float64)
    request = int((batch.history_ranges[:, 2] - batch.history_ranges[:, 0]).argmax())
    batch = take_requests(batch, torch.tensor([request]))
    item: Tensor = batch.event_item.clone()
    item[int(batch.history_ranges[0, 2]) - back] += 1
    changed = (model(dataclasses.replace(batch, event_item=item % 40)) - model(batch)).abs().max()
    assert bool(changed > 1e-6) is matters


def test_prelu_starts_at_a_quarter() -> None:
    model = build_model(make_spec(), make_config(name="din"), 0)
    assert isinstance(model, DIN)
    assert (model.activation.prelu.weight == 0.25).all()
