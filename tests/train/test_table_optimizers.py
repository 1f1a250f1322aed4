"""Table optimisers against numbers worked out by hand and against dense PyTorch ones; untouched rows stay untouched."""

from __future__ import annotations

import pytest
import torch

from hemix.errors import SettingsError
from hemix.model.embedding import LookUp, Tables
from hemix.train.table_optimizers import RowOptimizer, build_table_optimizer


def make_tables(rows: int = 6, width: int = 2) -> Tables:
    tables = Tables({"a": rows}, width).train()
    with torch.no_grad():
        tables.weight.copy_(torch.randn(rows, width, generator=torch.Generator().manual_seed(0)))
    return tables


def step(tables: Tables, optimizer: RowOptimizer, ids: list[int], scale: float, learning_rate: float = 0.1) -> None:
    (vectors,) = tables.look_up([LookUp(tables=("a",), ids=torch.tensor(ids).unsqueeze(1))])
    (vectors.square().sum() * scale).backward()
    optimizer.step(learning_rate)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
def test_only_looked_up_rows_change(name: str) -> None:
    tables = make_tables()
    optimizer = build_table_optimizer(name, tables)
    step(tables, optimizer, [1, 3], 1.0)
    before = tables.weight.clone()
    step(tables, optimizer, [3, 4], 1.0)
    changed = (tables.weight != before).all(1)
    assert changed.tolist() == [False, False, False, True, True, False]


def test_adam_equals_dense_adam_where_every_row_is_looked_up() -> None:
    tables = make_tables()
    dense = torch.nn.Parameter(tables.weight.clone())
    reference = torch.optim.Adam([dense], lr=0.1)
    optimizer = build_table_optimizer("adam", tables)
    for i in range(20):
        step(tables, optimizer, list(range(6)), 1.0 + i)
        reference.zero_grad()
        (dense.square().sum() * (1.0 + i)).backward()
        reference.step()
    torch.testing.assert_close(tables.weight, dense, rtol=1e-5, atol=1e-6)


def test_adam_corrects_by_steps_not_by_a_rows_own_count() -> None:
    """A row first seen in step 2: m = 0.1 g, v = 0.001 g^2; the move is lr * (0.1 / (1 - 0.9^2)) / sqrt(0.001 / (1 - 0.999^2))."""
    tables = make_tables()
    optimizer = build_table_optimizer("adam", tables)
    step(tables, optimizer, [0], 1.0)
    before = tables.weight[5].clone()
    step(tables, optimizer, [5], 1.0)
    expected = 0.1 * (0.1 / (1 - 0.9**2)) / (0.001 / (1 - 0.999**2)) ** 0.5
    torch.testing.assert_close((before - tables.weight[5]).abs(), torch.full((2,), expected), rtol=1e-4, atol=1e-6)


def test_rowwise_adagrad_by_hand() -> None:
    """Weight (3, 4), loss w^2 / 2 per value: gradient (3, 4), mean square 12.5; the move is lr * g / sqrt(12.5)."""
    tables = make_tables(rows=3)
    with torch.no_grad():
        tables.weight[1] = torch.tensor([3.0, 4.0])
    step(tables, build_table_optimizer("rowwise_adagrad", tables), [1], 0.5)
    expected = torch.tensor([3.0, 4.0]) * (1 - 0.1 / 12.5**0.5)
    torch.testing.assert_close(tables.weight[1], expected)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
def test_state_goes_out_and_comes_back(name: str) -> None:
    ours, theirs = make_tables(), make_tables()
    first, second = build_table_optimizer(name, ours), build_table_optimizer(name, theirs)
    step(ours, first, [1, 2], 1.0)
    saved = {key: value.clone() for key, value in first.tensors().items()}
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
    second.load(saved)
    step(ours, first, [2, 3], 2.0)
    step(theirs, second, [2, 3], 2.0)
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
def test_a_step_without_gradient_does_nothing(name: str) -> None:
    tables = make_tables()
    optimizer, before = build_table_optimizer(name, tables), tables.weight.clone()
    optimizer.step(0.1)
    tables.look_up([LookUp(tables=("a",), ids=torch.tensor([[1]]))])
    optimizer.step(0.1)
    assert torch.equal(tables.weight, before)


def test_an_unknown_optimiser_is_named() -> None:
    with pytest.raises(SettingsError, match=r"train\.table_optimizer: unknown optimiser 'sgd'"):
        build_table_optimizer("sgd", make_tables())
