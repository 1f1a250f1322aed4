"""Averages of the weights by hand, and rows that are caught up late against rows that are followed
in every step.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hemix.nn.embedding import EmbeddingTables, LookUp
from hemix.training import fbgemm
from hemix.training.moving_average import MovingAverage
from hemix.training.table_optimizers import build_table_optimizer


def make_tables(rows: int = 5, width: int = 3) -> EmbeddingTables:
    tables = EmbeddingTables({"a": rows}, width).train()
    with torch.no_grad():
        tables.weight.copy_(torch.randn(rows, width, generator=torch.Generator().manual_seed(0)))
    return tables


def averaged(average: MovingAverage, weight: Tensor) -> Tensor:
    with average.applied():
        return weight.detach().clone()


def test_the_dense_part_by_hand() -> None:
    """Decay 1/2 over 3, 6, 13: (1/4 * 3 + 1/2 * 6 + 13) / (1/4 + 1/2 + 1); the value before the
    first step counts for nothing.
    """
    weight = torch.tensor([100.0])
    average = MovingAverage({"w": weight}, make_tables(), 0.5)
    expected = {3.0: 3.0, 6.0: (3 / 2 + 6) / 1.5, 13.0: (3 / 4 + 6 / 2 + 13) / 1.75}
    for value, mean in expected.items():
        average.begin_step()
        weight.fill_(value)
        average.end_step()
        assert averaged(average, weight).item() == pytest.approx(mean)
        assert weight.item() == value, "the live weight is back"


def test_a_row_that_rested_by_hand() -> None:
    """Decay 1/2: 2 after step 1, untouched in steps 2 and 3, 10 after step 4; the weights are 1/8,
    1/4, 1/2, 1.
    """
    tables = make_tables(2, 1)
    average = MovingAverage({}, tables, 0.5)
    start = tables.weight[1].item()

    def change(value: float) -> None:
        rows, after = torch.tensor([0]), torch.tensor([[value]])
        average.update_rows(rows, tables.weight.detach()[rows], after)
        with torch.no_grad():
            tables.weight[0] = value

    for step in range(1, 5):
        average.begin_step()
        if step in (1, 4):
            change(2.0 if step == 1 else 10.0)
    mean = averaged(average, tables.weight)
    assert mean[0].item() == pytest.approx(
        (2 / 8 + 2 / 4 + 2 / 2 + 10) / (1 / 8 + 1 / 4 + 1 / 2 + 1)
    )
    assert mean[1].item() == start, "a row that was never touched is its own average, to the bit"


@pytest.mark.parametrize(
    "name",
    [
        "adam",
        "rowwise_adagrad",
        pytest.param(
            "fbgemm",
            marks=pytest.mark.skipif(fbgemm.installed() is None, reason="FBGEMM ABSENT"),
        ),
    ],
)
@pytest.mark.parametrize("looks", [(), (3, 11)], ids=["unlooked", "looked at in between"])
def test_tables_equal_an_average_over_every_step(name: str, looks: tuple[int, ...]) -> None:
    """However rarely a row is looked up, and whether or not the average was read meanwhile."""
    tables, draw = make_tables(), torch.Generator().manual_seed(1)
    optimizer = build_table_optimizer(
        "adam" if name == "adam" else "rowwise_adagrad",
        tables,
        "fbgemm" if name == "fbgemm" else "torch",
    )
    optimizer.weight_decay = 0.1
    optimizer.average = average = MovingAverage({}, tables, 0.8)
    follow: list[Tensor] = []
    for step in range(20):
        ids = torch.randint(0, 1 + step % 4, (3, 1), generator=draw)
        (vectors,) = tables.look_up([LookUp(tables=("a",), ids=ids)])
        (vectors - step).square().sum().backward()
        average.begin_step()
        optimizer.step(0.3)
        follow.append(tables.weight.detach().double())
        if step in looks:
            averaged(average, tables.weight)
    weights = torch.tensor([0.8 ** (19 - s) for s in range(20)], dtype=torch.float64)
    expected = (torch.stack(follow) * weights[:, None, None]).sum(0) / weights.sum()
    live = tables.weight.detach().clone()
    torch.testing.assert_close(
        averaged(average, tables.weight).double(), expected, rtol=1e-5, atol=1e-6
    )
    assert torch.equal(tables.weight, live)
    assert torch.equal(averaged(average, tables.weight)[4], live[4]), "row 4 was never looked up"


def test_state_goes_out_and_comes_back() -> None:
    weight, tables = torch.tensor([1.0]), make_tables()
    first, second = (
        MovingAverage({"w": weight}, tables, 0.9),
        MovingAverage({"w": weight}, tables, 0.9),
    )
    for value in (2.0, 5.0):
        first.begin_step()
        weight.fill_(value)
        first.update_rows(torch.tensor([1]), tables.weight.detach()[[1]], torch.full((1, 3), value))
        first.end_step()
    second.load({name: tensor.clone() for name, tensor in first.tensors().items()})
    assert averaged(first, weight).item() == averaged(second, weight).item()
    assert torch.equal(averaged(first, tables.weight), averaged(second, tables.weight))


def test_before_the_first_step_there_is_nothing_to_average() -> None:
    weight = torch.tensor([1.0])
    assert averaged(MovingAverage({"w": weight}, make_tables(), 0.9), weight).item() == 1.0
